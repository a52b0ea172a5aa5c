//! Device files, known by kind and number. A name says nothing: a container, a chroot or a second mount of `/dev` has the same
//! device under another one.

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::str::FromStr;

use rustix::fs::{AtFlags, Dir, FileType, OFlags, StatxFlags, fstat, fstatfs, major, minor, statx};
use rustix::io::Errno;

use super::HostFs;
use crate::error::{FsError, IfPresent as _};

/// Written `char 195:0`, `block 259:1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    pub block: bool,
    pub major: u32,
    pub minor: u32,
}

impl Node {
    #[must_use]
    pub fn char(major: u32, minor: u32) -> Node {
        Node { block: false, major, minor }
    }

    #[must_use]
    pub fn block(major: u32, minor: u32) -> Node {
        Node { block: true, major, minor }
    }

    /// `259:1`, as sysfs has it.
    pub(crate) fn numbered(block: bool, number: &str) -> Option<Node> {
        let (major, minor) = number.split_once(':')?;
        Some(Node { block, major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    fn of(mode: FileType, major: u32, minor: u32) -> Option<Node> {
        match mode {
            FileType::CharacterDevice => Some(Node::char(major, minor)),
            FileType::BlockDevice => Some(Node::block(major, minor)),
            _ => None,
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:{}", if self.block { "block" } else { "char" }, self.major, self.minor)
    }
}

impl FromStr for Node {
    type Err = ();

    fn from_str(text: &str) -> Result<Node, ()> {
        let (kind, number) = text.trim_end().split_once(' ').ok_or(())?;
        let node = Node::numbered(kind == "block", number).ok_or(())?;
        (node.to_string() == text.trim_end()).then_some(node).ok_or(())
    }
}

impl HostFs {
    /// The device that a file stands for, links followed; `None`: for none. In a directory that stands for a host not everybody
    /// may make device files: there a file that says `char 195:0` is one.
    pub fn node(&self, path: &str) -> Result<Option<Node>, FsError> {
        /// `block 4294967295:4294967295`
        const LONGEST: i64 = 28;
        let stat =
            self.open(path, OFlags::PATH).and_then(fstat).map_err(|errno| self.failed("look at", path, errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_size <= LONGEST => Ok(self.read(path)?.parse().ok()),
            kind => Ok(Node::of(kind, major(stat.st_rdev), minor(stat.st_rdev))),
        }
    }

    /// Has somebody a block device for himself alone: a mounted file system, another disk that it is part of, a program? **May
    /// block** where the device does not answer, wakes one that sleeps, and claims it itself for the moment.
    pub(crate) fn is_claimed(&self, path: &str) -> Result<bool, FsError> {
        let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::NONBLOCK | OFlags::NOCTTY;
        match self.open(path, flags) {
            Ok(_) => Ok(false),
            Err(Errno::BUSY) => Ok(true),
            // No medium in it, or gone meanwhile.
            Err(Errno::NOMEDIUM | Errno::NXIO | Errno::NODEV | Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.failed("claim", path, errno)),
        }
    }

    /// The device files that a process has open, by the names of their descriptors. `path`: its directory of them below `/proc`.
    /// Is there any open file at all?
    ///
    /// Asks nothing of a file system: one whose server is gone would never answer.
    pub fn open_nodes(&self, path: &str, mut each: impl FnMut(&str, Node)) -> Result<bool, FsError> {
        let mut list = || -> io::Result<bool> {
            let mut directory = Dir::new(self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?)?;
            // Only the kernel's own links lead to the file itself, whoever's root its name is below. Others are text, and lead
            // nowhere out of the tree.
            let is_kernels = fstatfs(directory.fd()?)?.f_type == PROC_SUPER_MAGIC;
            let mut any = false;
            while let Some(entry) = directory.next() {
                let entry = entry?;
                let name = entry.file_name();
                let Ok(text) = name.to_str() else { continue };
                if text.starts_with('.') {
                    continue;
                }
                any = true;
                let node = match is_kernels {
                    true => open_node(&directory, name)?,
                    false => self.node(&format!("{path}/{text}")).ok().flatten(),
                };
                if let Some(node) = node {
                    each(text, node);
                }
            }
            Ok(any)
        };
        list().map_err(|error| self.failed("list", path, error))
    }

    /// Is this the machine that the program runs on, and not a directory that stands for a host?
    pub(crate) fn is_this_machine(&self) -> Result<bool, FsError> {
        let kind = self.open("/proc", OFlags::PATH).and_then(fstatfs);
        match kind.map_err(|errno| self.failed("look at", "/proc", errno)).if_present()? {
            Some(kind) => Ok(kind.f_type == PROC_SUPER_MAGIC),
            None => Ok(false),
        }
    }

    fn failed(&self, action: &'static str, path: &str, source: impl Into<io::Error>) -> FsError {
        FsError::io(action, self.full(path), source)
    }
}

/// `<linux/magic.h>`
const PROC_SUPER_MAGIC: rustix::fs::FsWord = 0x9fa0;

fn open_node(directory: &Dir, name: &CStr) -> io::Result<Option<Node>> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    match statx(directory.fd()?, name, flags, StatxFlags::TYPE) {
        Ok(stat) => {
            let kind = FileType::from_raw_mode(stat.stx_mode.into());
            Ok(Node::of(kind, stat.stx_rdev_major, stat.stx_rdev_minor))
        }
        // Closed meanwhile; or of a file system that is gone, and no device is.
        Err(Errno::NOENT | Errno::SRCH | Errno::STALE | Errno::NOTCONN | Errno::IO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_kernel_tells_which_device_an_open_file_is() {
        let null = File::open("/dev/null").unwrap();
        let plain = tempfile::tempfile().unwrap();
        let mut found = Vec::new();
        let any =
            HostFs::at("/").unwrap().open_nodes("/proc/self/fd", |name, node| found.push((name.to_owned(), node)));
        assert!(any.unwrap());
        assert!(found.contains(&(null.as_raw_fd().to_string(), Node::char(1, 3))), "{found:?}");
        let plain = plain.as_raw_fd().to_string();
        assert!(found.iter().all(|(name, _)| *name != plain), "a file that is no device");
    }

    /// Needs a loop device, which only root is given.
    #[test]
    fn the_kernel_tells_whether_a_disk_is_claimed() {
        use std::os::unix::fs::OpenOptionsExt as _;
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(1 << 20).unwrap();
        let made = std::process::Command::new("losetup").args(["--find", "--show"]).arg(image.path()).output();
        let Ok(made) = made.as_ref().map_err(ToString::to_string).and_then(|made| match made.status.success() {
            true => Ok(String::from_utf8_lossy(&made.stdout).trim().to_owned()),
            false => Err(String::from_utf8_lossy(&made.stderr).into_owned()),
        }) else {
            println!("skipped: the claim of a real disk: no loop device: {made:?}");
            return;
        };
        let fs = HostFs::at("/").unwrap();
        let before = fs.is_claimed(&made);
        let own = std::fs::OpenOptions::new().read(true).custom_flags(OFlags::EXCL.bits().cast_signed()).open(&made);
        let claimed = fs.is_claimed(&made);
        drop(own);
        let after = fs.is_claimed(&made);
        // Before anything is judged: a loop device that stays is somebody's trouble.
        std::process::Command::new("losetup").args(["--detach", &made]).status().unwrap();
        assert_eq!([before.unwrap(), claimed.unwrap(), after.unwrap()], [false, true, false]);
    }

    #[test]
    fn in_a_tree_links_lead_to_files_of_the_tree() {
        let root = tempfile::tempdir().unwrap();
        let fd = root.path().join("proc/7/fd");
        std::fs::create_dir_all(&fd).unwrap();
        std::fs::create_dir_all(root.path().join("dev")).unwrap();
        std::fs::write(root.path().join("dev/nvidia0"), "char 195:0\n").unwrap();
        // The machine's own `/dev/null` is not the tree's.
        for (name, target) in [("0", "/dev/null"), ("3", "/dev/nvidia0"), ("4", "socket:[17]")] {
            symlink(target, fd.join(name)).unwrap();
        }
        let fs = HostFs::at(root.path()).unwrap();
        let mut found = Vec::new();
        assert!(fs.open_nodes("/proc/7/fd", |name, node| found.push((name.to_owned(), node))).unwrap());
        assert_eq!(found, [("3".to_owned(), Node::char(195, 0))]);
        std::fs::create_dir_all(root.path().join("proc/8/fd")).unwrap();
        assert!(!fs.open_nodes("/proc/8/fd", |_, _| ()).unwrap());
        assert!(fs.open_nodes("/proc/9/fd", |_, _| ()).unwrap_err().is_absent());
    }
}
