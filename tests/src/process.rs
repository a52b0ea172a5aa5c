//! Real processes of the real binaries, for tests that kill them.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Api;
use crate::eventually::within;

/// The directory of the binaries that belong to this test run.
pub fn binary(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("the test's own path");
    let directory = exe.ancestors().find(|dir| dir.join(name).is_file());
    let hint = format!("{name} is not built: `cargo build --bins` first (`cargo xtask test` does)");
    directory.expect(&hint).join(name)
}

/// One process that may be told to die at a named point, and is started again without that.
#[derive(Debug)]
pub struct Supervised {
    pub name: &'static str,
    command: Vec<String>,
    log: PathBuf,
    child: Child,
    /// How often it was found killed.
    pub deaths: usize,
}

impl Supervised {
    pub fn start(name: &'static str, arguments: &[&str], log: &Path, crash_at: Option<&str>) -> Self {
        let command: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let child = spawn(name, &command, log, crash_at);
        Self { name, command, log: log.to_owned(), child, deaths: 0 }
    }

    /// Starts it again if it was killed. Any other end is a failure of the test.
    pub fn revive(&mut self) {
        let Some(status) = self.child.try_wait().expect("wait") else { return };
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        assert_eq!(status.signal(), Some(9), "{} ended by itself: {status}\n{log}", self.name);
        self.deaths += 1;
        self.child = spawn(self.name, &self.command, &self.log, None);
    }

    pub fn kill(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// It is there and says nothing: a host that hangs.
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("signal");
    }

    /// Kills it with signal 9, whatever it is doing, and starts it again.
    pub fn kill_and_revive(&mut self) {
        self.kill();
        self.deaths += 1;
        self.child = spawn(self.name, &self.command, &self.log, None);
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(name: &str, arguments: &[String], log: &Path, crash_at: Option<&str>) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("log");
    let mut command = Command::new(binary(name));
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
    command.env_remove("CROFT_CRASH_AT");
    if let Some(point) = crash_at {
        command.env("CROFT_CRASH_AT", point);
    }
    command.spawn().expect("spawn")
}

/// Where a plane listens; it chose its ports itself.
pub async fn listening(data_dir: &Path) -> (SocketAddr, SocketAddr) {
    within(Duration::from_secs(60), "the plane listens", || async {
        let text = std::fs::read_to_string(data_dir.join("listen.json")).map_err(|error| error.to_string())?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let address = |key: &str| value[key].as_str().and_then(|text| text.parse().ok()).ok_or(text.clone());
        Ok::<_, String>((address("api")?, address("metrics")?))
    })
    .await
}

/// The API of a plane process as its platform admin.
pub fn admin(data_dir: &Path, address: SocketAddr) -> Api {
    let read = |name: &str| std::fs::read_to_string(data_dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    Api::new(crate::api::channel(&address.to_string(), &read("ca.pem")), read("admin.token").trim())
}

/// A port that was free a moment ago, for a server that must come back on the same one.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("an address").port()
}
