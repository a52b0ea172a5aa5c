//! A lock per card, held by the helper that works on it and by every tool that it started: a virtual function's is that of its
//! physical one, because what is done to that is done to all of them. Who binds, unbinds or resets one function of an IOMMU
//! group locks the group after it: for the kernel the group is one thing.
//!
//! An agent that was killed may have left a helper asleep in the kernel, or a tool at work. The next agent does not know of them;
//! the lock does. And its file says what a helper that was killed with its agent has left changed, for the next one to put back.
//! Nobody waits for ever, and nobody who holds a group waits for a card.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, FdFlags, fcntl_setfd};

use super::lock_holder::{self, Holder};
use super::work::Remembered;
use super::{standing, words};
use crate::error::{FsError, IfPresent as _};
use crate::hostfs::HostFs;
use crate::pci::PciAddress;
use crate::plan::Step;

/// A helper dies with its agent. One that is still there after this long is in the kernel's hands.
const DYING: Duration = Duration::from_secs(3);

/// A tool that it started goes on without it, and comes to its end: `sriov-manage` must not stop half-way, and may take longer
/// than anybody waits here.
const ENDING: Duration = Duration::from_secs(20);

/// Held until it is dropped, and until every process that inherited it has ended.
#[derive(Debug)]
pub struct Lock {
    card: File,
    _group: Option<File>,
    limit: Duration,
    /// What its last holder was about to put back when it was killed.
    pub left: Vec<Remembered>,
}

#[derive(Debug)]
pub enum Locked {
    Mine(Lock),
    By(Holder),
}

/// Leaves half of the step's time to the step.
pub fn lock(directory: &Path, step: &Step, host: &HostFs) -> io::Result<Locked> {
    fs::create_dir_all(directory)?;
    let limit = step.deadline();
    let wait = Wait { started: Instant::now(), ending: ENDING.min(limit / 2) };
    let (card, left) = match hold(&directory.join(card(step, host)), &wait, limit)? {
        Held::Mine { file, left } => (file, left),
        Held::By(holder) => return Ok(Locked::By(holder)),
    };
    let group = match group(step, host).map_err(io::Error::other)? {
        Some(group) => match hold(&directory.join(group), &wait, limit)? {
            Held::Mine { file, .. } => Some(file),
            Held::By(holder) => return Ok(Locked::By(holder)),
        },
        None => None,
    };
    Ok(Locked::Mine(Lock { card, _group: group, limit, left }))
}

impl Lock {
    /// From now on whoever has the lock next puts these back. None: all is as it should be.
    pub fn note(&self, changed: &[Remembered]) -> io::Result<()> {
        write(&self.card, changed, self.limit)
    }
}

enum Held {
    Mine { file: File, left: Vec<Remembered> },
    By(Holder),
}

/// For the card and its group together.
struct Wait {
    started: Instant,
    ending: Duration,
}

impl Wait {
    fn is_over(&self, holder_lives: bool) -> bool {
        self.started.elapsed() >= if holder_lives { DYING.min(self.ending) } else { self.ending }
    }
}

/// `limit`: how long it will be held at the most, for whoever finds it held longer.
fn hold(path: &Path, wait: &Wait, limit: Duration) -> io::Result<Held> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) => {
                let noted = read(&file)?;
                if wait.is_over(lives(noted.pid)) {
                    // Nobody is seen where it was let go in this moment, or by a process of another container.
                    let unseen = Holder { pid: noted.pid, command: "unknown".to_owned(), hangs: false };
                    let holder = lock_holder::find(Path::new("/proc"), path, noted.limit.unwrap_or(Step::LONGEST));
                    return Ok(Held::By(holder.unwrap_or(unseen)));
                }
                thread::sleep(Duration::from_millis(50));
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    let left = read(&file)?.changed;
    // Tools inherit it: one that hangs keeps the device locked although its helper could be killed.
    fcntl_setfd(&file, FdFlags::empty())?;
    write(&file, &left, limit)?;
    Ok(Held::Mine { file, left })
}

/// What the holder has written of itself.
struct Noted {
    pid: u32,
    changed: Vec<Remembered>,
    limit: Option<Duration>,
}

fn read(mut file: &File) -> io::Result<Noted> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    let mut lines = text.lines();
    let [pid, note, limit] = [(); 3].map(|()| lines.next().unwrap_or_default());
    // What an agent of another version wrote is no reason to leave the card alone.
    Ok(Noted {
        pid: pid.parse().unwrap_or(0),
        changed: serde_json::from_str(note).unwrap_or_default(),
        limit: limit.parse().ok().map(Duration::from_secs),
    })
}

