//! Files that must be whole or absent, with the mode they were meant to have.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};

/// Keys, tokens, databases: for the owner alone.
pub const SECRET: u32 = 0o600;
/// What everybody may read: the CA's certificate, the addresses.
pub const PUBLIC: u32 = 0o644;

/// Writes beside `path` and renames: a reader, or a crash, sees the old file or the new one and nothing between.
pub fn write(path: &Path, contents: &[u8], mode: u32) -> Result<()> {
    let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?.to_string_lossy();
    let directory = path.parent().with_context(|| format!("{} has no directory", path.display()))?;
    // A process writes each of its files from one task, so its id keeps two processes apart and nothing else is needed.
    let beside = directory.join(format!(".{name}.{}", std::process::id()));
    let done = write_beside(&beside, path, directory, contents, mode);
    if done.is_err() {
        let _ = fs::remove_file(&beside);
    }
    done.with_context(|| format!("{} cannot be written", path.display()))
}

fn write_beside(beside: &Path, path: &Path, directory: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(beside)?;
    // The mode above is less the umask, and says nothing about a file that a crash left behind.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(beside, path)?;
    fs::File::open(directory)?.sync_all()
}

/// `None` when there is no such file.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(contents) => Ok(Some(contents)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.key");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write(&path, b"new", SECRET).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, SECRET);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(read(&directory.path().join("none")).unwrap(), None);
    }

    #[test]
    fn a_failed_write_names_the_file() {
        let error = format!("{:#}", write(Path::new("/proc/nowhere/x"), b"", SECRET).unwrap_err());
        assert!(error.contains("/proc/nowhere/x cannot be written"), "{error}");
    }
}
