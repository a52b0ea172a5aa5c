//! Devices of the host: what there is, who holds what, and making pieces ready for instances.
//!
//! ```text
//!   kernel · NVML · Fabric Manager                      driver of an instance
//!        ▲ helper processes                             hold │      ▲ give_back
//!        │                                                   ▼      │
//!   eyes · hands ◄─────────────────── session ◄──────────────┴──────┘
//!                                     │    ▲ timer, uevents, policy: prober
//!                     record (journal)┘    └─► report ─► the host's piece of the board
//! ```
//! - `prober` looks, on a timer and when the kernel says that something changed; `remember` knows hardware again.
//! - `hold`, `give_back`, `replay`, `layout`, `release` change devices; each in a `session`, one at a time.
//! - `record` is written before any effect. After a reboot it is made true again before any VM starts ([`Devices::ready`]).
//! - `report` says it in the plane's words.
//!
//! A look that failed frees nothing and reports nothing. A device with doubt about it is marked, and nobody gets it. What
//! others use is never touched. The arithmetic of what can be done is `croft_gpu::plan`'s, not this module's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use croft_gpu::nvml::GpuEvent;
use croft_proto::agent::v1::{DesiredDevice, HostPolicy};
use tokio::sync::{Mutex, Notify, Semaphore, SemaphorePermit, mpsc, watch};
use uuid::Uuid;

use crate::clock::Clock;
use crate::hypervisor::HostDevice;
use crate::journal::Kept;
use crate::reasons;
use crate::tasks::Tasks;

mod bell;
mod config;
mod ear;
mod eyes;
mod find;
mod give_back;
mod hands;
pub mod helper;
mod hold;
mod holding;
mod layout;
mod obstacle;
mod owners;
mod prober;
mod record;
mod release;
mod remember;
mod replay;
mod report;
mod request;
mod salvage;
mod session;
pub mod simulate;

pub use config::{Config, Kill, delegated_cgroup};
pub use holding::Holding;
pub use obstacle::{Obstacle, is_obstacle};
pub use record::{FORMAT, Record};
pub use report::Report;
pub use salvage::read;

use ear::Ear;
use eyes::Eyes;
use hands::Hands;
use helper::Looked;
use session::Session;

/// Cheap to clone. Without a configuration it has no devices, and holds none.
#[derive(Debug, Clone, Default)]
pub struct Devices(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    config: Config,
    eyes: Eyes,
    ear: Ear,
    hands: Hands,
    record: Kept<Record>,
    clock: Clock,
    /// Who looks or writes.
    hand: Mutex<()>,
    /// Whoever carries out a plan has it; at the end of the agent nobody gets it any more.
    turn: Semaphore,
    /// The last look, or why there was none.
    seen: watch::Sender<Option<Result<Arc<Looked>, String>>>,
    report: watch::Sender<Arc<Report>>,
    ready: watch::Sender<bool>,
    events: std::sync::Mutex<Option<mpsc::Receiver<GpuEvent>>>,
    nudge: Notify,
    tries: std::sync::Mutex<HashMap<(Uuid, String), u32>>,
}

/// What the driver of an instance goes by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Were the devices looked at since the agent began? Before that, nobody knows how they are.
    pub looked: bool,
    /// Ids of requests by which the instance holds something.
    pub held: BTreeSet<String>,
    /// Why the journal does not tell who holds what.
    pub untold: Option<Obstacle>,
    /// Bus and device number of now, of USB devices that are plugged in.
    pub usb: BTreeMap<String, (u16, u8)>,
    /// USB devices that were looked for and are not plugged in.
    pub unplugged: BTreeSet<String>,
    /// What is wrong with a device that it holds.
    pub ill: BTreeMap<String, Obstacle>,
}

