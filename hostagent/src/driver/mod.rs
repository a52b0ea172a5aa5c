//! One task owns one VM. Nothing else calls a verb of the hypervisor for it.
//!
//! ```text
//!            ┌── intent changed · hypervisor event · timer · epoch confirmed · guest answered ──┐
//!            ▼                                                                                  │
//!   look ─► decide ─► report ─► act ─► look ─► … ─► wait ───────────────────────────────────────┘
//! ```
//!
//! Level-triggered: whatever woke it, it reads the journal and the hypervisor again. [`decide`] is pure and chooses one
//! action; `execute` carries it out. `docs/states/agent-driver.md` has the table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::board::Board;
use crate::clock::Clock;
use crate::devices::{self, Devices};
use crate::features;
use crate::hypervisor::{Domain, Hypervisor, Power};
use crate::images::Images;
use crate::journal::{Entry, Record};
use crate::metrics::Metrics;
use crate::plane::Plane;
use crate::surveyor::{Look, Surveyor};
use crate::tasks::{Tasks, unless_it_panics};

pub mod decide;
mod execute;
pub mod exit;
mod guest;
mod observe;
mod seed;

use decide::{Memory, Next, Seen, Starts, View};
use guest::GuestWatch;
use observe::Reporter;

/// What every driver shares.
#[derive(Clone)]
pub struct Shared {
    pub hypervisor: Arc<dyn Hypervisor>,
    pub surveyor: Surveyor,
    pub images: Images,
    pub devices: Devices,
    pub plane: Plane,
    pub board: Board,
    pub clock: Clock,
    pub metrics: Metrics,
    pub tasks: Tasks,
    pub starts: watch::Receiver<Starts>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

/// Takes charge of one VM until the agent ends or the entry is let go of.
pub fn spawn_driver(entry: &Arc<Entry>, shared: Shared) {
    let tasks = shared.tasks.clone();
    tasks.spawn_vital("the keeper of a driver", keep_driving(Arc::clone(entry), shared));
}

/// A driver that panics leaves its VM to a new one, which begins with the journal and a look, as after a crash of the
/// agent. Meanwhile the plane hears of it, and the other VMs do not.
async fn keep_driving(entry: Arc<Entry>, shared: Shared) {
    let mut falls = 0;
    loop {
        let began = shared.clock.steady();
        let driver = Driver::new(Arc::clone(&entry), shared.clone());
        if unless_it_panics(&format!("the driver of instance {}", entry.uid), driver.run()).await.is_some() {
            return;
        }
        let lasted = began.plus(LONGEST_FALL).left(shared.clock.steady()).is_none();
        falls = if lasted { 1 } else { falls + 1 };
        observe::tell_fault(&entry.read().await, &entry, &shared.board);
        shared.clock.sleep(decide::exponential(falls, LONGEST_FALL)).await;
    }
}

/// The longest wait for a new driver; one that lived for so long was well.
const LONGEST_FALL: Duration = Duration::from_secs(300);

struct Driver {
    entry: Arc<Entry>,
    shared: Shared,
    memory: Memory,
    boot_id: String,
    guest: GuestWatch,
    reporter: Reporter,
    devices: watch::Receiver<Arc<devices::Report>>,
    /// How the host's devices stood when they were last looked at here.
    stand: devices::Report,
}

impl Driver {
    fn new(entry: Arc<Entry>, shared: Shared) -> Self {
        let guest = GuestWatch::new(Arc::clone(&entry), shared.clone());
        let reporter = Reporter::new(entry.uid, shared.board.clone(), shared.clock.clone());
        let devices = shared.devices.report();
        let (memory, boot_id, stand) = (Memory::default(), String::new(), devices.borrow().without_resets());
        Self { entry, shared, memory, boot_id, guest, reporter, devices, stand }
    }

