//! A program in the background that outlives the terminal: its pid in a file, what it prints in a log.
//!
//! A pid file alone proves nothing, since numbers are used again: the process must run our program.
//!
//! Daemons of the system are started below tini, where it is installed. It waits for what they leave behind: libvirtd
//! believes that an emulator which nobody waited for still lives, and process 1 of a container often waits for nobody.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::site::Site;
use crate::run::{Run, have, last_lines};

#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    pid_file: PathBuf,
    pub(super) log: PathBuf,
    below: Below,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Below {
    Nothing,
    Tini,
}

impl Daemon {
    /// One of our own programs.
    pub(super) fn of(site: &Site, name: &'static str) -> Daemon {
        Daemon {
            name,
            program: site.program(name),
            pid_file: site.dir().join(format!("{name}.pid")),
            log: site.log(name),
            below: Below::Nothing,
        }
    }

    /// A daemon of the system that we start ourselves.
    pub(super) fn of_system(site: &Site, name: &'static str) -> Daemon {
        let below = if have("tini") { Below::Tini } else { Below::Nothing };
        Daemon { program: PathBuf::from("/usr/sbin").join(name), below, ..Daemon::of(site, name) }
    }

    /// Its pid (or that of the tini above it), while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        let pid: u32 = fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok()?;
        let program = self.program.as_os_str().as_encoded_bytes();
        let runs = |pid: u32, words: usize| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|b| *b == 0).take(words).any(|word| word == program)
        };
        // tini -s -- /usr/sbin/libvirtd
        runs(pid, if self.below == Below::Tini { 4 } else { 1 }).then_some(pid)
    }

    /// Starts it in a session of its own, unless it runs.
    pub(super) fn start(&self, arguments: &[&str]) -> Result<()> {
        if self.pid().is_some() {
            return Ok(());
        }
        let script = "echo $$ > \"$1\"; log=$2; shift 2; exec \"$@\" < /dev/null >> \"$log\" 2>&1";
        let above: &[&str] = if self.below == Below::Tini { &["tini", "-s", "--"] } else { &[] };
        Run::new("setsid")
            .args(["--fork", "sh", "-c", script, "sh"])
            .arg(&self.pid_file)
            .arg(&self.log)
            .args(above)
            .arg(&self.program)
            .args(arguments)
            .dir(std::path::Path::new("/"))
            .without_settings()
            .with_root()
            .stdout()?;
        // The pid file appears a moment after setsid has returned.
        let began = Instant::now();
        while self.pid().is_none() && began.elapsed() < Duration::from_secs(3) {
            thread::sleep(Duration::from_millis(50));
        }
        self.check()
    }

    /// An error with the end of the log when it does not run.
    pub(super) fn check(&self) -> Result<()> {
        if self.pid().is_none() {
            let (log, last) = (self.log.display(), last_lines(&self.log, 10));
            bail!("{} ended; {log} says: {}", self.name, if last.is_empty() { "nothing" } else { &last });
        }
        Ok(())
    }

    /// SIGTERM, and SIGKILL when that was not enough. Says whether it had run.
    pub(super) fn stop(&self, patience: Duration) -> Result<bool> {
        let Some(pid) = self.pid() else { return Ok(false) };
        self.signal("TERM", pid)?;
        let began = Instant::now();
        while self.pid().is_some() {
            if began.elapsed() > patience {
                self.signal("KILL", pid)?;
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(true)
    }

    fn signal(&self, signal: &str, pid: u32) -> Result<()> {
        let ended = Run::new("kill").args([&format!("-{signal}"), &pid.to_string()]).with_root().ended()?;
        if !ended.success && self.pid().is_some() {
            bail!("cannot end {} (pid {pid}): {}", self.name, ended.stderr.trim());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_that_runs_something_else_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        fs::write(&pid_file, std::process::id().to_string()).unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "it fell over\n").unwrap();
        let mut daemon =
            Daemon { name: "x", program: PathBuf::from("/no/such/program"), pid_file, log, below: Below::Nothing };
        assert_eq!(daemon.pid(), None);
        assert!(daemon.check().unwrap_err().to_string().contains("it fell over"));
        assert!(!daemon.stop(Duration::ZERO).unwrap());
        daemon.program = PathBuf::from(std::env::args_os().next().unwrap());
        assert_eq!(daemon.pid(), Some(std::process::id()));
    }
}
