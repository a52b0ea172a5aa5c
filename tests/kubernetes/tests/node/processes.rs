//! Programs of Croft and of the machine.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// One of the binaries that belong to this test run.
pub fn binary(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("the test's own path");
    let directory = exe.ancestors().find(|dir| dir.join(name).is_file());
    let hint = format!("{name} is not built: `cargo build --bins` first (`cargo xtask test` does)");
    directory.expect(&hint).join(name)
}

/// What a program printed, or what it complained of.
pub fn output(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    output(Command::new(program).args(arguments)).unwrap_or_else(|error| panic!("{error}"))
}

/// Ended when dropped. When the test has failed, it says what it logged last.
pub struct Daemon {
    name: &'static str,
    log: PathBuf,
    child: Child,
}

impl Daemon {
    pub fn start(name: &'static str, log: &Path, arguments: &[&str]) -> Self {
        let into = File::create(log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let mut command = Command::new(binary(name));
        command.args(arguments).env("NO_COLOR", "1").stdin(Stdio::null());
        command.stdout(into.try_clone().expect("a handle")).stderr(into);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name, log: log.to_owned(), child }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            println!("--- the last of {}'s log\n{}", self.name, lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}