    async fn run(mut self) {
        let mut starts = self.shared.starts.clone();
        while !self.entry.is_retired() {
            // Marked as seen before it is read: a change from here on ends the wait below.
            let gate = *starts.borrow_and_update();
            let Next::Wait(until) = self.step(gate).await else { continue };
            let timer = async {
                match until {
                    Some(until) => self.shared.clock.sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.entry.woken() => {}
                () = timer => {}
                Ok(()) = starts.changed() => {}
            }
        }
    }

    /// One look, one decision, at most one action.
    async fn step(&mut self, starts: Starts) -> Next {
        let began = Instant::now();
        let look = self.shared.surveyor.fresh().await;
        // Read after the look: what another task wrote meanwhile can only make the record newer than what was seen.
        let record = self.entry.read().await;
        let disk_free_gib = self.disk_free_gib(&look).await;
        let devices = self.shared.devices.view(self.entry.uid).await;
        self.forgive(&devices);
        if look.outcome.is_ok() && self.boot_id != look.boot_id {
            self.boot_id.clone_from(&look.boot_id);
            self.memory = Memory::default();
        }
        let view = View {
            record: &record,
            seen: seen(&look, &self.entry),
            boot_id: &self.boot_id,
            now: self.shared.clock.steady(),
            starts,
            features: features::ALL,
            devices: &devices,
            guest_restarts: self.shared.hypervisor.guest_restarts(self.entry.uid),
            disk_free_gib,
            memory: &self.memory,
        };
        let decision = decide::decide(&view);
        let attached = decide::devices::condition(&view);
        let domain = look.domain(self.entry.uid);
        self.watch_guest(&record, domain);
        self.reporter.publish(&record, &decision, domain, &self.guest.latest(), attached);
        let action = match &decision.next {
            Next::Wait(_) => "wait",
            Next::Act(action) => {
                if !self.memory.troubles.iter().any(|trouble| trouble.action == *action) {
                    tracing::info!(uid = %self.entry.uid, name = name(&record), action = action.name(), "instance");
                }
                self.execute(*action, &record).await;
                action.name()
            }
        };
        self.shared.metrics.reconciled(action, began.elapsed());
        decision.next
    }

    /// What stood in the way of a device may be gone when the host's devices are not what they were.
    fn forgive(&mut self, devices: &devices::View) {
        let mut differs = self.memory.devices != *devices;
        if self.devices.has_changed().unwrap_or(false) {
            let stand = self.devices.borrow_and_update().without_resets();
            differs |= self.stand != stand;
            self.stand = stand;
        }
        if differs {
            self.memory.devices.clone_from(devices);
            self.memory.troubles.retain(|trouble| !devices::is_obstacle(trouble.why.reason));
        }
    }

    fn watch_guest(&mut self, record: &Record, domain: Option<&Domain>) {
        let runs = domain.is_some_and(|domain| domain.power == Power::Running);
        if runs && record.desired.is_some() && record.listed {
            self.guest.start();
        } else {
            self.guest.stop();
        }
    }

    /// Asked only when the answer matters: for a guest that waits for space.
    async fn disk_free_gib(&self, look: &Look) -> u64 {
        let paused = look.domain(self.entry.uid).is_some_and(|domain| matches!(domain.power, Power::Paused { .. }));
        if !paused {
            return 0;
        }
        self.shared.hypervisor.about().await.map_or(0, |about| about.disk_free_gib)
    }
}

fn seen<'a>(look: &'a Look, entry: &Entry) -> Seen<'a> {
    match (&look.outcome, look.domain(entry.uid)) {
        (Err(message), _) => Seen::Nothing(message),
        (Ok(_), None) => Seen::Absent,
        (Ok(_), Some(domain)) => Seen::Present(domain),
    }
}

fn name(record: &Record) -> String {
    record.desired.as_ref().map(|desired| format!("{}/{}", desired.tenant, desired.name)).unwrap_or_default()
}

/// After a failure in the driver's own bookkeeping, before it looks again.
const BREATH: Duration = Duration::from_secs(1);
const MOST_BREATHS: u32 = 10;
