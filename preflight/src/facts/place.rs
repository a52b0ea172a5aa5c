//! Where instances and kernels are kept, and how much is free there.

use std::path::{Path, PathBuf};

use croft_gpu::{HostFs, IfPresent as _};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What was asked for: `/var/lib/croft`.
    pub path: &'static str,
    /// The nearest directory above that exists.
    pub at: PathBuf,
    pub free_mib: u64,
    pub total_mib: u64,
    /// `ext4`; `None`: not told.
    pub kind: Option<String>,
}

impl Disk {
    /// `None`: cannot be looked at.
    pub(super) fn ask(fs: &HostFs, path: &'static str) -> Option<Disk> {
        let at = Path::new(path).ancestors().find(|directory| directory.is_dir())?.to_owned();
        let stat = rustix::fs::statvfs(&at).ok()?;
        let mib = |blocks: u64| ((u128::from(blocks) * u128::from(stat.f_frsize)) >> 20) as u64;
        let mounts = fs.read("/proc/self/mountinfo").if_present().ok().flatten().unwrap_or_default();
        let kind = kind(&mounts, &at);
        Some(Disk { path, at, free_mib: mib(stat.f_bavail), total_mib: mib(stat.f_blocks), kind })
    }
}

/// Of the mount that `path` is on: the longest mount point above it, and of those the last.
fn kind(mounts: &str, path: &Path) -> Option<String> {
    let mut best: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(point) = before.split(' ').nth(4).map(|point| point.replace("\\040", " ")) else { continue };
        let length = Path::new(&point).components().count();
        if path.starts_with(&point) && best.is_none_or(|(longest, _)| length >= longest) {
            best = after.split(' ').next().map(|kind| (length, kind));
        }
    }
    best.map(|(_, kind)| kind.to_owned())
}

/// The largest of `/boot/initrd.img-*`: so much a new one will need beside it.
pub(super) fn largest_initrd_mib() -> u64 {
    let entries = std::fs::read_dir("/boot").into_iter().flatten().flatten();
    let images = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("initr"));
    let sizes = images.filter_map(|image| image.metadata().ok()).map(|metadata| metadata.len());
    sizes.max().unwrap_or(0).div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
                      30 22 254:2 / /var rw - xfs /dev/vdb rw\n\
                      31 30 0:40 / /var/lib/croft rw - tmpfs tmpfs rw\n";
        assert_eq!(kind(mounts, Path::new("/var/lib/croft/x")).as_deref(), Some("tmpfs"));
        assert_eq!(kind(mounts, Path::new("/var/lib")).as_deref(), Some("xfs"));
        assert_eq!(kind(mounts, Path::new("/boot")).as_deref(), Some("ext4"));
        assert_eq!(kind("", Path::new("/")), None);
    }
}
