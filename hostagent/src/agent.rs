//! One agent, put together. `main` runs one; stories run a fleet of them in one process.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use croft_gpu::plan::Step;
use croft_proto::agent::v1::DesiredInstance;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::board::Board;
use crate::clock::Clock;
use crate::console_janitor::{self, Limits};
use crate::devices::{self, Devices};
use crate::driver::Shared;
use crate::driver::decide::Starts;
use crate::hypervisor::Hypervisor;
use crate::images::Images;
use crate::journal::{self, Journal};
use crate::link::{self, Connect};
use crate::metrics::{self, Metrics};
use crate::plane::Plane;
use crate::supervisor::Supervisor;
use crate::surveyor::Surveyor;
use crate::tasks::Tasks;
use crate::{enrol, host_report};

/// Between two looks when nothing happens, and while the hypervisor does not answer.
const POLL: Duration = Duration::from_secs(30);
const POLL_WHILE_AWAY: Duration = Duration::from_secs(2);
const HOUSEKEEPING: Duration = Duration::from_secs(600);
/// The step in hand, however long it may take, and the way back; the unit's `TimeoutStopSec` is longer.
const LAST_PLAN: Duration = Step::LONGEST.saturating_add(Duration::from_secs(30));

/// How one agent is set up.
#[derive(Clone)]
pub struct Config {
    pub state_dir: PathBuf,
    pub connect: Arc<dyn Connect>,
    /// Where this host's certificate is kept and renewed; `None` for a channel that needs none.
    pub renew: Option<PathBuf>,
    pub inventory: host_report::Source,
    /// `None`: it looks after no devices, and says so when an instance asks for one.
    pub devices: Option<devices::Config>,
    pub console_logs: Limits,
    /// Where the hypervisor leaves them.
    pub console_directory: PathBuf,
    pub clock: Clock,
    pub metrics: Metrics,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("state_dir", &self.state_dir).finish_non_exhaustive()
    }
}

impl Config {
    /// With the defaults of the command line.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>, connect: Arc<dyn Connect>, inventory: host_report::Source) -> Self {
        let state_dir = state_dir.into();
        Self {
            console_directory: state_dir.join("console"),
            state_dir,
            connect,
            renew: None,
            inventory,
            devices: None,
            console_logs: Limits::default(),
            clock: Clock::system(),
            metrics: Metrics::default(),
        }
    }
}

#[derive(Debug)]
pub struct Agent;

/// A running agent. Dropping the handle leaves it running.
#[derive(Debug)]
pub struct AgentHandle {
    tasks: Tasks,
    board: Board,
    devices: Devices,
    metrics: metrics::Source,
    refused: Option<oneshot::Receiver<String>>,
}

impl Agent {
    /// Takes over the journal and begins to work. Fails when the journal cannot be read at all.
    pub async fn spawn(config: Config, hypervisor: Arc<dyn Hypervisor>) -> Result<AgentHandle, journal::Error> {
        let tasks = Tasks::default();
        let journal_dir = config.state_dir.join("journal");
        let opening = tasks.clone();
        let opened = tokio::task::spawn_blocking(move || Journal::open(&journal_dir, opening))
            .await
            .unwrap_or(Err(journal::Error::Killed))?;

        let (board, metrics, plane) = (Board::default(), config.metrics.clone(), Plane::default());
        let surveyor = Surveyor::spawn(Arc::clone(&hypervisor), metrics.clone(), &tasks);
        let images = Images::new(Arc::clone(&hypervisor), board.clone(), metrics.clone());
        let (starts, gate) = watch::channel(Starts::AwaitEpoch);
        let (kept, clock, owned) = (opened.devices.clone(), config.clock.clone(), tasks.clone());
        let devices = config.devices.map_or_else(Devices::default, |config| Devices::open(config, kept, clock, owned));
        let shared = Shared {
            hypervisor,
            surveyor,
            images,
            devices: devices.clone(),
            plane: plane.clone(),
            board: board.clone(),
            clock: config.clock.clone(),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
            starts: gate,
        };
        let supervisor = Supervisor::start(opened, starts, shared.clone()).await;

        let (refuse, refused) = oneshot::channel();
        tasks.spawn_vital("the link to the control plane", {
            let (supervisor, shared) = (supervisor.clone(), shared.clone());
            async move {
                let _ = refuse.send(link::run(config.connect, supervisor, shared).await);
            }
        });
        if let Some(state_dir) = config.renew {
            tasks.spawn_vital(
                "the renewal of the certificate",
                enrol::keep_renewed(state_dir, plane, config.clock.clone(), metrics),
            );
        }
        devices.start(supervisor.policy(), &tasks);
        tasks.spawn_vital("the ear for devices", wake_by_devices(supervisor.clone(), devices.clone()));
        let policy = supervisor.policy();
        tasks.spawn_vital("the report of the host", host_report::run(config.inventory, shared.clone(), policy));
        tasks.spawn_vital("the watch for unknown domains", supervisor.clone().watch_orphans());
        tasks.spawn_vital("the ear for events", wake_by_events(supervisor.clone(), shared.clone()));
        tasks.spawn_vital("the timer", wake_by_timer(supervisor.clone(), shared.clone()));
        let metrics = metrics::Source::new(supervisor.clone(), shared.clone());
        tasks
            .spawn_vital("housekeeping", keep_house(supervisor, shared, config.console_directory, config.console_logs));
        Ok(AgentHandle { tasks, board, devices, metrics, refused: Some(refused) })
    }
}

