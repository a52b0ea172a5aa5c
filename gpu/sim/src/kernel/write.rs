//! What the kernel answers when one of its files is written: which rule a path belongs to.
//!
//! ENOENT: no such file now. EISDIR: a directory. EACCES: a file that takes no writes. Everything else is the rule's. A write
//! that waits holds no lock meanwhile, looks again every few milliseconds, and ends with its process, as a real one does not.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use croft_gpu::Kernel;
use croft_gpu::pci::PciAddress;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};

use super::session::{Outcome, Session, Stop};
use super::{bind, mdev, reset, sriov, usb, vgpu};
use crate::driver::Errno;
use crate::faults::{self, Answer};

/// How long until a write that waits looks again.
const PATIENCE: Duration = Duration::from_millis(5);

/// The kernel of one simulated host. Any number of them, in any number of processes, speak for one host.
#[derive(Clone, Debug)]
pub struct SimKernel {
    root: PathBuf,
}

impl SimKernel {
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> SimKernel {
        SimKernel { root: root.into() }
    }
}

impl Kernel for SimKernel {
    fn write(&self, path: &str, value: &str) -> io::Result<()> {
        let device = in_path(path).or_else(|| value.trim_end().parse().ok());
        match faults::strike(&self.root, &format!("write {path}"), device)? {
            None => {}
            Some(Answer::Errno(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(Answer::Nvml(_)) => return Err(Errno::IO.into()),
        }
        loop {
            let mut session = Session::open(&self.root)?;
            let file = resolve(&self.root, path)?;
            // sysfs takes a write of nothing for done, without asking the attribute.
            let done = if value.is_empty() { Ok(()) } else { answer(&mut session, &file, value) };
            match done {
                Ok(()) => return session.commit(),
                Err(Stop::Errno(errno)) => return Err(errno.into()),
                Err(Stop::Waits) => {}
            }
            drop(session);
            thread::sleep(PATIENCE);
        }
    }
}

/// The rule for a file, by its own path: every link on the way has been followed.
fn answer(session: &mut Session, file: &str, value: &str) -> Outcome {
    let parts: Vec<&str> = file.split('/').collect();
    match parts[..] {
        ["sys", "bus", "pci", "drivers_probe"] => bind::drivers_probe(session, value),
        ["sys", "bus", "pci", "rescan"] => reset::rescan(session, value),
        ["sys", "bus", "pci", "drivers", driver, "bind"] => bind::bind(session, driver, value),
        ["sys", "bus", "pci", "drivers", driver, "unbind"] => bind::unbind(session, driver, value),
        ["sys", "bus", "pci", "drivers", driver, "new_id"] => bind::new_id(session, driver, value),
        ["sys", "bus", "pci", "drivers", driver, "remove_id"] => bind::remove_id(session, driver, value),
        ["proc", "driver", "nvidia", "gpus", gpu, "unbindLock"] => bind::unbind_lock(session, gpu, value),
        ["sys", "module", "vfio_pci", "parameters", "enable_sriov"] => sriov::set_vfio_parameter(session, value),
        ["sys", "devices", ..] => {
            let at = parts.iter().rposition(|part| part.parse::<PciAddress>().is_ok());
            let function = at.and_then(|at| parts[at].parse().ok().zip(parts.get(at + 1..)));
            function.map_or(Err(Errno::ACCESS.into()), |(address, file)| attribute(session, address, file, value))
        }
        _ => Err(Errno::ACCESS.into()),
    }
}

/// The attributes of one function, and of what hangs on it.
fn attribute(session: &mut Session, address: PciAddress, file: &[&str], value: &str) -> Outcome {
    match file {
        ["driver_override"] => bind::set_override(session, address, value),
        ["sriov_numvfs"] => sriov::set_count(session, address, value),
        ["sriov_drivers_autoprobe"] => sriov::set_autoprobe(session, address, value),
        ["reset"] => reset::reset(session, address, value),
        ["reset_method"] => reset::set_methods(session, address, value),
        ["remove"] => reset::remove(session, address, value),
        ["nvidia", "current_vgpu_type"] => vgpu::set_type(session, address, value),
        ["mdev_supported_types", kind, "create"] => {
            let id = kind.strip_prefix("nvidia-").and_then(|id| id.parse().ok()).ok_or(Errno::ACCESS)?;
            mdev::create(session, address, id, value)
        }
        [uuid, "remove"] => mdev::remove(session, uuid, value),
        [hub, .., port, "authorized"] if hub.starts_with("usb") => usb::authorize(session, port, value),
        _ => Err(Errno::ACCESS.into()),
    }
}

/// The last function that a path goes through.
fn in_path(path: &str) -> Option<PciAddress> {
    path.rsplit('/').find_map(|part| part.parse().ok())
}

/// Where a path leads inside the root, below it.
fn resolve(root: &Path, path: &str) -> io::Result<String> {
    let root = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let file = loop {
        match openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            // Something on this machine was renamed meanwhile, and the path has a `..`.
            Err(Errno::AGAIN) => thread::yield_now(),
            result => break result?,
        }
    };
    if FileType::from_raw_mode(fstat(&file)?.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR.into());
    }
    let (whole, root) = (path_of(&file)?, path_of(&root)?);
    let below = whole.strip_prefix(&root).map_err(io::Error::other)?;
    below.to_str().map(str::to_owned).ok_or_else(|| io::Error::other("a path that is not in UTF-8"))
}

/// Of an open file, as this machine's kernel calls it.
fn path_of(file: &impl std::os::fd::AsRawFd) -> io::Result<PathBuf> {
    let link = rustix::fs::readlinkat(CWD, format!("/proc/self/fd/{}", file.as_raw_fd()), Vec::new())?;
    Ok(PathBuf::from(std::ffi::OsString::from(link.to_string_lossy().into_owned())))
}
