//! The host's files below a root: `/`, or a directory that stands for a host.
//!
//! Every path is resolved by the kernel *inside* the root (`openat2`, `RESOLVE_IN_ROOT`): an absolute symlink or a `..` in
//! a copied tree leads back into that tree, never to the machine that the code happens to run on.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat2, readlinkat, statat};
use rustix::io::Errno;

use crate::error::FsError;

mod node;

pub use node::Node;

/// More than any file that is read through here holds (`/proc/cpuinfo` of a very large machine, `pci.ids`).
const LARGEST: u64 = 8 << 20;

/// How often a lookup is repeated that a rename elsewhere on the machine disturbed.
const ATTEMPTS: usize = 64;

/// What happens when a file of the host is written. On a real host the kernel sees to it; in a directory that stands for
/// a host nobody would, so a simulated one is given with it.
pub trait Kernel: std::fmt::Debug + Send + Sync {
    /// `path` begins with `/`, below the root. The error is the errno that a kernel would give.
    fn write(&self, path: &str, value: &str) -> io::Result<()>;
}

/// A view of one host's `/proc`, `/sys` and the like. Cheap to clone. Its calls block.
#[derive(Clone, Debug)]
pub struct HostFs {
    root: Arc<OwnedFd>,
    path: PathBuf,
    kernel: Option<Arc<dyn Kernel>>,
}

