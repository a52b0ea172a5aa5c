//! One process of the control plane.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Ended with signal 9 when dropped: a polite API server takes half a minute.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    command: Vec<OsString>,
    log: PathBuf,
    child: Child,
}

impl Server {
    /// `before`: what runs the program, and becomes it.
    pub(crate) fn start(
        name: &'static str,
        before: &[&str],
        programs: &Path,
        log_dir: &Path,
        arguments: Vec<String>,
    ) -> Self {
        let log = log_dir.join(format!("{name}.log"));
        let mut command: Vec<OsString> = before.iter().map(OsString::from).collect();
        command.push(programs.join(name).into());
        command.extend(arguments.into_iter().map(OsString::from));
        let child = spawn(&command, &log);
        Self { name, command, log, child }
    }

    /// The end of its log, if it is not running.
    pub(crate) fn alive(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("{} ended: {status}\n{}", self.name, self.log_tail())),
            Err(error) => Err(format!("{}: {error}", self.name)),
        }
    }

    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again with the same arguments.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.command, &self.log);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(words: &[OsString], log: &Path) -> Child {
    let [program, arguments @ ..] = words else { unreachable!("a command has a program") };
    let log = File::options().create(true).append(true).open(log).unwrap_or_else(|e| panic!("{}: {e}", log.display()));
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().expect("a handle")).stderr(log);
    command.spawn().unwrap_or_else(|e| panic!("{}: {e}", program.display()))
}
