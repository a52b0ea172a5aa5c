//! What is to go wrong on a simulated host, in `faults.json`: one list for the kernel's files and for NVML.

use std::fs::File;
use std::path::Path;
use std::time::Duration;
use std::{fs, io, thread};

use croft_gpu::pci::PciAddress;
use serde::{Deserialize, Serialize};

use crate::state::directory;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// `nvmlDeviceSetMigMode`, `write /sys/bus/pci/drivers_probe`, `sriov-manage`; a `*` at the end stands for any rest, a `|`
    /// between two for either.
    pub operation: String,
    /// `None`: on any device.
    #[serde(default)]
    pub device: Option<PciAddress>,
    #[serde(default)]
    pub answer: Option<Answer>,
    #[serde(default)]
    pub delay_ms: u64,
    /// Never returns: the process that called must be killed.
    #[serde(default)]
    pub hang: bool,
    /// Let so many calls pass first.
    #[serde(default)]
    pub skip: u32,
    /// Then strike so often; `None`: always.
    #[serde(default)]
    pub times: Option<u32>,
}

/// The answer in place of the real one. The call then has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// An NVML return code.
    Nvml(u32),
    /// An errno.
    Errno(i32),
}

impl Fault {
    /// `operation` answers so from now on, at once.
    #[must_use]
    pub fn answer(operation: &str, answer: Answer) -> Fault {
        let (operation, answer) = (operation.to_owned(), Some(answer));
        Fault { operation, device: None, answer, delay_ms: 0, hang: false, skip: 0, times: None }
    }

    /// `operation` never returns from now on.
    #[must_use]
    pub fn hang(operation: &str) -> Fault {
        Fault { answer: None, hang: true, ..Fault::answer(operation, Answer::Errno(0)) }
    }

    fn matches(&self, operation: &str, device: Option<PciAddress>) -> bool {
        let is_meant = |name: &str| match name.strip_suffix('*') {
            Some(prefix) => operation.starts_with(prefix),
            None => name == operation,
        };
        self.operation.split('|').any(is_meant) && (self.device.is_none() || self.device == device)
    }
}

/// Replaces the whole list. Empty: nothing goes wrong any more.
pub fn set(root: &Path, faults: &[Fault]) -> io::Result<()> {
    let path = directory(root);
    let unfinished = path.join(format!("faults.json.{}", std::process::id()));
    fs::write(&unfinished, serde_json::to_vec_pretty(faults)?)?;
    fs::rename(unfinished, path.join("faults.json"))
}

/// Called by whoever simulates an operation, before any effect and without the host's lock. Waits as long as the fault says;
/// `Some`: answer that, and do nothing.
pub fn strike(root: &Path, operation: &str, device: Option<PciAddress>) -> io::Result<Option<Answer>> {
    let Some(fault) = next(root, operation, device)? else { return Ok(None) };
    if fault.hang {
        loop {
            thread::sleep(Duration::from_secs(3600));
        }
    }
    thread::sleep(Duration::from_millis(fault.delay_ms));
    Ok(fault.answer)
}

/// The fault that strikes now, counted.
fn next(root: &Path, operation: &str, device: Option<PciAddress>) -> io::Result<Option<Fault>> {
    let path = directory(root).join("faults.json");
    if !path.exists() {
        return Ok(None);
    }
    // Two processes that count at once would strike twice for one. Released when it goes out of scope.
    let lock = File::options().create(true).append(true).open(directory(root).join("faults.lock"))?;
    lock.lock()?;
    let mut faults: Vec<Fault> = serde_json::from_slice(&fs::read(&path)?)?;
    let Some(fault) = faults.iter_mut().find(|fault| fault.matches(operation, device) && fault.times != Some(0)) else {
        return Ok(None);
    };
    let passes = fault.skip > 0;
    let counted = passes || fault.times.is_some();
    if passes {
        fault.skip -= 1;
    } else if let Some(times) = &mut fault.times {
        *times -= 1;
    }
    let fault = (!passes).then(|| fault.clone());
    if counted {
        set(root, &faults)?;
    }
    Ok(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_where_and_as_often_as_it_says() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory(root.path())).unwrap();
        let (here, there) = ("0000:41:00.0".parse().unwrap(), "0000:42:00.0".parse().unwrap());
        let strike = |operation, device| strike(root.path(), operation, Some(device)).unwrap();
        assert_eq!(strike("nvmlDeviceSetMigMode", here), None, "no list at all");

        let busy = Answer::Nvml(19);
        let once =
            Fault { device: Some(here), skip: 1, times: Some(1), ..Fault::answer("fmActivate*|nvmlDeviceSet*", busy) };
        set(root.path(), &[once, Fault::answer("sriov-manage", Answer::Errno(16))]).unwrap();
        assert_eq!(strike("nvmlDeviceSetMigMode", there), None);
        assert_eq!(strike("nvmlDeviceGetMigMode", here), None);
        assert_eq!(strike("nvmlDeviceSetMigMode", here), None, "the first may pass");
        assert_eq!(strike("nvmlDeviceSetPersistenceMode", here), Some(busy));
        assert_eq!(strike("nvmlDeviceSetMigMode", here), None, "it was to strike once");
        for _ in 0..3 {
            assert_eq!(strike("sriov-manage", there), Some(Answer::Errno(16)));
        }
        set(root.path(), &[]).unwrap();
        assert_eq!(strike("sriov-manage", there), None);
    }

    #[test]
    fn a_fault_can_be_slow_and_no_more() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory(root.path())).unwrap();
        let slow = Fault { hang: false, delay_ms: 30, ..Fault::hang("reset") };
        set(root.path(), &[slow]).unwrap();
        let start = std::time::Instant::now();
        assert_eq!(strike(root.path(), "reset", None).unwrap(), None);
        assert!(start.elapsed() >= Duration::from_millis(30));
    }
}
