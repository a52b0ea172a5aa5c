//! Looking, through helper processes that can be given up.
//!
//! ```text
//!  nvidia ── NVML, Fabric Manager ──► Told ─┐     killed: the GPUs are listed, and their driver is silent
//!                                           ▼
//!                                   look ──► Host       killed: nothing was seen, which frees nothing
//! ```
//! A helper that does not die when it is killed is not joined by another one of its kind.

use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use croft_gpu::apply::Cgroup;
use croft_gpu::fabric::FabricSource;
use croft_gpu::nvml::NvmlSource;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::config::Config;
use super::helper::{Errand, LookRequest, Looked, Told};

/// NVML answers within a second, but for eight GPUs that all wake up.
const NVIDIA_PATIENCE: Duration = Duration::from_secs(20);
/// USB strings of a device that is being reset take seconds each.
const LOOK_PATIENCE: Duration = Duration::from_secs(60);
/// How long a killed process may take to be gone.
const DYING: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Eyes {
    config: Config,
    left_behind: Mutex<Vec<Looker>>,
}

/// A process that was sent to look.
#[derive(Debug)]
struct Looker {
    errand: Errand,
    child: Child,
    cgroup: Option<Cgroup>,
}

impl Eyes {
    pub(super) fn new(config: Config) -> Self {
        Self { config, left_behind: Mutex::default() }
    }

    /// An error means that nothing was seen.
    pub(super) async fn look(&self) -> Result<Looked, String> {
        let site = &self.config.site;
        let told = match self.ask(Errand::Nvidia, site, NVIDIA_PATIENCE).await {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
            Err(why) => Err(why),
        };
        let told = told.unwrap_or_else(|why| Told {
            nvml: NvmlSource::Failed { why: why.clone() },
            fabric: FabricSource::Unavailable { why },
        });
        let text = self.ask(Errand::Look, &LookRequest { site: site.clone(), told }, LOOK_PATIENCE).await?;
        serde_json::from_slice(&text).map_err(|error| format!("the look can not be understood: {error}"))
    }

    async fn ask(&self, errand: Errand, question: &impl Serialize, patience: Duration) -> Result<Vec<u8>, String> {
        if let Some(pid) = self.still_there(errand) {
            return Err(format!("process {pid}, which was sent to look before, hangs in the kernel: reboot the host"));
        }
        let question = serde_json::to_vec(question).map_err(|error| error.to_string())?;
        let (program, arguments) = self.config.command(errand);
        let mut child = Command::new(&program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let cgroup = self.config.cgroup(child.id());
        let talk = async {
            let mut text = Vec::new();
            if let (Some(mut input), Some(mut output)) = (input, output) {
                let sent = async move { input.write_all(&question).await };
                let (sent, read) = tokio::join!(sent, output.read_to_end(&mut text));
                sent.and(read)?;
            }
            std::io::Result::Ok((text, child.wait().await?))
        };
        match tokio::time::timeout(patience, talk).await {
            Ok(Ok((text, status))) if status.success() => Ok(text),
            Ok(Ok((_, status))) => Err(format!("the look ended with {status}; its own words are in the agent's log")),
            Ok(Err(error)) => Err(format!("the process that looks can not be talked to: {error}")),
            Err(_) => Err(self.give_up(Looker { errand, child, cgroup }, patience).await),
        }
    }

    async fn give_up(&self, mut looker: Looker, patience: Duration) -> String {
        // An error means that it is gone.
        let _ = looker.child.start_kill();
        // NVIDIA's library starts programs, too.
        looker.cgroup.iter().for_each(Cgroup::kill);
        if tokio::time::timeout(DYING, looker.child.wait()).await.is_err() {
            self.left().push(looker);
        }
        format!("no answer within {} s", patience.as_secs())
    }

    /// A process of an earlier errand that has not died since.
    fn still_there(&self, errand: Errand) -> Option<u32> {
        let mut left = self.left();
        left.retain_mut(|looker| matches!(looker.child.try_wait(), Ok(None)));
        left.iter().find(|looker| looker.errand == errand).and_then(|looker| looker.child.id())
    }

    fn left(&self) -> std::sync::MutexGuard<'_, Vec<Looker>> {
        self.left_behind.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