impl Devices {
    /// Takes over what the journal knows. Nothing is looked at before [`Devices::start`].
    #[must_use]
    pub fn open(config: Config, record: Kept<Record>, clock: Clock, tasks: Tasks) -> Self {
        let (ear, events) = Ear::new(config.clone());
        Self(Some(Arc::new(Inner {
            ear,
            events: std::sync::Mutex::new(Some(events)),
            eyes: Eyes::new(config.clone()),
            hands: Hands::new(&config, clock.clone(), tasks),
            config,
            record,
            clock,
            hand: Mutex::default(),
            turn: Semaphore::new(1),
            seen: watch::Sender::new(None),
            report: watch::Sender::default(),
            ready: watch::Sender::new(false),
            nudge: Notify::new(),
            tries: std::sync::Mutex::default(),
        })))
    }

    pub fn start(&self, policy: watch::Receiver<HostPolicy>, tasks: &Tasks) {
        if let Some(inner) = &self.0 {
            tasks.spawn_vital("the prober of devices", prober::run(Arc::clone(inner), policy));
        }
    }

    /// Lets the step in hand come to its end, takes its plan back where that was not the last, and lets nobody begin another one.
    /// Returns at the latest when `patience` is over: then the plan is cut short, as by a crash, and the next agent goes on from there.
    pub async fn finish(&self, patience: Duration) {
        let Some(inner) = &self.0 else { return };
        inner.hands.stop();
        match tokio::time::timeout(patience, inner.turn.acquire()).await {
            Ok(Ok(turn)) => turn.forget(),
            // It is never closed.
            Ok(Err(_)) => {}
            Err(_) => {
                tracing::warn!("a change of a device takes longer than {} s, and is cut short", patience.as_secs())
            }
        }
    }

    /// Returns when the first look was tried, and after a reboot everything was set up again as far as it could be: no VM
    /// starts before.
    pub async fn ready(&self) {
        if let Some(inner) = &self.0
            && inner.ready.subscribe().wait_for(|ready| *ready).await.is_err()
        {
            std::future::pending::<()>().await;
        }
    }

    /// Makes all of them ready, and says how a guest's definition names them. Safe to repeat.
    pub async fn hold(&self, uid: Uuid, desired: &[DesiredDevice]) -> Result<Vec<HostDevice>, Obstacle> {
        if desired.is_empty() {
            return Ok(Vec::new());
        }
        let inner = self.inner()?;
        let held = async { Session::begin(inner).await?.hold_all(uid, desired).await }.await;
        inner.publish().await;
        held
    }

    /// Everything that the instance holds but by the requests in `keep`, whose device must be the same. Its guest must have
    /// let go before. `asked`: all that it may hold something by, for when the journal does not tell.
    pub async fn give_back(&self, uid: Uuid, asked: &[DesiredDevice], keep: &[DesiredDevice]) -> Result<(), Obstacle> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let record = inner.record.read().await;
        if let Some(message) = &record.corrupt
            && asked.iter().any(|asked| !keep.contains(asked))
        {
            return Err(Obstacle::new(reasons::JOURNAL_CORRUPT, message.clone()));
        }
        let Some(holds) = record.holds.get(&uid) else { return Ok(()) };
        let kept = |id: &String, device: &String| keep.iter().any(|kept| kept.id == *id && kept.device == *device);
        let ids: Vec<&String> = holds.iter().filter(|(id, hold)| !kept(id, &hold.device)).map(|(id, _)| id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let given = async {
            let mut session = Session::begin(inner).await?;
            for id in ids {
                session.give_back_one(uid, id).await?;
            }
            Ok(())
        }
        .await;
        inner.publish().await;
        given
    }

    /// Can each of these be given to a running guest?
    pub async fn hot_pluggable(&self, desired: &DesiredDevice) -> Result<bool, Obstacle> {
        let inner = self.inner()?;
        let looked = inner.seen.borrow().clone();
        let Some(Ok(looked)) = looked else { return Err(unseen("there was no look yet")) };
        let record = inner.record.read().await;
        Ok(request::Request::check(&looked.host, &record, desired)?.is_hot_pluggable(&looked.host))
    }

