//! Who uses the driver: processes with an NVML session, and those that have a GPU's file open.
//!
//! A session is a file that its process holds a shared lock on. The lock goes with the process, however that ends, so a killed
//! client never counts. Kept apart from [`crate::state`]: looking at a host must not change its state.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process;

use croft_gpu::pci::PciAddress;

use crate::kernel::holders;
use crate::state::directory;

/// An NVML session of this process; ends when it is dropped.
#[derive(Debug)]
pub struct Session {
    _lock: File,
    path: PathBuf,
}

impl Session {
    pub fn open(root: &Path) -> io::Result<Session> {
        let directory = directory(root).join("clients");
        fs::create_dir_all(&directory)?;
        for number in 0_u32.. {
            let path = directory.join(format!("{}.{number}", process::id()));
            match File::create_new(&path) {
                Ok(lock) => {
                    lock.lock_shared()?;
                    // Before that, somebody may have taken it for what a dead process left.
                    if path.exists() {
                        return Ok(Session { _lock: lock, path });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("no free number for a session"))
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
    pids.extend(holders(root, &[format!("/dev/nvidia{minor}")])?);
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// The processes that have a function open through VFIO, sorted: by its group, or by its own file.
pub fn of_function(root: &Path, function: PciAddress) -> io::Result<Vec<u32>> {
    let device = root.join(format!("sys/bus/pci/devices/{function}"));
    let group = last_part(&fs::read_link(device.join("iommu_group")).unwrap_or_default());
    let mut files: Vec<String> = group.into_iter().map(|group| format!("/dev/vfio/{group}")).collect();
    for entry in fs::read_dir(device.join("vfio-dev")).into_iter().flatten() {
        files.extend(last_part(&entry?.path()).map(|name| format!("/dev/vfio/devices/{name}")));
    }
    holders(root, &files)
}

fn last_part(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
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
            // Its process is gone, or has not locked it yet and will make another.
            Ok(()) => drop(fs::remove_file(&path)),
            Err(TryLockError::WouldBlock) => pids.push(pid),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(pids)
}

/// The entries of a directory whose names are numbers, or begin with one and a dot; none where there is no such directory.
fn numbered(directory: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut numbered = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.split('.').next()?.parse().ok());
        numbered.extend(number.map(|number| (number, entry.path())));
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
        fs::write(directory(root.path()).join("clients/999999.0"), "").unwrap();
        assert_eq!(of(root.path(), 0).unwrap(), [process::id()]);
        assert!(!directory(root.path()).join("clients/999999.0").exists());
        let second = Session::open(root.path()).unwrap();
        drop(session);
        assert_eq!(of(root.path(), 0).unwrap(), [process::id()], "one of two has ended");
        drop(second);
        assert!(of(root.path(), 0).unwrap().is_empty());

        let fd = root.path().join("proc/7/fd");
        fs::create_dir_all(&fd).unwrap();
        fs::create_dir_all(root.path().join("dev/vfio")).unwrap();
        for (file, number) in [("nvidia0", "195:0"), ("nvidia3", "195:3"), ("vfio/12", "235:12")] {
            fs::write(root.path().join("dev").join(file), format!("char {number}\n")).unwrap();
        }
        symlink("/dev/nvidia3", fd.join("5")).unwrap();
        assert_eq!(of(root.path(), 3).unwrap(), [7]);
        assert!(of(root.path(), 0).unwrap().is_empty(), "another GPU's file");

        let function = "0000:41:00.4".parse().unwrap();
        let device = root.path().join("sys/bus/pci/devices/0000:41:00.4");
        fs::create_dir_all(&device).unwrap();
        symlink("../../../../kernel/iommu_groups/12", device.join("iommu_group")).unwrap();
        assert!(of_function(root.path(), function).unwrap().is_empty());
        symlink("/dev/vfio/12", fd.join("6")).unwrap();
        assert_eq!(of_function(root.path(), function).unwrap(), [7]);
    }
}