impl AgentHandle {
    /// Ends the agent where it next waits; instances go on running. A device that is being changed is not left half-way.
    pub async fn stop(&self) {
        self.finish_devices().await;
        self.tasks.stop().await;
    }

    /// Returns when nothing of a device is being changed, and nothing will be: before the process ends, for whatever reason.
    pub async fn finish_devices(&self) {
        self.devices.finish(LAST_PLAN).await;
    }

    /// Ends the agent as a kill -9 would: once this returns, nothing of it is written any more, and nothing was tidied.
    pub fn kill(&self) {
        self.tasks.kill();
    }

    /// What the agent believes to be true now.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// What its metrics page is made of.
    #[must_use]
    pub fn metrics(&self) -> metrics::Source {
        self.metrics.clone()
    }

    /// Every task of this agent.
    #[must_use]
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Returns when the plane will not have this host and there is nothing on it to look after, with what to do.
    pub async fn refused(&mut self) -> String {
        if let Some(refused) = &mut self.refused
            && let Ok(why) = refused.await
        {
            return why;
        }
        self.refused = None;
        std::future::pending().await
    }

    /// Returns when the agent can not do its work any more: the process is to end, and to be started again.
    pub fn broken(&self) -> impl Future<Output = ()> + Send + 'static {
        let tasks = self.tasks.clone();
        async move { tasks.broken().await }
    }
}

async fn wake_by_events(supervisor: Supervisor, shared: Shared) {
    use tokio::sync::broadcast::error::RecvError;
    let mut events = shared.hypervisor.events();
    loop {
        match events.recv().await {
            Ok(Some(uid)) => match supervisor.entry(uid) {
                Some(entry) => entry.wake(),
                // Not one that anybody told us of: a look finds out.
                None => drop(shared.surveyor.fresh().await),
            },
            // Too many to hear them all: look at everything.
            Ok(None) | Err(RecvError::Lagged(_)) => {
                shared.surveyor.fresh().await;
                supervisor.wake_all();
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// A device that came, went or was released may be what an instance waits for.
async fn wake_by_devices(supervisor: Supervisor, devices: Devices) {
    let mut report = devices.report();
    while report.changed().await.is_ok() {
        supervisor.wake_all();
    }
}

/// Events may get lost, and a hypervisor that came back has none to tell.
async fn wake_by_timer(supervisor: Supervisor, shared: Shared) {
    loop {
        let answers = shared.surveyor.fresh().await.outcome.is_ok();
        supervisor.wake_all();
        shared.clock.sleep(if answers { POLL } else { POLL_WHILE_AWAY }).await;
    }
}

/// Old console logs, and images that nobody wants any more.
async fn keep_house(supervisor: Supervisor, shared: Shared, consoles: PathBuf, limits: Limits) {
    loop {
        let look = shared.surveyor.fresh().await;
        // What was not seen is not gone: without a successful look nothing is old.
        if let Ok(survey) = &look.outcome {
            let mut present: HashSet<Uuid> = survey.ours.iter().map(|domain| domain.uid).collect();
            let mut images = HashSet::new();
            for (uid, entry) in supervisor.entries() {
                let record = entry.read().await;
                if !record.is_gone() {
                    present.insert(uid);
                    images.extend(record.desired.as_ref().and_then(image_of));
                }
            }
            let (directory, now) = (consoles.clone(), shared.clock.wall());
            let swept =
                tokio::task::spawn_blocking(move || console_janitor::sweep(&directory, limits, &present, now)).await;
            if let Ok(Err(error)) = swept {
                tracing::warn!("console logs can not be tidied: {error}");
            }
            prune_images(&supervisor, &shared, &images).await;
        }
        shared.clock.sleep(HOUSEKEEPING).await;
    }
}

async fn prune_images(supervisor: &Supervisor, shared: &Shared, wanted: &HashSet<Uuid>) {
    let mut last_wanted = supervisor.images_last_wanted().await;
    shared.images.prune(wanted, &mut last_wanted, shared.clock.wall()).await;
    if let Err(error) = supervisor.update_host(|host| host.images = last_wanted).await {
        tracing::warn!("{:#}", anyhow::Error::new(error));
    }
}

fn image_of(desired: &DesiredInstance) -> Option<Uuid> {
    Uuid::try_parse(&desired.image.as_ref()?.uid).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else systemd kills the agent while it still waits for a step that has its time.
    #[test]
    fn systemd_waits_longer_than_the_agent_for_its_last_plan() {
        for file in ["../tests/lab/host/etc/systemd/system/croft-hostagent.service", "../docs/operations.md"] {
            let text = std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)).expect(file);
            let seconds = text.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")?.parse().ok()).expect(file);
            assert!(Duration::from_secs(seconds) > LAST_PLAN, "{file}: {seconds}");
            assert!(LAST_PLAN > Step::LONGEST);
        }
    }
}
