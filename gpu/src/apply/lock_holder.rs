//! Who has a lock that cannot be had. A lock is its open file's, and lives on in every process that inherited that: the one that
//! took it may be gone, and a tool that it started still at work.
//!
//! A process sleeps in the kernel for seconds at a time while it does honest work there. So one that sleeps counts as hanging only
//! when it is older than what it does may take at all.

use std::fs;
use std::path::Path;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    pub command: String,
    /// In a sleep that nothing ends.
    pub hangs: bool,
}

/// `proc`: `/proc`. `limit`: how long the step may take for which the lock was taken. `None`: nobody is seen to have it.
///
/// One that hangs before all others; then the oldest: a tool before what it started.
pub fn find(proc: &Path, lock: &Path, limit: Duration) -> Option<Holder> {
    let lock = fs::canonicalize(lock).ok()?;
    let uptime = uptime(proc).unwrap_or_default();
    let pids = fs::read_dir(proc).ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let found = pids.filter(|pid| has(proc, *pid, &lock)).filter_map(|pid| look(proc, pid, uptime, limit));
    found.min_by_key(|(started, holder)| (!holder.hangs, *started)).map(|(_, holder)| holder)
}

/// Who waits for the lock has the file open too, but not locked.
fn has(proc: &Path, pid: u32, lock: &Path) -> bool {
    let process = proc.join(pid.to_string());
    let Ok(files) = fs::read_dir(process.join("fd")) else { return false };
    files.flatten().any(|file| {
        let info = process.join("fdinfo").join(file.file_name());
        fs::read_link(file.path()).is_ok_and(|target| target == lock)
            && fs::read_to_string(info).is_ok_and(|info| info.lines().any(|line| line.starts_with("lock:")))
    })
}

/// With when it started. Reads nothing that waits for the process's memory, as its command line does.
fn look(proc: &Path, pid: u32, uptime: Duration, limit: Duration) -> Option<(Duration, Holder)> {
    let stat = fs::read_to_string(proc.join(format!("{pid}/stat"))).ok()?;
    let (command, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    // In units of 1/100 s on every architecture that has GPUs like these (USER_HZ).
    let started = Duration::from_millis(fields.nth(18)?.parse::<u64>().ok()?.saturating_mul(10));
    let hangs = state == "D" && uptime.saturating_sub(started) >= limit;
    Some((started, Holder { pid, command: command.to_owned(), hangs }))
}

fn uptime(proc: &Path) -> Option<Duration> {
    let text = fs::read_to_string(proc.join("uptime")).ok()?;
    Duration::try_from_secs_f64(text.split_whitespace().next()?.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(120);

    /// 1 000 s after the machine's start.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("uptime"), "1000.50 7000.00\n").unwrap();
        fs::write(root.path().join("lock"), "").unwrap();
        root
    }

    /// `age`: in seconds.
    fn process(root: &Path, pid: u32, (command, state, age): (&str, &str, u64), has: &str) {
        let process = root.join(pid.to_string());
        for directory in ["fd", "fdinfo"] {
            fs::create_dir_all(process.join(directory)).unwrap();
        }
        let started = (1000 - age) * 100;
        let stat =
            format!("{pid} ({command}) {state} 1 {pid} {pid} 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 {started} 0 0\n");
        fs::write(process.join("stat"), stat).unwrap();
        symlink(fs::canonicalize(root.join("lock")).unwrap(), process.join("fd/3")).unwrap();
        fs::write(process.join("fdinfo/3"), format!("pos:\t0\nflags:\t02\n{has}")).unwrap();
    }

    const LOCKED: &str = "lock:\t1: FLOCK  ADVISORY  WRITE 0 00:1a:77 0 EOF\n";

    fn found(root: &tempfile::TempDir) -> Option<(u32, String, bool)> {
        let found = find(root.path(), &root.path().join("lock"), LIMIT);
        found.map(|holder| (holder.pid, holder.command, holder.hangs))
    }

    #[test]
    fn a_tool_is_named_by_what_it_is_and_one_that_waits_is_no_holder() {
        let root = machine();
        assert_eq!(found(&root), None);
        process(root.path(), 20, ("croft-hostagent", "S", 5), "");
        assert_eq!(found(&root), None, "it has the file open, and not the lock");
        process(root.path(), 31, ("nvidia-smi", "R", 1), LOCKED);
        process(root.path(), 30, ("a) tool (b", "S", 9), LOCKED);
        assert_eq!(found(&root), Some((30, "a) tool (b".to_owned(), false)), "the oldest");
    }

    #[test]
    fn a_sleep_in_the_kernel_is_work_until_it_has_lasted_too_long() {
        let root = machine();
        process(root.path(), 30, ("sriov-manage", "D", 60), LOCKED);
        assert_eq!(found(&root), Some((30, "sriov-manage".to_owned(), false)));
        process(root.path(), 31, ("sriov-manage", "S", 900), LOCKED);
        assert_eq!(found(&root), Some((31, "sriov-manage".to_owned(), false)), "slow, and not asleep in the kernel");
        process(root.path(), 32, ("helper", "D", 130), LOCKED);
        assert_eq!(found(&root), Some((32, "helper".to_owned(), true)));
    }
}
