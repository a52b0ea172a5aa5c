//! Room on the file system of images and disks, and the reserve that is kept free.
//!
//! Overlays grow while guests write; the reserve is what stands between a full image cache and guests paused by ENOSPC.

use std::path::Path;

use super::{Error, reasons};

pub const GIB: u64 = 1 << 30;

/// Bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub total: u64,
    /// Free to a process that is not root.
    pub free: u64,
}

/// Asks the file system that holds `path`.
pub fn room(path: &Path) -> Result<Room, Error> {
    let stat = rustix::fs::statvfs(path).map_err(|e| Error::io("stat the file system of", path, &e.into()))?;
    let block = if stat.f_frsize == 0 { stat.f_bsize } else { stat.f_frsize };
    Ok(Room { total: stat.f_blocks.saturating_mul(block), free: stat.f_bavail.saturating_mul(block) })
}

/// Refuses to write `bytes` for `what` when less than `reserve` would stay free.
pub fn ensure(path: &Path, what: &str, bytes: u64, reserve: u64) -> Result<(), Error> {
    let free = room(path)?.free;
    if free.saturating_sub(bytes) >= reserve && free >= bytes {
        return Ok(());
    }
    Err(Error::refused(
        reasons::DISK_FULL,
        format!(
            "{what} needs {} MiB, and {} has {} MiB free of which {} MiB are reserved (--disk-reserve-gib); \
             delete images or instances, or give it more space",
            bytes.div_ceil(1 << 20),
            path.display(),
            free >> 20,
            reserve >> 20,
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_not_spent() {
        let dir = tempfile::tempdir().unwrap();
        let free = room(dir.path()).unwrap().free;
        assert!(ensure(dir.path(), "a test", 4096, 0).is_ok());
        let refused = ensure(dir.path(), "a test", 4096, free + GIB).unwrap_err();
        assert_eq!(refused.reason, "DiskFull");
        assert!(ensure(dir.path(), "a test", free.saturating_mul(2), 0).is_err());
    }
}
