//! Who uses the driver: processes with an NVML session, and those that have a GPU's file open.
//!
//! A session is a file that its process holds a shared lock on. The lock goes with the process, however that ends, so a killed
//! client never counts. Kept apart from [`crate::state`]: looking at a host must not change its state.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process;

use crate::state::directory;

/// This process's NVML session; ends when it is dropped.
#[derive(Debug)]
pub struct Session {
    _lock: File,
    path: PathBuf,
}

impl Session {
    /// A process has one; it counts its own `nvmlInit` calls.
    pub fn open(root: &Path) -> io::Result<Session> {
        let directory = directory(root).join("clients");
        fs::create_dir_all(&directory)?;
        let path = directory.join(process::id().to_string());
        let lock = File::options().create(true).append(true).open(&path)?;
        lock.lock_shared()?;
        Ok(Session { _lock: lock, path })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Whoever lists clients next would find it unlocked and remove it.
        let _ = fs::remove_file(&self.path);
    }
}

/// The processes that keep GPU `minor` busy, sorted: every NVML session (each opens all GPUs), and everyone below `<root>/proc`
/// with `/dev/nvidia<minor>` open.
pub fn of(root: &Path, minor: u32) -> io::Result<Vec<u32>> {
    let mut pids = sessions(root)?;
    pids.extend(holders(root, &format!("/dev/nvidia{minor}"))?);
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

fn sessions(root: &Path) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for (pid, path) in numbered(&directory(root).join("clients"))? {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            // Its process is gone. The same number may be somebody's next session only after this name was created anew.
            Ok(()) => drop(fs::remove_file(&path)),
            Err(TryLockError::WouldBlock) => pids.push(pid),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(pids)
}

fn holders(root: &Path, file: &str) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for (pid, process) in numbered(&root.join("proc"))? {
        let open = numbered(&process.join("fd"))?;
        if open.iter().any(|(_, link)| fs::read_link(link).is_ok_and(|target| target == Path::new(file))) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// The entries of a directory whose names are numbers; none where there is no such directory.
fn numbered(directory: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut numbered = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            numbered.push((number, entry.path()));
        }
    }
    Ok(numbered)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn sessions_and_open_files_count_and_the_dead_do_not() {
        let root = tempfile::tempdir().unwrap();
        assert!(of(root.path(), 0).unwrap().is_empty());
        let session = Session::open(root.path()).unwrap();
        // A file that nobody holds a lock on is what a killed process leaves.
        fs::write(directory(root.path()).join("clients/999999"), "").unwrap();
        assert_eq!(of(root.path(), 0).unwrap(), [process::id()]);
        assert!(!directory(root.path()).join("clients/999999").exists());
        drop(session);
        assert!(of(root.path(), 0).unwrap().is_empty());

        let fd = root.path().join("proc/7/fd");
        fs::create_dir_all(&fd).unwrap();
        symlink("/dev/nvidia3", fd.join("5")).unwrap();
        assert_eq!(of(root.path(), 3).unwrap(), [7]);
        assert!(of(root.path(), 0).unwrap().is_empty(), "another GPU's file");
    }
}
