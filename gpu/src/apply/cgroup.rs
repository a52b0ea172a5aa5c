//! A control group (v2) for each helper process: what leaves its process group is still found in there, and killed.
//!
//! ```text
//!  croft-hostagent.service          the agent itself; systemd gave it this part of the tree (Delegate=yes)
//!  ├── device-helper-4711-0         a helper of agent 4711, and whatever it starts
//!  └── device-helper-4711-1
//! ```
//! Never one that is there already: in it may be a tool that outlived an agent of before, which would die with the new helper.
//! No controllers are switched on: that would forbid the agent to stay where it is.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

const PREFIX: &str = "device-helper-";

/// Gone with its helper; one whose process does not die stays.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// The one that was given to this process to divide. An error says why there is none.
    pub fn delegated() -> Result<PathBuf, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let (own, mounts) = (read("/proc/self/cgroup")?, read("/proc/self/mounts")?);
        let own = place(&own, &mounts).ok_or("there is no hierarchy of version 2")?;
        if !is_delegated(&own) {
            return Err(format!("{} is not delegated", own.display()));
        }
        // Those that outlived an agent which was killed; one that is not empty stays.
        let entries = fs::read_dir(&own).map_err(|error| format!("{}: {error}", own.display()))?;
        let left = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
        left.for_each(|entry| drop(fs::remove_dir(entry.path())));
        let probe = Cgroup(own.join(format!("{PREFIX}none")));
        fs::create_dir_all(&probe.0).map_err(|error| format!("{}: {error}", probe.0.display()))?;
        Ok(own)
    }

    /// A new one below `parent`, for a process that has not started anything yet.
    pub fn enter(parent: &Path, pid: u32) -> io::Result<Cgroup> {
        let cgroup = Cgroup(fresh(parent)?);
        fs::write(cgroup.0.join("cgroup.procs"), pid.to_string())?;
        Ok(cgroup)
    }

    /// All that live in it.
    #[must_use]
    pub fn members(&self) -> Vec<u32> {
        let procs = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        // 0 stands for one of another pid namespace.
        procs.lines().filter_map(|line| line.trim().parse().ok()).filter(|pid| *pid != 0).collect()
    }

    /// Every process in it. What sleeps in the kernel dies when it wakes up.
    pub fn kill(&self) {
        // Linux 5.14; on older ones a process that forks right now may get away.
        let at_once = File::options().write(true).open(self.0.join("cgroup.kill"));
        if at_once.and_then(|mut file| file.write_all(b"1")).is_ok() {
            return;
        }
        for pid in self.members().into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            // An error means that it is gone.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn fresh(parent: &Path) -> io::Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    fs::create_dir_all(parent)?;
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        match fs::create_dir(&path) {
            // An agent of before had the same number as this one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return created.map(|()| path),
        }
    }
}

/// Where the process is in the hierarchy of version 2. `own`: /proc/self/cgroup; `mounts`: /proc/self/mounts.
fn place(own: &str, mounts: &str) -> Option<PathBuf> {
    let below = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let at = fields.next()?;
        (fields.next()? == "cgroup2").then_some(at)
    })?;
    Some(Path::new(mount).join(below))
}

/// systemd writes it on what it will not touch.
fn is_delegated(cgroup: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 8];
        rustix::fs::getxattr(cgroup, *name, &mut value).is_ok_and(|length| value.get(..length) == Some(b"1"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_where_both_files_say() {
        let mounts = "sysfs /sys sysfs rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        let own = "0::/system.slice/croft-hostagent.service\n";
        let there = Path::new("/sys/fs/cgroup/system.slice/croft-hostagent.service");
        assert_eq!(place(own, mounts).as_deref(), Some(there));
        let hybrid = "cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(place("8:pids:/x\n0::/\n", hybrid).as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(place("8:pids:/x\n", hybrid), None, "version 1 alone");
        assert_eq!(place(own, "sysfs /sys sysfs rw 0 0\n"), None);
    }

    /// A directory stands for the hierarchy.
    #[test]
    fn nobody_is_put_in_with_what_was_left_there() {
        let parent = tempfile::tempdir().unwrap();
        let name = |number: u32| parent.path().join(format!("{PREFIX}{}-{number}", std::process::id()));
        let left: Vec<_> = (0..200).map(name).collect();
        left.iter().for_each(|path| fs::create_dir(path).unwrap());
        let entered = [Cgroup::enter(parent.path(), 7), Cgroup::enter(parent.path(), 7)].map(Result::unwrap);
        assert_ne!(entered[0].0, entered[1].0);
        assert!(entered.iter().all(|cgroup| !left.contains(&cgroup.0) && cgroup.members() == [7]), "{entered:?}");
    }

    #[test]
    fn what_nobody_delegated_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_delegated(directory.path()));
    }
}