impl HostFs {
    /// Fails when the root is no directory that can be opened.
    pub fn at(root: impl AsRef<Path>) -> Result<HostFs, FsError> {
        let path = root.as_ref().to_owned();
        match rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(root) => Ok(HostFs { root: Arc::new(root), path, kernel: None }),
            Err(errno) => Err(FsError::io("open", path, errno)),
        }
    }

    /// A directory that stands for a host, and the kernel that answers when it is written to.
    pub fn simulated(root: impl AsRef<Path>, kernel: Arc<dyn Kernel>) -> Result<HostFs, FsError> {
        Ok(HostFs { kernel: Some(kernel), ..HostFs::at(root)? })
    }

    /// Where the root is: for messages, and for what must be told to another process.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.path
    }

    /// Writes an attribute in one `write(2)`, as sysfs wants it. **May block for ever** in the kernel: call it in a process
    /// that can be given up.
    pub fn write(&self, path: &str, value: &str) -> Result<(), FsError> {
        let write = || -> io::Result<()> {
            if let Some(kernel) = &self.kernel {
                return kernel.write(&format!("/{}", path.trim_start_matches('/')), value);
            }
            let mut file = File::from(self.open(path, OFlags::WRONLY | OFlags::NOCTTY)?);
            match file.write(value.as_bytes())? {
                written if written == value.len() => Ok(()),
                written => Err(io::Error::other(format!("took {written} of {} bytes", value.len()))),
            }
        };
        write().map_err(|source| FsError::Write { path: self.full(path), value: value.to_owned(), source })
    }

    /// The text of a file, as it is.
    pub fn read(&self, path: &str) -> Result<String, FsError> {
        String::from_utf8(self.read_bytes(path)?).map_err(|error| {
            let value = String::from_utf8_lossy(error.as_bytes()).chars().take(64).collect();
            FsError::Garbage { path: self.full(path), value, expected: "text in UTF-8" }
        })
    }

    /// One value in a file of its own, as sysfs has it: without the newline.
    pub fn attribute(&self, path: &str) -> Result<String, FsError> {
        self.read(path).map(|text| text.trim_end().to_owned())
    }

    /// An attribute that must be `expected`, by the judgement of `parse`.
    pub fn parse<T>(
        &self,
        path: &str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, FsError> {
        let value = self.attribute(path)?;
        parse(&value).ok_or_else(|| self.garbage(path, &value, expected))
    }

    /// What to say of a value that is none.
    #[must_use]
    pub fn garbage(&self, path: &str, value: &str, expected: &'static str) -> FsError {
        FsError::Garbage { path: self.full(path), value: value.chars().take(64).collect(), expected }
    }

    pub fn read_bytes(&self, path: &str) -> Result<Vec<u8>, FsError> {
        let read = || -> io::Result<Vec<u8>> {
            // NONBLOCK: opening a FIFO that someone left in a tree must not hang.
            let file = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
            if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
            }
            let mut bytes = Vec::new();
            File::from(file).take(LARGEST + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > LARGEST {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {LARGEST} bytes")));
            }
            Ok(bytes)
        };
        read().map_err(|error| FsError::io("read", self.full(path), error))
    }

    /// The names in a directory, sorted, without `.` and `..`.
    pub fn entries(&self, path: &str) -> Result<Vec<String>, FsError> {
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in Dir::new(self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy();
                if name != "." && name != ".." {
                    names.push(name.into_owned());
                }
            }
            names.sort_unstable();
            Ok(names)
        };
        list().map_err(|error| FsError::io("list", self.full(path), error))
    }

    /// Where a symlink says that it leads; nobody looks whether that exists.
    pub fn link(&self, path: &str) -> Result<PathBuf, FsError> {
        let (parent, name) = split(path);
        let target = || -> Result<_, Errno> { readlinkat(self.open(parent, OFlags::PATH)?, name, Vec::new()) };
        match target() {
            Ok(target) => Ok(PathBuf::from(std::ffi::OsStr::from_bytes(target.to_bytes()))),
            Err(errno) => Err(FsError::io("follow", self.full(path), errno)),
        }
    }

    /// Where each symlink in a directory says that it leads, by name. One that goes in the meantime is left out, as is what is no
    /// symlink.
    pub fn links(&self, path: &str) -> Result<Vec<(String, PathBuf)>, FsError> {
        let list = || -> io::Result<Vec<(String, PathBuf)>> {
            let directory = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            let mut targets = Vec::new();
            for entry in Dir::read_from(&directory)? {
                let entry = entry?;
                match readlinkat(&directory, entry.file_name(), Vec::new()) {
                    Ok(target) => targets.push((
                        entry.file_name().to_string_lossy().into_owned(),
                        PathBuf::from(std::ffi::OsStr::from_bytes(target.to_bytes())),
                    )),
                    Err(Errno::INVAL | Errno::NOENT) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            Ok(targets)
        };
        list().map_err(|error| FsError::io("list", self.full(path), error))
    }

    /// The last part of where a symlink leads: how sysfs names a driver or a group.
    pub fn link_name(&self, path: &str) -> Result<String, FsError> {
        let target = self.link(path)?;
        let name = target.file_name().and_then(|name| name.to_str());
        name.map(str::to_owned).ok_or_else(|| self.garbage(path, &target.to_string_lossy(), "a link to a named file"))
    }

    /// Is something at this path? A dangling symlink is.
    pub fn has(&self, path: &str) -> Result<bool, FsError> {
        let (parent, name) = split(path);
        let stat = || statat(self.open(parent, OFlags::PATH)?, name, AtFlags::SYMLINK_NOFOLLOW);
        match stat() {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(FsError::io("look at", self.full(path), errno)),
        }
    }

    fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { "." } else { path };
        for _ in 0..ATTEMPTS {
            // The kernel gives up with AGAIN on a path with `..` (every sysfs link has some) when anything on the machine
            // is renamed or mounted in the meantime.
            match openat2(&*self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT) {
                Err(Errno::AGAIN) => std::thread::yield_now(),
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }

    fn full(&self, path: &str) -> PathBuf {
        self.path.join(path.trim_start_matches('/'))
    }
}

fn split(path: &str) -> (&str, &str) {
    path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_leads_out_of_the_root() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "outside").unwrap();
        let root = tempfile::tempdir().unwrap();
        symlink(outside.path().join("secret"), root.path().join("absolute")).unwrap();
        let up = format!("{}{}/secret", "../".repeat(40), outside.path().display());
        symlink(&up, root.path().join("upwards")).unwrap();
        let fs = HostFs::at(root.path()).unwrap();
        for path in ["absolute", "/upwards", up.as_str()] {
            assert!(fs.read(path).unwrap_err().is_absent(), "{path} left the root");
        }

        // The same absolute link is followed where its target exists below the root.
        let inside = root.path().join(outside.path().strip_prefix("/").unwrap());
        fs::create_dir_all(&inside).unwrap();
        fs::write(inside.join("secret"), "inside\n").unwrap();
        for path in ["absolute", "/upwards", up.as_str()] {
            assert_eq!(fs.attribute(path).unwrap(), "inside");
        }
    }

    #[test]
    fn odd_files_are_errors_that_name_them() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("directory")).unwrap();
        fs::write(root.path().join("latin1"), b"caf\xe9").unwrap();
        fs::File::create(root.path().join("huge")).unwrap().set_len(LARGEST + 1).unwrap();
        symlink("loop", root.path().join("loop")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, root.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let fs = HostFs::at(root.path()).unwrap();
        for path in ["directory", "latin1", "huge", "loop", "fifo"] {
            let error = fs.read(path).unwrap_err();
            assert!(!error.is_absent(), "{path} is there");
            assert!(error.to_string().contains(root.path().join(path).to_str().unwrap()), "{error}");
        }
        assert!(fs.read("none").unwrap_err().is_absent());
        assert!(fs.entries("latin1").is_err());
        assert!(fs.link("latin1").is_err());
    }

    #[test]
    fn links_are_read_without_being_followed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("sys/devices/a")).unwrap();
        symlink("devices/a", root.path().join("sys/a")).unwrap();
        symlink("../../bus/drivers/vfio-pci", root.path().join("sys/devices/a/driver")).unwrap();
        let fs = HostFs::at(root.path()).unwrap();
        assert_eq!(fs.link_name("/sys/a/driver").unwrap(), "vfio-pci");
        assert!(fs.has("/sys/a/driver").unwrap() && fs.has("sys").unwrap() && !fs.has("/sys/b").unwrap());
        assert_eq!(fs.entries("/").unwrap(), ["sys"]);
        assert_eq!(fs.entries("").unwrap(), ["sys"]);
    }
}
