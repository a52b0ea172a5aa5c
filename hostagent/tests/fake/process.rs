//! The agent as a process of its own, which can be killed and told to end, on a simulated machine with one of everything.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use croft_hostagent::crash;
use croft_hostagent::identity::{Identity, Request};

use super::eventually;
use super::plane::Plane;
use super::tls::Ca;

pub struct Site {
    _directory: tempfile::TempDir,
    pub state: PathBuf,
    pub plane: Plane,
    _ca: Ca,
    server: SocketAddr,
}

impl Site {
    /// Enrolled; no agent runs yet.
    pub async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir_in(croft_gpu_sim::kernel::scratch()).expect("tempdir");
        let state = directory.path().join("state");
        let (plane, ca) = (Plane::new(), Ca::new("the plane's CA"));
        let server = ca.serve(&plane, "h1", "once").await;
        let request = Request::ensure(&state, "h1").expect("request");
        Identity::store(&state, &ca.sign(&request.csr_pem, 2020, 2090), &ca.pem()).expect("identity");
        Self { _directory: directory, state, plane, _ca: ca, server }
    }

    pub fn machine(&self) -> PathBuf {
        self.state.join("simulated/machine")
    }

    /// One that dies at `point`, if there is one.
    pub fn agent(&self, point: Option<&str>) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.state.join("log")).expect("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_croft-hostagent"));
        command.args(["run", "--simulate", "devbox", "--metrics-listen", "127.0.0.1:0"]);
        command.arg("--nvml-library").arg(super::devices::library(&self.state));
        command.arg("--state-dir").arg(&self.state).arg("--server").arg(self.server.to_string());
        command.env_remove(crash::VARIABLE).envs(point.map(|point| (crash::VARIABLE, point)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("spawn")
    }

    /// The first life of an agent, which is killed when `told` has what it waits for.
    pub async fn first_life<T>(&self, told: impl Fn(&Plane) -> Option<T>) -> T {
        let mut agent = self.agent(None);
        let heard = eventually("devices are reported", async || told(&self.plane).ok_or_else(|| self.log())).await;
        agent.kill().expect("kill");
        agent.wait().expect("wait");
        self.plane.cut();
        self.plane.lock().sync_done = None;
        heard
    }

    /// Its end.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.state.join("log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}
