use std::io::Cursor;

use proptest::prelude::*;

use super::*;

const LIMIT: u64 = 100 << 30;

/// A sound version 3 image of 1 GiB with 64 KiB clusters: header, refcount table, L1 table.
fn sound() -> Vec<u8> {
    let mut bytes = vec![0u8; 4 * 65536];
    bytes[..4].copy_from_slice(&MAGIC);
    put32(&mut bytes, 4, 3);
    put32(&mut bytes, 20, 16);
    put64(&mut bytes, 24, 1 << 30);
    put32(&mut bytes, 36, 2);
    put64(&mut bytes, 40, 3 * 65536);
    put64(&mut bytes, 48, 65536);
    put32(&mut bytes, 56, 1);
    put32(&mut bytes, 96, 4);
    put32(&mut bytes, 100, 112);
    bytes
}
fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
fn put64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
}
fn reason(change: impl FnOnce(&mut Vec<u8>)) -> &'static str {
    let mut bytes = sound();
    change(&mut bytes);
    match check(&mut Cursor::new(bytes), LIMIT) {
        Ok(header) => panic!("taken: {header:?}"),
        Err(refusal) => refusal.reason(),
    }
}

#[test]
fn takes_a_sound_image() {
    let header = check(&mut Cursor::new(sound()), LIMIT).unwrap();
    assert_eq!(header, Header { version: 3, virtual_size: 1 << 30 });
}

#[test]
fn takes_zstd_and_version_2() {
    let mut zstd = sound();
    put64(&mut zstd, 72, incompatible::COMPRESSION);
    zstd[104] = 1;
    assert!(check(&mut Cursor::new(zstd), LIMIT).is_ok());

    let mut old = sound();
    put32(&mut old, 4, 2);
    // In version 2 these bytes are extensions already: an empty list.
    old[72..112].fill(0);
    assert_eq!(check(&mut Cursor::new(old), LIMIT).unwrap().version, 2);
}

#[test]
fn each_refusal_has_its_own_reason() {
    assert_eq!(reason(|b| b[0] = 0), "ImageNotQcow2");
    assert_eq!(reason(|b| b.truncate(3)), "ImageNotQcow2");
    assert_eq!(reason(|b| put32(b, 4, 1)), "ImageVersionUnsupported");
    assert_eq!(reason(|b| put64(b, 8, 512)), "ImageHasBackingFile");
    // A length without an offset: QEMU ignores it, another reader may not.
    assert_eq!(reason(|b| put32(b, 16, 11)), "ImageHasBackingFile");
    assert_eq!(reason(|b| put32(b, 32, 1)), "ImageEncrypted");
    assert_eq!(reason(|b| put32(b, 32, 2)), "ImageEncrypted");
    assert_eq!(reason(|b| put64(b, 72, incompatible::DATA_FILE)), "ImageHasDataFile");
    assert_eq!(reason(|b| put64(b, 72, incompatible::CORRUPT)), "ImageCorrupt");
    assert_eq!(reason(|b| put64(b, 72, incompatible::DIRTY)), "ImageCorrupt");
    assert_eq!(reason(|b| put64(b, 72, 1 << 40)), "ImageFeatureUnknown");
    assert_eq!(reason(|b| b[104] = 1), "ImageFeatureUnknown");
    assert_eq!(reason(|b| put32(b, 60, 2)), "ImageHasSnapshots");
    assert_eq!(reason(|b| put32(b, 20, 8)), "ImageHeaderInvalid");
    assert_eq!(reason(|b| put32(b, 20, 22)), "ImageHeaderInvalid");
    assert_eq!(reason(|b| put32(b, 20, u32::MAX)), "ImageHeaderInvalid");
    assert_eq!(reason(|b| put32(b, 96, 7)), "ImageHeaderInvalid");
    assert_eq!(reason(|b| put32(b, 100, 80)), "ImageHeaderInvalid");
    assert_eq!(reason(|b| put32(b, 100, u32::MAX - 7)), "ImageHeaderInvalid");
    assert_eq!(reason(|b| put64(b, 24, 0)), "ImageHeaderInvalid");
    assert_eq!(reason(|b| put64(b, 24, u64::MAX)), "ImageHeaderInvalid");
    // Tables outside the file, unaligned, wrapping round, or too small for the disk.
    assert_eq!(reason(|b| put64(b, 40, 5 * 65536)), "ImageHeaderInvalid");
    assert_eq!(reason(|b| put64(b, 40, 65536 + 8)), "ImageHeaderInvalid");
    assert_eq!(reason(|b| put64(b, 40, u64::MAX - 65535)), "ImageHeaderInvalid");
    assert_eq!(reason(|b| put32(b, 36, 1)), "ImageHeaderInvalid");
    assert_eq!(reason(|b| put32(b, 36, u32::MAX)), "ImageHeaderInvalid");
    assert_eq!(reason(|b| put32(b, 56, 0)), "ImageHeaderInvalid");
    assert_eq!(reason(|b| put32(b, 56, u32::MAX)), "ImageHeaderInvalid");
    assert_eq!(reason(|b| b.truncate(100)), "ImageHeaderInvalid");
}

