//! Commands inside the lab host, over one ssh connection that is kept: an emulated processor takes a second for each new one.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

#[derive(Debug, Clone)]
pub struct Ssh {
    dir: PathBuf,
    port: u16,
}

/// How a command inside ended.
#[derive(Debug, Clone)]
pub struct Said {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Ssh {
    /// Makes the key that opens the lab host, in `dir`.
    pub fn new(dir: &Path, port: u16) -> Self {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"])
            .arg(dir.join("key"))
            .status()
            .expect("ssh-keygen");
        assert!(made.success(), "ssh-keygen: {made}");
        Self { dir: dir.to_owned(), port }
    }

    pub fn public_key(&self) -> String {
        std::fs::read_to_string(self.dir.join("key.pub")).expect("the public key")
    }

    /// `None`: nobody answers there (yet).
    pub fn attempt(&self, script: &str) -> Option<Said> {
        let output = self.output(script);
        (output.status.code() != Some(255)).then(|| said(&output))
    }

    /// Lets go of the connection: the machine behind it goes away.
    pub fn forget(&self) {
        let _ = self.command().args(["-O", "exit", "root@127.0.0.1"]).stderr(Stdio::null()).status();
        let _ = std::fs::remove_file(self.dir.join("ssh"));
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-i").arg(self.dir.join("key")).args(["-F", "none", "-p", &self.port.to_string()]);
        let path = format!("ControlPath={}", self.dir.join("ssh").display());
        let options = [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ConnectTimeout=20",
            "ServerAliveInterval=15",
            "ServerAliveCountMax=8",
            "ControlMaster=auto",
            "ControlPersist=600",
            &path,
        ];
        for option in options {
            command.args(["-o", option]);
        }
        command
    }

    /// The script goes in by standard input: no quoting for two shells.
    fn output(&self, script: &str) -> Output {
        let mut command = self.command();
        command.args(["root@127.0.0.1", "bash", "-s"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("ssh");
        // It may have ended by now: then its exit status tells.
        let _ = child.stdin.take().expect("a pipe").write_all(script.as_bytes());
        child.wait_with_output().expect("ssh")
    }
}

fn said(output: &Output) -> Said {
    Said {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
