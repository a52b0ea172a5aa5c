//! The console on a real terminal: raw while it lasts, as it was afterwards, however it ends.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::support::Stage;

/// `croft instance console web` on a pseudo-terminal.
struct Session {
    screen: File,
    /// Kept open, so that the terminal and its modes outlive the program.
    terminal: File,
    child: Child,
}

impl Session {
    fn start(stage: &Stage) -> Self {
        let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&screen).unwrap();
        unlockpt(&screen).unwrap();
        let path = ptsname(&screen, Vec::new()).unwrap().into_string().unwrap();
        let terminal = File::options().read(true).write(true).open(path).unwrap();
        let copy = || OwnedFd::from(terminal.try_clone().unwrap());
        let child =
            stage.command(&["instance", "console", "web"]).stdin(copy()).stdout(copy()).stderr(copy()).spawn().unwrap();
        Self { screen: File::from(screen), terminal, child }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    fn type_in(&mut self, text: &[u8]) {
        self.screen.write_all(text).unwrap();
    }

    /// Reads until the screen shows it; the test's own timeout ends a wait in vain.
    fn sees(&mut self, what: &str) -> String {
        let mut seen = String::new();
        let mut buffer = [0; 256];
        while !seen.contains(what) {
            let read = self.screen.read(&mut buffer).unwrap();
            seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        seen
    }

    fn ends(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the console did not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn on_a_terminal(what: impl FnOnce(&mut Session) + Send + 'static) {
    let stage = Stage::new().await;
    let story = move || {
        let mut session = Session::start(&stage);
        assert!(session.sees("Ctrl-] leaves").contains("tenants/acme/instances/web"));
        assert!(session.is_raw(), "while it lasts");
        what(&mut session);
        assert!(!session.is_raw(), "afterwards");
    };
    let told = tokio::task::spawn_blocking(story);
    tokio::time::timeout(Duration::from_secs(60), told).await.expect("the story hangs").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_reach_the_guest_and_the_escape_leaves() {
    on_a_terminal(|session| {
        // Ctrl-C is the guest's, too.
        session.type_in(b"ls\x03");
        session.sees("LS\x03");
        session.type_in(b"\x1d");
        assert!(session.ends().success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_gives_the_terminal_back() {
    on_a_terminal(|session| {
        let pid = Pid::from_raw(i32::try_from(session.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        session.ends();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_powers_off_gives_the_terminal_back() {
    on_a_terminal(|session| {
        session.type_in(b"bye");
        session.sees("the console closed");
        assert!(session.ends().success());
    })
    .await;
}
