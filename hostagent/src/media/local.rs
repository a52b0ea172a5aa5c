//! Platform images from a directory of this host: `file:///…` below `--image-dir`.
//!
//! The path is walked component by component by the kernel (`openat2`), which refuses to leave the directory and to follow
//! any symbolic link; what is opened must be a regular file. It is copied (or cloned, where the file system can) and the
//! digest is taken of the copy: nobody can change it between check and use, and nothing boots from the original.
//!
//! Refuses everything when the host has no `--image-dir`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{Error, reasons};
use crate::reasons::IMAGE_DIGEST_MISMATCH;

const BLOCK: usize = 1 << 20;

/// Opens what `uri` names, below `image_dir`.
pub fn open(image_dir: Option<&Path>, uri: &str) -> Result<File, Error> {
    let refuse = |why: String| Error::refused(reasons::IMAGE_PATH_REFUSED, format!("{uri} is refused: {why}"));
    let Some(dir) = image_dir else {
        return Err(refuse("this host takes no local images; start its agent with --image-dir".into()));
    };
    let inside = relative(dir, uri).map_err(refuse)?;
    let root = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::io("open the image directory", dir, &e.into()))?;
    // NONBLOCK: opening a pipe must not wait for its other end.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(&root, &inside, flags, Mode::empty(), resolve).map_err(|e| match e {
        rustix::io::Errno::LOOP => refuse("a part of its path is a symbolic link".into()),
        rustix::io::Errno::XDEV => refuse("its path leaves the image directory".into()),
        rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => {
            refuse(format!("there is no such file in {}", dir.display()))
        }
        // A directory is readable, a socket or a device without driver is not.
        rustix::io::Errno::NXIO => refuse("it is not a regular file".into()),
        e => Error::io("open", &dir.join(&inside), &e.into()),
    })?;
    let file = File::from(file);
    let meta = file.metadata().map_err(|e| Error::io("stat", &dir.join(&inside), &e))?;
    if !meta.is_file() {
        return Err(refuse("it is not a regular file".into()));
    }
    Ok(file)
}

/// The path inside `dir` that `uri` names.
fn relative(dir: &Path, uri: &str) -> Result<PathBuf, String> {
    let path = uri.strip_prefix("file://").ok_or("it does not begin with file://")?;
    let path = Path::new(path);
    if !path.is_absolute() {
        return Err("write it as file:///absolute/path; a host name has no place in it".into());
    }
    let below = path.strip_prefix(dir).map_err(|_| format!("it is not below the image directory {}", dir.display()))?;
    if below.as_os_str().is_empty() || !below.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err("its path must name a file, without `..`".into());
    }
    Ok(below.to_owned())
}

/// Copies `source` to `part` and checks the digest of the copy; a wrong one leaves nothing.
pub fn copy(mut source: File, uri: &str, sha256_hex: &str, part: &Path, max_bytes: u64) -> Result<(), Error> {
    let result = copy_to(&mut source, uri, part, max_bytes).and_then(|()| sha256(part)).and_then(|actual| {
        if actual == sha256_hex {
            return Ok(());
        }
        Err(Error::refused(
            IMAGE_DIGEST_MISMATCH,
            format!(
                "{uri} has the sha256 {actual}, and {sha256_hex} was registered; put the right file there, or register a \
                 new image"
            ),
        ))
    });
    if result.is_err() {
        super::durable::remove(part)?;
    }
    result
}

fn copy_to(source: &mut File, uri: &str, part: &Path, max_bytes: u64) -> Result<(), Error> {
    let io = |what: &'static str| move |e: std::io::Error| Error::io(what, part, &e);
    let total = source.metadata().map_err(io("stat the source of"))?.len();
    let too_large = || {
        let message = format!("{uri} is refused: more than {max_bytes} bytes long, which is the limit for it");
        Error::refused(reasons::IMAGE_TOO_LARGE, message)
    };
    if total > max_bytes {
        return Err(too_large());
    }
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut target = options.open(part).map_err(io("create"))?;
    // Shares the blocks until somebody writes, on file systems that can (XFS, Btrfs).
    if rustix::fs::ioctl_ficlone(&target, &*source).is_err() {
        let mut block = vec![0u8; BLOCK];
        let mut done = 0;
        loop {
            let read = source.read(&mut block).map_err(io("read the source of"))?;
            if read == 0 {
                break;
            }
            done += read as u64;
            // It may grow while it is read.
            if done > max_bytes {
                return Err(too_large());
            }
            target.write_all(&block[..read]).map_err(io("write"))?;
        }
    }
    target.sync_all().map_err(io("sync"))
}

/// The digest of a file, in lower-case hex.
pub fn sha256(path: &Path) -> Result<String, Error> {
    let io = |e: std::io::Error| Error::io("read", path, &e);
    let mut file = File::open(path).map_err(io)?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut block = vec![0u8; BLOCK];
    loop {
        let read = file.read(&mut block).map_err(io)?;
        if read == 0 {
            return Ok(hex::encode(context.finish()));
        }
        context.update(&block[..read]);
    }
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
