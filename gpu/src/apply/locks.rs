//! A lock per card, held by the helper that works on it and by every tool that it started: a virtual function's is that of its
//! physical one, because what is done to that is done to all of them.
//!
//! An agent that was killed may have left a helper asleep in the kernel. The next agent does not know of it; the lock does.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, FdFlags, fcntl_setfd};

use super::{standing, words};
use crate::hostfs::HostFs;
use crate::pci::PciAddress;
use crate::plan::Step;

/// A helper dies with its agent. One that is still there after this long does not die.
const DYING: Duration = Duration::from_secs(3);

/// A tool that it started goes on without it, and comes to its end: `sriov-manage` must not stop half-way.
const ENDING: Duration = Duration::from_secs(20);

/// Held until it is dropped, and until every process that inherited it has ended.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

#[derive(Debug)]
pub enum Locked {
    Mine(Lock),
    By { pid: u32 },
}

pub fn lock(directory: &Path, step: &Step, host: &HostFs) -> io::Result<Locked> {
    fs::create_dir_all(directory)?;
    let path = directory.join(name(step, host));
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    let started = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                file.rewind()?;
                file.read_to_string(&mut text)?;
                let pid = text.trim().parse().unwrap_or(0);
                if started.elapsed() >= if lives(pid) { DYING } else { ENDING } {
                    return Ok(Locked::By { pid });
                }
                thread::sleep(Duration::from_millis(50));
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    // Tools inherit it: one that hangs keeps the device locked although its helper could be killed.
    fcntl_setfd(&file, FdFlags::empty())?;
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(Locked::Mine(Lock { _file: file }))
}

fn name(step: &Step, host: &HostFs) -> String {
    let Some(device) = words::device(step) else { return "fabric".to_owned() };
    let physical = device.parse::<PciAddress>().ok().and_then(|function| standing::physical(host, function).ok());
    physical.map_or(device, |physical| physical.to_string())
}

/// A zombie does not.
fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is done to a card is done to all its functions: two helpers must not be at it by two names.
    #[test]
    fn a_card_has_one_lock() {
        let root = tempfile::tempdir().unwrap();
        let function = root.path().join("sys/bus/pci/devices/0000:41:00.4");
        fs::create_dir_all(&function).unwrap();
        fs::write(function.join("vendor"), "0x10de\n").unwrap();
        std::os::unix::fs::symlink("../0000:41:00.0", function.join("physfn")).unwrap();
        let host = HostFs::at(root.path()).unwrap();
        let (gpu, vf): (PciAddress, PciAddress) = ("0000:41:00.0".parse().unwrap(), "0000:41:00.4".parse().unwrap());
        let cleared = Step::ClearVgpuType { function: vf, type_name: "A40-8Q".to_owned(), placement: None };
        let parent = vf.to_string();
        let removed = Step::RemoveMdev { parent, type_id: "nvidia-1".to_owned(), uuid: "u".to_owned() };
        for step in [cleared, removed, Step::SriovManage { gpu, enable: false }] {
            assert_eq!(name(&step, &host), "0000:41:00.0", "{step:?}");
        }
        let other = Step::Unbind { address: "0000:61:00.0".parse().unwrap(), driver: "igb".to_owned() };
        assert_eq!(name(&other, &host), "0000:61:00.0");
    }
}
