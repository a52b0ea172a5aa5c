//! Files that a power cut or a kill leaves either as they were or as they should be, never in between.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// What went wrong, with the path it went wrong at.
#[derive(Debug, thiserror::Error)]
#[error("{}: can not {verb}: {source}", path.display())]
pub struct Error {
    pub path: PathBuf,
    pub verb: &'static str,
    #[source]
    pub source: io::Error,
}

/// Ends the name of a file that is being written; left over after a crash, and worthless.
pub const TEMPORARY: &str = ".tmp";

/// Replaces `path`, mode 0600: written beside it, synced, renamed, and the directory synced. Blocks.
pub fn write(path: &Path, contents: &[u8]) -> Result<(), Error> {
    write_mode(path, contents, 0o600)
}

/// [`write`] with another mode.
pub fn write_mode(path: &Path, contents: &[u8], mode: u32) -> Result<(), Error> {
    let at = |verb| move |source| Error { path: path.to_owned(), verb, source };
    let mut beside = path.as_os_str().to_owned();
    beside.push(TEMPORARY);
    let beside = PathBuf::from(beside);

    // A left-over may have another mode, and `mode` below applies to new files only.
    remove(&beside)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside).map_err(at("create"))?;
    file.write_all(contents).map_err(at("write"))?;
    file.sync_all().map_err(at("sync"))?;
    fs::rename(&beside, path).map_err(at("replace"))?;
    sync_parent(path)
}

/// Removes a file, for good; nothing to do when there is none. Blocks.
pub fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error { path: path.to_owned(), verb: "remove", source }),
    }
}

/// Moves a file aside within its directory, for good. Blocks.
pub fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|source| Error { path: from.to_owned(), verb: "rename", source })?;
    sync_parent(to)
}

/// Makes a directory that only its owner may enter. Blocks. Parents that are missing are as any other directory of the
/// system: below them lie disks, which the emulator's user must reach.
pub fn private_directory(path: &Path) -> Result<(), Error> {
    let parents = path.parent().map_or(Ok(()), fs::create_dir_all);
    let made = parents.and_then(|()| fs::DirBuilder::new().recursive(true).mode(0o700).create(path));
    made.map_err(|source| Error { path: path.to_owned(), verb: "create", source })
}

fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(|source| Error {
        path: parent.to_owned(),
        verb: "sync",
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn replaces_whole_files_and_keeps_them_private() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("file");
        write(&path, b"a long first text").expect("first");
        write(&path, b"short").expect("second");
        assert_eq!(fs::read(&path).expect("read"), b"short");
        assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("file");
        write(&path, b"old").expect("first");
        // The temporary name is taken by a directory, so the write cannot even begin.
        fs::create_dir(dir.path().join("file.tmp")).expect("obstacle");
        let error = write(&path, b"new").expect_err("must fail");
        assert!(error.to_string().contains("file.tmp"), "{error}");
        assert_eq!(fs::read(&path).expect("read"), b"old");
    }

    #[test]
    fn a_private_directory_leaves_its_parents_open() {
        let dir = tempfile::tempdir().unwrap();
        let private = dir.path().join("croft/hostagent");
        private_directory(&private).unwrap();
        private_directory(&private).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&private), mode(private.parent().unwrap()) & 0o001), (0o700, 0o001));
    }
}
