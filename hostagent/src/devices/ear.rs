//! Hearing what GPUs report by themselves, Xid errors above all: no look finds those afterwards.
//!
//! A helper process listens. It has NVML open all the while, so it is ended before anything is changed, and does not count as
//! somebody who uses a GPU. One that does not die when it is killed is given up: then it does count, and no other follows it.

use std::process::Stdio;
use std::time::Duration;

use croft_gpu::apply::Cgroup;
use croft_gpu::nvml::GpuEvent;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, mpsc};

use super::config::{Config, Kill};
use super::helper::Errand;
use super::obstacle::Obstacle;
use crate::reasons;

/// More than a dying GPU says in the time of a look.
const ROOM: usize = 256;
/// How long a killed process may take to be gone.
const DYING: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Ear {
    config: Config,
    listener: Mutex<Option<Listener>>,
    heard: mpsc::Sender<GpuEvent>,
}

#[derive(Debug)]
struct Listener {
    child: Child,
    cgroup: Option<Cgroup>,
    given_up: bool,
}

impl Ear {
    pub(super) fn new(config: Config) -> (Self, mpsc::Receiver<GpuEvent>) {
        let (heard, events) = mpsc::channel(ROOM);
        (Self { config, listener: Mutex::default(), heard }, events)
    }

    /// From now on, unless it listens already.
    pub(super) async fn listen(&self) {
        let mut listener = self.listener.lock().await;
        if listener.as_mut().is_some_and(Listener::lives) {
            return;
        }
        let (program, arguments) = self.config.command(Errand::Events);
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return tracing::warn!("nobody listens to the GPUs: {error}"),
        };
        let cgroup = self.config.cgroup(child.id());
        if let (Some(mut input), Ok(site)) = (child.stdin.take(), serde_json::to_vec(&self.config.site)) {
            use tokio::io::AsyncWriteExt as _;
            // One that cannot be spoken to ends, and is started again at the next look.
            let _ = input.write_all(&site).await;
        }
        if let Some(output) = child.stdout.take() {
            let heard = self.heard.clone();
            tokio::spawn(async move {
                let mut lines = BufReader::new(output).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    match serde_json::from_str(&line) {
                        Ok(event) => drop(heard.try_send(event)),
                        Err(error) => tracing::warn!("what the GPUs say can not be understood: {error}"),
                    }
                }
            });
        }
        *listener = Some(Listener { child, cgroup, given_up: false });
    }

    /// Until [`Ear::listen`]. Nothing has NVML open for its sake any more, or it hangs in the kernel.
    pub(super) async fn rest(&self) -> Result<(), Obstacle> {
        let mut listener = self.listener.lock().await;
        if let Some(listener) = listener.as_mut()
            && listener.lives()
            && !listener.ended(self.config.kill).await
        {
            listener.given_up = true;
            let pid = listener.child.id().unwrap_or_default();
            let message = format!("process {pid}, which listened to the GPUs, hangs in the kernel: reboot the host");
            return Err(Obstacle::new(reasons::DEVICE_STUCK, message));
        }
        *listener = None;
        Ok(())
    }

    /// The process that listens.
    pub(super) async fn pid(&self) -> Option<u32> {
        let listener = self.listener.lock().await;
        listener.as_ref().filter(|listener| !listener.given_up).and_then(|listener| listener.child.id())
    }
}

impl Listener {
    fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it, unless that was tried before, and says whether it is gone.
    async fn ended(&mut self, kill: Option<Kill>) -> bool {
        if self.given_up {
            return false;
        }
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let kill = kill.unwrap_or(|pid| kill_process(pid, Signal::KILL));
        // An error means that it is gone.
        let _ = pid.map(kill);
        self.cgroup.iter().for_each(Cgroup::kill);
        tokio::time::timeout(DYING, self.child.wait()).await.is_ok()
    }
}