#[test]
fn a_huge_disk_is_too_large() {
    assert_eq!(
        reason(|b| {
            // 2 MiB clusters, so that a small L1 table covers a petabyte.
            b.resize(8 << 20, 0);
            put32(b, 20, 21);
            put64(b, 24, 1 << 50);
            put32(b, 36, 2048);
            put64(b, 40, 4 << 20);
            put64(b, 48, 2 << 20);
        }),
        "ImageTooLarge"
    );
}

#[test]
fn extensions_that_name_other_files_are_found_behind_others() {
    let with = |kind: u32| {
        move |b: &mut Vec<u8>| {
            put32(b, 112, 0x6803_f857); // feature name table
            put32(b, 116, 47);
            put32(b, 168, kind);
            put32(b, 172, 4);
        }
    };
    assert_eq!(reason(with(extension::DATA_FILE)), "ImageHasDataFile");
    assert_eq!(reason(with(extension::ENCRYPTION)), "ImageEncrypted");
    assert_eq!(
        reason(|b| {
            put32(b, 112, 0x6803_f857);
            put32(b, 116, u32::MAX);
        }),
        "ImageHeaderInvalid"
    );
}

/// The tool that makes most images of this world, and ours agree on what is sound.
#[test]
fn agrees_with_qemu_img() {
    let Ok(version) = std::process::Command::new("qemu-img").arg("--version").output() else {
        eprintln!("skipped: qemu-img is not installed");
        return;
    };
    assert!(version.status.success());
    let dir = tempfile::tempdir().unwrap();
    let create = |name: &str, options: &[&str]| {
        let path = dir.path().join(name);
        let mut command = std::process::Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2"]).args(options).arg(&path).arg("3G");
        let made = command.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut file = std::fs::File::open(path).unwrap();
        check(&mut file, LIMIT).map(|h| h.virtual_size).map_err(|e| e.reason())
    };
    let base = dir.path().join("plain");
    let base = base.to_str().unwrap();
    assert_eq!(create("plain", &[]), Ok(3 << 30));
    assert_eq!(create("v2", &["-o", "compat=0.10"]), Ok(3 << 30));
    assert_eq!(create("l2", &["-o", "extended_l2=on,cluster_size=128k"]), Ok(3 << 30));
    assert_eq!(create("small", &["-o", "cluster_size=512"]), Ok(3 << 30));
    assert_eq!(create("zstd", &["-o", "compression_type=zstd"]), Ok(3 << 30));
    assert_eq!(create("backed", &["-F", "qcow2", "-b", base]), Err("ImageHasBackingFile"));
    let data = format!("data_file={}", dir.path().join("data").display());
    assert_eq!(create("external", &["-o", &data]), Err("ImageHasDataFile"));
}

proptest! {
    #[test]
    fn never_panics_on_arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = check(&mut Cursor::new(bytes), LIMIT);
    }

    /// Nearly sound headers reach deeper than noise: any three 4-byte fields, anything in them.
    #[test]
    fn never_panics_on_mangled_headers(
        changes in proptest::collection::vec((0usize..48, any::<u32>()), 1..4),
        length in 0usize..(4 * 65536),
    ) {
        let mut bytes = sound();
        for (field, value) in changes {
            put32(&mut bytes, field * 4, value);
        }
        bytes.truncate(length);
        if let Ok(header) = check(&mut Cursor::new(&bytes), LIMIT) {
            prop_assert!(header.virtual_size <= LIMIT);
            // Whatever passed names no other file.
            prop_assert_eq!(&bytes[8..20], &[0u8; 12][..]);
        }
    }
}