/// The holder on the first line, its note on the second, its step's seconds on the third. In one write, and shortened after it:
/// killed in between, it leaves what is read as the same.
fn write(file: &File, changed: &[Remembered], limit: Duration) -> io::Result<()> {
    let text = format!("{}\n{}\n{}\n", std::process::id(), serde_json::to_string(changed)?, limit.as_secs());
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

fn card(step: &Step, host: &HostFs) -> String {
    let Some(device) = words::device(step) else { return "fabric".to_owned() };
    let physical = device.parse::<PciAddress>().ok().and_then(|function| standing::physical(host, function).ok());
    physical.map_or(device, |physical| physical.to_string())
}

fn group(step: &Step, host: &HostFs) -> Result<Option<String>, FsError> {
    let (Step::Bind { address, .. } | Step::Unbind { address, .. } | Step::Reset { address, .. }) = step else {
        return Ok(None);
    };
    let group = host.link_name(&format!("{}/iommu_group", standing::directory(*address))).if_present()?;
    Ok(group.map(|group| format!("group-{group}")))
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
            assert_eq!(card(&step, &host), "0000:41:00.0", "{step:?}");
        }
        let other = Step::Unbind { address: "0000:61:00.0".parse().unwrap(), driver: "igb".to_owned() };
        assert_eq!(card(&other, &host), "0000:61:00.0");
    }

    fn tree(groups: &[(&str, &str)]) -> (tempfile::TempDir, HostFs) {
        let root = tempfile::tempdir().unwrap();
        for (function, group) in groups {
            let function = root.path().join("sys/bus/pci/devices").join(function);
            fs::create_dir_all(&function).unwrap();
            std::os::unix::fs::symlink(format!("../../groups/{group}"), function.join("iommu_group")).unwrap();
        }
        let host = HostFs::at(root.path()).unwrap();
        (root, host)
    }

    fn mine(locked: Locked) -> Lock {
        let Locked::Mine(lock) = locked else { panic!("{locked:?}") };
        lock
    }

    /// One function of a group is not moved while another one is: the second helper waits, and gets it when the first is done.
    #[test]
    fn a_group_has_one_lock() {
        let [gpu, audio, other] = ["0000:41:00.0", "0000:41:00.1", "0000:61:00.0"];
        let (root, host) = tree(&[(gpu, "7"), (audio, "7"), (other, "8")]);
        let directory = root.path().join("locks");
        let at = |address: &str| address.parse().unwrap();
        let unbind = |address| Step::Unbind { address: at(address), driver: "vfio-pci".to_owned() };
        let bind = |address| Step::Bind { address: at(address), driver: "vfio-pci".to_owned() };
        let reset = |address| Step::Reset { address: at(address), methods: Vec::new() };
        for second in [unbind(audio), bind(audio), reset(audio)] {
            let first = mine(lock(&directory, &unbind(gpu), &host).unwrap());
            mine(lock(&directory, &bind(other), &host).unwrap());
            thread::scope(|scope| {
                let waiting = scope.spawn(|| mine(lock(&directory, &second, &host).unwrap()));
                thread::sleep(Duration::from_millis(100));
                assert!(!waiting.is_finished(), "{second:?}");
                drop(first);
                waiting.join().unwrap();
            });
        }
        // One that never ends is named.
        let _first = mine(lock(&directory, &unbind(gpu), &host).unwrap());
        let held = lock(&directory, &bind(audio), &host).unwrap();
        assert!(
            matches!(&held, Locked::By(Holder { pid, hangs: false, .. }) if *pid == std::process::id()),
            "{held:?}"
        );
        // An override is the function's own.
        let reserved = Step::SetDriverOverride { address: at(audio), from: None, to: None };
        mine(lock(&directory, &reserved, &host).unwrap());
    }

    #[test]
    fn what_a_killed_holder_noted_is_left_to_the_next() {
        let gpu = "0000:41:00.0";
        let (root, host) = tree(&[(gpu, "7")]);
        let directory = root.path().join("locks");
        let step = Step::Reset { address: gpu.parse().unwrap(), methods: Vec::new() };
        let lock = || mine(lock(&directory, &step, &host).unwrap());
        let method =
            |text: &str| Remembered::Attribute { path: "/sys/x/reset_method".to_owned(), text: text.to_owned() };
        let both = [method("flr bus"), Remembered::Persistence { gpu: gpu.parse().unwrap(), on: true }];
        lock().note(&both).unwrap();
        assert_eq!(lock().left, both);
        assert_eq!(lock().left, both, "until somebody says that it is put back");
        lock().note(&[method("flr")]).unwrap();
        assert_eq!(lock().left, [method("flr")], "a shorter one");
        // Killed before the file was shortened.
        let path = directory.join(gpu);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text + "the end of a longer one\n").unwrap();
        assert_eq!(lock().left, [method("flr")]);
        lock().note(&[]).unwrap();
        assert_eq!(lock().left, []);
        for odd in ["", "7", "7\n", "7\n{]", "x"] {
            fs::write(&path, odd).unwrap();
            assert_eq!(lock().left, [], "{odd:?}");
        }
    }
}
