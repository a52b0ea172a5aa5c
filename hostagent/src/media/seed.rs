//! The NoCloud seed: a small FAT file system labelled CIDATA with the texts that cloud-init reads at first boot.
//!
//! Made in memory, without any tool, and the same texts give the same bytes, so that repeating it changes nothing. It may
//! hold secrets: mode 0600 (libvirt gives it to the emulator's user when the domain starts).

use std::io::{Cursor, Write};
use std::path::Path;

use fatfs::{Dir, FileSystem, FormatVolumeOptions, FsOptions};

use super::{Error, durable};
use crate::hypervisor::Seed;
use crate::reasons::SEED_INVALID;

const LABEL: [u8; 11] = *b"CIDATA     ";
/// The same for every seed: a volume is found by its label.
const VOLUME_ID: u32 = 0xC40F_7D00;
/// Room for the tables; the smallest FAT that every reader accepts.
const SMALLEST: usize = 1 << 20;
/// Far above what the plane takes.
const LARGEST_TEXT: usize = 1 << 20;

/// Writes the seed of one instance, unless it is there already as it should be.
pub fn ensure(path: &Path, seed: &Seed) -> Result<(), Error> {
    let bytes = image(seed)?;
    // After a start the file belongs to the emulator's user; root can still read it.
    if std::fs::read(path).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    durable::write(path, &bytes, 0o600)
}

/// The bytes of the file system.
pub fn image(seed: &Seed) -> Result<Vec<u8>, Error> {
    let mut files = vec![("meta-data", &seed.meta_data), ("user-data", &seed.user_data)];
    files.extend(seed.network_config.as_ref().map(|text| ("network-config", text)));
    let sum: usize = files.iter().map(|(_, text)| text.len()).sum();
    if sum > LARGEST_TEXT {
        let message = format!("the seed's texts are {sum} bytes long, at most {LARGEST_TEXT} are taken");
        return Err(Error::refused(SEED_INVALID, message));
    }
    let mut disk = Cursor::new(vec![0u8; (SMALLEST + sum).next_multiple_of(SMALLEST)]);
    fill(&mut disk, &files).map_err(|e| Error::refused(SEED_INVALID, format!("cannot lay out the seed: {e}")))?;
    Ok(disk.into_inner())
}

fn fill(disk: &mut Cursor<Vec<u8>>, files: &[(&str, &String)]) -> std::io::Result<()> {
    fatfs::format_volume(&mut *disk, FormatVolumeOptions::new().volume_label(LABEL).volume_id(VOLUME_ID))?;
    disk.set_position(0);
    // Without the chrono feature every timestamp is 1980-01-01: deterministic.
    let volume = FileSystem::new(disk, FsOptions::new().update_accessed_date(false))?;
    {
        let root: Dir<'_, _> = volume.root_dir();
        for (name, text) in files {
            let mut file = root.create_file(name)?;
            file.write_all(text.as_bytes())?;
            file.flush()?;
        }
    }
    volume.unmount()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn seed(user_data: &str) -> Seed {
        Seed {
            meta_data: "instance-id: i-1\nlocal-hostname: train-1\n".into(),
            user_data: user_data.into(),
            network_config: Some("version: 2\n".into()),
        }
    }

    #[test]
    fn holds_the_texts_under_their_names_and_the_label() {
        let text = "#cloud-config\n".repeat(5000);
        let bytes = image(&seed(&text)).unwrap();
        let volume = FileSystem::new(Cursor::new(bytes), FsOptions::new()).unwrap();
        assert_eq!(volume.volume_label(), "CIDATA");
        assert_eq!(volume.read_volume_label_from_root_dir().unwrap().as_deref(), Some("CIDATA"));
        let read = |name: &str| {
            let mut text = String::new();
            volume.root_dir().open_file(name).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(read("user-data"), text);
        assert_eq!(read("network-config"), "version: 2\n");
        assert!(read("meta-data").starts_with("instance-id: i-1\n"));
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
    fn a_huge_text_is_refused() {
        assert_eq!(image(&seed(&"x".repeat(2 << 20))).unwrap_err().reason, "SeedInvalid");
    }
}
