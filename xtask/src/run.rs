//! Running other programs: as root when that is needed, with their output shown, kept in a log, or parsed.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long after a program's end its output may still come.
const LEFT_BEHIND: Duration = Duration::from_secs(5);

/// Whether we are root. `/proc/self` belongs to the effective user.
pub(crate) fn is_root() -> bool {
    user_id() == 0
}

/// The effective user id; root's when `/proc` cannot say, so that no sudo is tried in a bare container.
pub(crate) fn user_id() -> u32 {
    fs::metadata("/proc/self").map(|m| m.uid()).unwrap_or(0)
}

/// Whether a program of this name is found, in the places where root's programs live too.
pub(crate) fn have(program: &str) -> bool {
    find(program).is_some()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].iter().map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// A program to run, and how.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    without: Vec<OsString>,
    dir: Option<PathBuf>,
    as_root: bool,
}

/// How a program ended that was allowed to fail.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) success: bool,
    /// Absent: a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn new(program: impl Into<OsString>) -> Run {
        Run {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            without: Vec::new(),
            dir: None,
            as_root: false,
        }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Run {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Run {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Without the caller's own `CROFT_…` settings: they may be meant for another plane.
    pub(crate) fn without_settings(self) -> Run {
        self.without(&["CROFT_"])
    }

    /// Hides the variables of ours whose names begin so.
    pub(crate) fn without(mut self, prefixes: &[&str]) -> Run {
        let names = std::env::vars_os().map(|(name, _)| name);
        let meant = |name: &OsString| prefixes.iter().any(|p| name.as_encoded_bytes().starts_with(p.as_bytes()));
        self.without.extend(names.filter(meant));
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Run {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Through sudo when we are not root.
    pub(crate) fn with_root(mut self) -> Run {
        self.as_root = true;
        self
    }

    /// The command line as a person would type it.
    pub(crate) fn shown(&self) -> String {
        let words = self.env.iter().map(|(n, v)| format!("{}={}", n.display(), v.display()));
        let program = Path::new(&self.program).file_name().unwrap_or(&self.program);
        words
            .chain([program.display().to_string()])
            .chain(self.args.iter().map(|a| a.display().to_string()))
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn command(&self) -> Command {
        let program = match self.program.to_str() {
            Some(name) if !name.contains('/') => {
                find(name).map_or_else(|| self.program.clone(), PathBuf::into_os_string)
            }
            _ => self.program.clone(),
        };
        let mut command = if self.as_root && !is_root() {
            // sudo drops the environment: what we set goes by way of env(1).
            let mut sudo = Command::new("sudo");
            sudo.arg("--").arg("env");
            for (name, value) in &self.env {
                let mut pair = name.clone();
                pair.push("=");
                pair.push(value);
                sudo.arg(pair);
            }
            sudo.arg(program);
            sudo
        } else {
            let mut plain = Command::new(program);
            for name in &self.without {
                plain.env_remove(name);
            }
            plain.envs(self.env.iter().map(|(n, v)| (n, v)));
            plain
        };
        command.args(&self.args).stdin(Stdio::null());
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }

    fn cannot_start(&self) -> String {
        format!("cannot start {}", self.program.display())
    }

    /// Runs it with everything captured; fails only when it cannot be started.
    pub(crate) fn ended(&self) -> Result<Ended> {
        let output = self.command().output().with_context(|| self.cannot_start())?;
        Ok(Ended {
            success: output.status.success(),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs it and returns what it printed; its standard error is in the message when it fails.
    pub(crate) fn stdout(&self) -> Result<String> {
        let ended = self.ended()?;
        if !ended.success {
            bail!("{} failed: {}", self.shown(), ended.stderr.trim());
        }
        Ok(ended.stdout)
    }

    /// Runs it with our terminal as its own.
    pub(crate) fn show(&self) -> Result<()> {
        if !self.show_status()? {
            bail!("{} failed", self.shown());
        }
        Ok(())
    }

    /// The same, for a program whose failure is an answer.
    pub(crate) fn show_status(&self) -> Result<bool> {
        Ok(self.command().status().with_context(|| self.cannot_start())?.success())
    }

    /// Runs it, passes on each line of output (standard error too, in order) and hands it to `line`.
    pub(crate) fn each_line(&self, mut line: impl FnMut(&str)) -> Result<bool> {
        let (reader, writer) = io::pipe().context("cannot make a pipe")?;
        let mut command = self.command();
        command.stdout(writer.try_clone().context("cannot copy a pipe")?).stderr(writer);
        let mut child = command.spawn().with_context(|| self.cannot_start())?;
        drop(command); // holds the writing end; without this the loop below never ends
        let mut reader = BufReader::new(reader);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).context("cannot read what the program prints")? > 0 {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            print!("{text}");
            line(text.trim_end());
            bytes.clear();
        }
        Ok(child.wait().with_context(|| format!("{} went away", self.shown()))?.success())
    }

    /// Runs it and returns whether it succeeded, and both its streams as one text, in order.
    pub(crate) fn both(&self) -> Result<(bool, String)> {
        let (mut reader, writer) = io::pipe().context("cannot make a pipe")?;
        let mut command = self.command();
        command.stdout(writer.try_clone().context("cannot copy a pipe")?).stderr(writer);
        let mut child = command.spawn().with_context(|| self.cannot_start())?;
        drop(command); // holds the writing end; without this the read below never ends
        let said = Arc::new(Mutex::new(Vec::new()));
        let hears = said.clone();
        let reading = thread::spawn(move || {
            let mut chunk = [0; 8192];
            while let Ok(count @ 1..) = reader.read(&mut chunk) {
                hears.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..count]);
            }
        });
        let status = child.wait().with_context(|| format!("{} went away", self.shown()))?;
        // What it started and left behind may hold its output for ever.
        let ended = Instant::now();
        while !reading.is_finished() && ended.elapsed() < LEFT_BEHIND {
            thread::sleep(Duration::from_millis(10));
        }
        let mut text = String::from_utf8_lossy(&said.lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
        if !reading.is_finished() {
            text.push_str("it ended, and something that it started goes on and holds its output\n");
        }
        Ok((status.success() && reading.is_finished(), text))
    }

    /// Runs it with its output appended to `log`. On a terminal the last line of the log is shown meanwhile; when it
    /// fails, the end of the log is in the message.
    pub(crate) fn logged(&self, log: &Path) -> Result<()> {
        let file = File::options().create(true).append(true).open(log);
        let mut file = file.with_context(|| format!("cannot write {}", log.display()))?;
        writeln!(file, "$ {}", self.shown()).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = self.command();
        command.stdout(file.try_clone().context("cannot copy a file handle")?).stderr(file);
        let mut child = command.spawn().with_context(|| self.cannot_start())?;
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().with_context(|| format!("{} went away", self.shown()))? {
                break status;
            }
            progress(started.elapsed(), &last_lines(log, 1));
            thread::sleep(Duration::from_millis(200));
        };
        clear_progress();
        if !status.success() {
            bail!("{} failed; the end of {}:\n{}", self.shown(), log.display(), last_lines(log, 15));
        }
        Ok(())
    }
}

/// The last `count` lines of a log that have something in them.
pub(crate) fn last_lines(file: &Path, count: usize) -> String {
    let text = fs::read(file).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// One line on a terminal that the next one overwrites; nothing elsewhere.
pub(crate) fn progress(elapsed: Duration, text: &str) {
    let mut err = io::stderr();
    if err.is_terminal() {
        let line: String = text.chars().filter(|c| !c.is_control()).take(90).collect();
        let _ = write!(err, "\r\x1b[K{:5} s  … {line}", elapsed.as_secs());
    }
}

/// Removes what [`progress`] wrote.
pub(crate) fn clear_progress() {
    let mut err = io::stderr();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[K");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_streams_arrive_in_order() {
        let mut seen = Vec::new();
        let run = Run::new("sh").args(["-c", "echo one; echo two >&2; echo three; exit 3"]);
        assert!(!run.each_line(|l| seen.push(l.to_owned())).unwrap());
        assert_eq!(seen, ["one", "two", "three"]);
    }

    #[test]
    fn a_failure_shows_the_end_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let error = Run::new("sh").args(["-c", "echo it is broken; exit 1"]).logged(&log).unwrap_err().to_string();
        assert!(error.contains("it is broken"), "{error}");
    }

    #[test]
    fn what_a_program_says_on_failure_is_in_the_error() {
        let error = Run::new("sh").args(["-c", "echo no such luck >&2; exit 1"]).stdout().unwrap_err().to_string();
        assert!(error.contains("no such luck"), "{error}");
    }
}
