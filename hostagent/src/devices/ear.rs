//! Hearing what GPUs report by themselves, Xid errors above all: no look finds those afterwards.
//!
//! A helper process listens. It has NVML open all the while, so it is ended before anything is changed, and does not count as
//! somebody who uses a GPU.

use std::process::Stdio;

use croft_gpu::nvml::GpuEvent;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, mpsc};

use super::config::Config;
use super::helper::Errand;

/// More than a dying GPU says in the time of a look.
const ROOM: usize = 256;

#[derive(Debug)]
pub(super) struct Ear {
    config: Config,
    listener: Mutex<Option<Child>>,
    heard: mpsc::Sender<GpuEvent>,
}

impl Ear {
    pub(super) fn new(config: Config) -> (Self, mpsc::Receiver<GpuEvent>) {
        let (heard, events) = mpsc::channel(ROOM);
        (Self { config, listener: Mutex::default(), heard }, events)
    }

    /// From now on, unless it listens already.
    pub(super) async fn listen(&self) {
        let mut listener = self.listener.lock().await;
        if listener.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None))) {
            return;
        }
        let (program, arguments) = self.config.command(Errand::Events);
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return tracing::warn!("nobody listens to the GPUs: {error}"),
        };
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
        *listener = Some(child);
    }

    /// Until [`Ear::listen`]. Nothing has NVML open for its sake any more when this returns.
    pub(super) async fn rest(&self) {
        if let Some(mut child) = self.listener.lock().await.take() {
            // An error means that it is gone.
            let _ = child.kill().await;
        }
    }

    /// The process that listens.
    pub(super) async fn pid(&self) -> Option<u32> {
        self.listener.lock().await.as_ref().and_then(Child::id)
    }
}
