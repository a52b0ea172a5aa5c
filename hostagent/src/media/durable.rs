//! Files that are there whole or not at all, also after a power cut: written under another name, synced, renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::Error;

/// Makes `dir` and its parents. Mode 0711: the emulator runs as a user of its own and must be able to pass.
pub fn ensure_dir(dir: &Path) -> Result<(), Error> {
    let make = || -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o711).create(dir)?;
        // The mode above went through the umask, and the directory may be older than this rule.
        let permissions = fs::metadata(dir)?.permissions();
        if permissions.mode() & 0o777 != 0o711 {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o711))?;
        }
        Ok(())
    };
    make().map_err(|e| Error::io("make the directory", dir, &e))
}

/// Writes `bytes` to `path`, whole or not at all.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let temp = temporary(path);
    let fill = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temp)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    fill().map_err(|e| {
        let _ = fs::remove_file(&temp);
        Error::io("write", &temp, &e)
    })?;
    publish(&temp, path)
}

/// Gives a synced file its real name and makes the name durable.
pub fn publish(temp: &Path, path: &Path) -> Result<(), Error> {
    fs::rename(temp, path).map_err(|e| Error::io("rename into place", path, &e))?;
    sync_parent(path)
}

/// The name under which `path` is written before it is complete.
pub fn temporary(path: &Path) -> std::path::PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    path.with_file_name(name)
}

pub fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(|e| Error::io("sync", parent, &e))
}

/// Removes a file; one that is not there is fine.
pub fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, &e)),
        _ => Ok(()),
    }
}
