use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

const SECRET: &str = "abc123.0123456789abcdef";

fn seed(user_data: &str) -> Seed {
    Seed {
        meta_data: "instance-id: i-1\nlocal-hostname: train-1\n".into(),
        user_data: user_data.into(),
        network_config: Some("version: 2\n".into()),
        ..Seed::default()
    }
}

fn with_files(files: &[(&str, &str)]) -> Seed {
    let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    Seed { files, ..seed("#cloud-config\n") }
}

fn equipped() -> Seed {
    with_files(&[("croft-join.env", &format!("CROFT_TOKEN='{SECRET}'\n")), ("vendor-data", "#cloud-boothook\n")])
}

fn text_of(image: &[u8], name: &str) -> Option<String> {
    let volume = FileSystem::new(Cursor::new(image.to_vec()), FsOptions::new()).unwrap();
    let mut text = String::new();
    volume.root_dir().open_file(name).ok()?.read_to_string(&mut text).unwrap();
    Some(text)
}

fn holds(image: &[u8], text: &str) -> bool {
    image.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn holds_the_texts_under_their_names_and_the_label() {
    let text = "#cloud-config\n".repeat(5000);
    let bytes = image(&Seed { user_data: text.clone(), ..equipped() }).unwrap();
    let volume = FileSystem::new(Cursor::new(bytes.clone()), FsOptions::new()).unwrap();
    assert_eq!(volume.volume_label(), "CIDATA");
    assert_eq!(volume.read_volume_label_from_root_dir().unwrap().as_deref(), Some("CIDATA"));
    assert_eq!(text_of(&bytes, "user-data").unwrap(), text);
    assert_eq!(text_of(&bytes, "network-config").unwrap(), "version: 2\n");
    assert!(text_of(&bytes, "meta-data").unwrap().starts_with("instance-id: i-1\n"));
    assert_eq!(text_of(&bytes, "vendor-data").unwrap(), "#cloud-boothook\n");
    assert!(text_of(&bytes, "croft-join.env").unwrap().contains(SECRET));
}

#[test]
fn same_texts_same_bytes_and_no_second_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed.img");
    ensure(&path, &seed("a")).unwrap();
    let first = std::fs::metadata(&path).unwrap();
    assert_eq!(first.permissions().mode() & 0o777, 0o600);
    ensure(&path, &seed("a")).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), first.ino());
    ensure(&path, &seed("b")).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), image(&seed("b")).unwrap());
}

#[test]
fn a_replaced_seed_is_in_the_same_file_and_nothing_of_the_old_one_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed.img");
    ensure(&path, &equipped()).unwrap();
    // As an emulator that runs: what it has open is what the guest sees.
    let emulator = std::fs::File::open(&path).unwrap();
    let before = emulator.metadata().unwrap();
    let sight = || {
        let mut bytes = vec![0; usize::try_from(before.len()).unwrap()];
        emulator.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    assert!(holds(&sight(), SECRET));
    for _ in 0..2 {
        replace(&path, &seed("#cloud-config\n")).unwrap();
        assert!(!holds(&sight(), SECRET));
        assert_eq!(text_of(&sight(), "croft-join.env"), None);
        assert_eq!(text_of(&sight(), "user-data").unwrap(), "#cloud-config\n");
    }
    let after = std::fs::metadata(&path).unwrap();
    assert_eq!((after.ino(), after.len(), after.mode()), (before.ino(), before.len(), before.mode()));
    // The next start finds it as it should be.
    ensure(&path, &seed("#cloud-config\n")).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), before.ino());
    // And back again, for another join.
    replace(&path, &equipped()).unwrap();
    assert_eq!(sight(), image(&equipped()).unwrap());
}

#[test]
fn a_replacement_that_was_cut_short_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed.img");
    let (old, new) = (image(&equipped()).unwrap(), image(&seed("#cloud-config\n")).unwrap());
    let differing: Vec<_> = (0..old.len()).step_by(512).filter(|at| old[*at..at + 512] != new[*at..at + 512]).collect();
    assert!(differing.len() > 2, "{differing:?}");
    for cut in differing {
        std::fs::write(&path, [&new[..cut], &old[cut..]].concat()).unwrap();
        replace(&path, &seed("#cloud-config\n")).unwrap();
        assert!(std::fs::read(&path).unwrap() == new, "cut at {cut}");
    }
}

#[test]
fn files_do_not_change_the_length_but_what_does_not_fit_waits_for_a_start() {
    let large = with_files(&[("vendor-data", &"x".repeat(ROOM_FOR_FILES))]);
    assert_eq!(image(&seed("")).unwrap().len(), image(&large).unwrap().len());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed.img");
    // As an earlier agent may have made it, without room to spare.
    let tight = lay_out(&seed(""), SMALLEST + 512).unwrap();
    std::fs::write(&path, &tight).unwrap();
    assert_eq!(replace(&path, &large).unwrap_err().reason, "SeedTooLarge");
    assert!(std::fs::read(&path).unwrap() == tight);
    ensure(&path, &large).unwrap();
    replace(&path, &seed("")).unwrap();
}

#[test]
fn what_is_no_seed_is_refused() {
    let refused = |seed: &Seed| image(seed).unwrap_err().reason;
    assert_eq!(refused(&seed(&"x".repeat(2 << 20))), "SeedInvalid");
    assert_eq!(refused(&with_files(&[("vendor-data", &"x".repeat(2 << 20))])), "SeedInvalid");
    for name in ["", ".", "..", "a/b", "../x", "A", "user-data", "a b", "a.", "-a", &"a".repeat(65)] {
        assert_eq!(refused(&with_files(&[(name, "")])), "SeedInvalid", "{name}");
    }
    let many: Vec<_> = (0..17).map(|at| format!("file-{at}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "")).collect();
    assert_eq!(refused(&with_files(&many)), "SeedInvalid");
    let dir = tempfile::tempdir().unwrap();
    let missing = replace(&dir.path().join("seed.img"), &seed("")).unwrap_err();
    assert_eq!(missing.reason, "MediaIo");
}