    pub async fn view(&self, uid: Uuid) -> View {
        let Some(inner) = &self.0 else { return View::default() };
        let record = inner.record.read().await;
        let looked = inner.seen.borrow().clone();
        let untold = record.corrupt.as_ref().map(|message| Obstacle::new(reasons::JOURNAL_CORRUPT, message.clone()));
        let mut view = View { held: record.held(uid), untold, ..View::default() };
        let Some(Ok(looked)) = looked else { return view };
        view.looked = true;
        for (id, hold) in record.holds.get(&uid).into_iter().flatten() {
            if let Ok(find::Found::Usb(device)) = find::device(&looked.host, &record, &hold.device) {
                view.usb.insert(id.clone(), (device.port.bus, device.device_number));
            } else if find::is_unplugged(&looked.host, &record, &hold.device) {
                view.unplugged.insert(id.clone());
            }
            if let Some(obstacle) = report::ill(&looked.host, &record, &hold.device) {
                view.ill.insert(id.clone(), obstacle);
            }
        }
        view
    }

    /// What the plane is told, as it changes. Without a configuration it stays empty.
    #[must_use]
    pub fn report(&self) -> watch::Receiver<Arc<Report>> {
        match &self.0 {
            Some(inner) => inner.report.subscribe(),
            None => watch::Sender::default().subscribe(),
        }
    }

    /// Looks soon.
    pub fn nudge(&self) {
        if let Some(inner) = &self.0 {
            inner.nudge.notify_one();
        }
    }

    fn inner(&self) -> Result<&Arc<Inner>, Obstacle> {
        let none = || Obstacle::new(reasons::DEVICES_UNSEEN, "this agent was started without devices");
        self.0.as_ref().ok_or_else(none)
    }
}

impl Inner {
    async fn look(&self) -> Result<Arc<Looked>, Obstacle> {
        let mut looked = self.eyes.look().await;
        if let Ok(looked) = &mut looked {
            let (own, record) = (self.ear.pid().await, self.record.read().await);
            for holders in looked.host.holders.values_mut() {
                holders.retain(|holder| Some(holder.pid) != own);
            }
            looked.host.holders.retain(|_, holders| !holders.is_empty());
            for gpu in &mut looked.host.gpus.devices {
                gpu.health.faults.extend(record.faults.get(&gpu.address).cloned().unwrap_or_default());
            }
        }
        let looked = looked.map(Arc::new);
        self.seen.send_replace(Some(looked.clone()));
        looked.map_err(unseen)
    }

    /// For one plan, with what is written down of it.
    async fn turn(&self) -> SemaphorePermit<'_> {
        match self.turn.acquire().await {
            Ok(turn) => turn,
            Err(_) => std::future::pending().await,
        }
    }

    /// What could not be read is never written over: somebody may still put it right.
    async fn note(&self, change: impl FnOnce(&mut Record)) -> Result<(), Obstacle> {
        if let Some(message) = self.record.read().await.corrupt {
            return Err(Obstacle::new(reasons::JOURNAL_CORRUPT, message));
        }
        self.record
            .update(change)
            .await
            .map_err(|error| Obstacle::new(reasons::JOURNAL_UNWRITABLE, format!("{:#}", anyhow::Error::new(error))))
    }

    /// Tells what is known now, if it is something else than before.
    async fn publish(&self) {
        let seen = self.seen.borrow().clone();
        let record = self.record.read().await;
        let report = report::of(seen.as_ref().map(|seen| seen.as_ref().map(|looked| &**looked)), &record);
        self.report.send_if_modified(|known| {
            let report =
                Report { problems: known.problems.clone(), layout_generation: known.layout_generation, ..report };
            let differs = **known != report;
            if differs {
                *known = Arc::new(report);
            }
            differs
        });
    }

    fn tries(&self) -> MutexGuard<'_, HashMap<(Uuid, String), u32>> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unseen(why: impl Into<String>) -> Obstacle {
    Obstacle::new(reasons::DEVICES_UNSEEN, why)
}
