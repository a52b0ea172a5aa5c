//! The guest from outside: its power, its console, and its root user by way of the guest agent.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use croft_test_cluster::{Identity, within};
use serde_json::{Value, json};

use crate::processes::{output, run};
use crate::site::{PATIENCE, Site};

/// Its kernel's first word comes after some seconds, thirty beside a build.
const SILENCE: Duration = Duration::from_secs(90);

pub fn image() -> Option<PathBuf> {
    env::var_os("CROFT_KUBERNETES_GUEST").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

pub struct Guest {
    pub domain: String,
    pub silent_boots: u32,
}

impl Guest {
    pub fn of(uid: &str) -> Self {
        Self { domain: format!("croft-{uid}"), silent_boots: 0 }
    }

    /// An emulated machine does not always come up. One that says nothing at all is reset and counted; what it says then is no
    /// matter of luck.
    pub async fn is_heard(&mut self, site: &Site, said: &str) {
        for _ in 0..3 {
            let began = Instant::now();
            while began.elapsed() < SILENCE {
                if site.console() != said {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            self.silent_boots += 1;
            println!("the guest said nothing within {} s; it is reset", SILENCE.as_secs());
            run("virsh", &["-q", "reset", &self.domain]);
        }
    }

    /// A power cut.
    pub fn lose_power(&self) {
        run("virsh", &["-q", "destroy", &self.domain]);
    }

    /// What a script of its root user printed.
    pub async fn run(&self, script: &str) -> Result<String, String> {
        let arguments = json!({ "path": "/bin/sh", "arg": ["-c", script], "capture-output": true });
        let begun = self.ask(&json!({ "execute": "guest-exec", "arguments": arguments }))?;
        let look = json!({ "execute": "guest-exec-status", "arguments": { "pid": begun["pid"] } });
        let ended = within(PATIENCE, script, || async {
            let status = self.ask(&look)?;
            if status["exited"] == true { Ok(status) } else { Err(status.to_string()) }
        })
        .await;
        let text = |key: &str| {
            let bytes = STANDARD.decode(ended[key].as_str().unwrap_or_default()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        if ended["exitcode"] == 0 {
            Ok(text("out-data"))
        } else {
            Err(format!("{script}: {ended}: {}", text("err-data")))
        }
    }

    /// Stolen: the key and the certificate that its kubelet speaks to the API server with. Both are in one file.
    pub async fn identity(&self) -> Identity {
        let pem = self.run("cat /var/lib/kubelet/pki/kubelet-client-current.pem").await.expect("its certificate");
        let part = |kind: &str| {
            let (begin, end) = (format!("-----BEGIN {kind}"), format!("-----END {kind}-----\n"));
            let from = pem.find(&begin).unwrap_or_else(|| panic!("no {kind}"));
            let length = pem[from..].find(&end).expect("an end") + end.len();
            pem[from..from + length].to_owned()
        };
        Identity { certificate_pem: part("CERTIFICATE"), key_pem: part("EC PRIVATE KEY") }
    }

    fn ask(&self, question: &Value) -> Result<Value, String> {
        let question = question.to_string();
        let text = output(Command::new("virsh").args(["-q", "qemu-agent-command", &self.domain, &question]))?;
        let answer: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        Ok(answer["return"].clone())
    }
}
