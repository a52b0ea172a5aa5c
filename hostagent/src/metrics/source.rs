//! What a scrape asks for, beside what is counted: figures of the guests, and who has which GPU.
//!
//! Asked for at most once a second, however many scrape; what cannot be had in time is missing from that scrape and counted
//! in `croft_hostagent_scrape_errors_total`, never reported as 0.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use croft_proto::agent::v1::DesiredInstance;
use croft_proto::agent::v1::desired_device::Piece;
use croft_proto::v1;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::Metrics;
use super::gpus::{Gpu, Holder};
use super::instances::Instance;
use crate::board::Board;
use crate::devices::Holding;
use crate::driver::Shared;
use crate::hypervisor::{Error, Figures};
use crate::supervisor::Supervisor;

const FRESH: Duration = Duration::from_secs(1);
/// Below every scrape timeout: what is known by then is answered.
const WITHIN: Duration = Duration::from_secs(4);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Source {
    pub(super) metrics: Metrics,
    board: Board,
    supervisor: Supervisor,
    shared: Shared,
    last: Arc<Mutex<Option<Last>>>,
}

/// The answer, and when it was found.
type Last = (Instant, Arc<Seen>);

/// What one scrape found.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// `None`: the hypervisor did not tell.
    pub(super) instances: Option<Vec<Instance>>,
    /// `None`: the devices were not looked at.
    pub(super) gpus: Option<Vec<Gpu>>,
}

impl Source {
    #[must_use]
    pub fn new(supervisor: Supervisor, shared: Shared) -> Self {
        let (metrics, board) = (shared.metrics.clone(), shared.board.clone());
        Self { metrics, board, supervisor, shared, last: Arc::default() }
    }

    /// Everything, in Prometheus' text format 0.0.4.
    pub async fn text(&self) -> String {
        let seen = self.seen().await;
        self.metrics.render(&self.board, &seen)
    }

    /// Scrapes that come while one reads wait for it and share what it found.
    async fn seen(&self) -> Arc<Seen> {
        let mut last = self.last.lock().await;
        if let Some((at, seen)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            tracing::trace!(age = ?at.elapsed(), "scrape answered from memory");
            return Arc::clone(seen);
        }
        let known = self.known().await;
        let seen = Arc::new(Seen { instances: self.instances(&known).await, gpus: self.gpus(&known).await });
        *last = Some((Instant::now(), Arc::clone(&seen)));
        seen
    }

    /// What is to be here, by uid.
    async fn known(&self) -> HashMap<Uuid, DesiredInstance> {
        let mut known = HashMap::new();
        for (uid, entry) in self.supervisor.entries() {
            known.extend(entry.read().await.desired.map(|desired| (uid, desired)));
        }
        known
    }

    async fn instances(&self, known: &HashMap<Uuid, DesiredInstance>) -> Option<Vec<Instance>> {
        let asked = tokio::time::timeout(WITHIN, self.shared.hypervisor.figures()).await;
        let late = || Error::Unavailable(format!("no answer within {} s", WITHIN.as_secs()));
        let figures: Vec<Figures> = match asked.unwrap_or_else(|_| Err(late())) {
            Ok(figures) => figures,
            Err(error) => {
                tracing::warn!("what guests use is missing from this scrape: {error}");
                self.metrics.scrape_error("instances");
                return None;
            }
        };
        // A foreign domain may have anybody's UUID: only what a look knew by its mark is ours.
        let look = self.shared.surveyor.watch().borrow().clone();
        let ours = |uid: Uuid| look.as_ref().is_some_and(|look| look.domain(uid).is_some());
        let one = |figures: Figures| {
            let desired = known.get(&figures.uid).filter(|_| ours(figures.uid))?;
            Some(Instance { tenant: desired.tenant.clone(), name: desired.name.clone(), figures })
        };
        Some(figures.into_iter().filter_map(one).collect())
    }

    async fn gpus(&self, known: &HashMap<Uuid, DesiredInstance>) -> Option<Vec<Gpu>> {
        let report = self.shared.devices.report().borrow().clone();
        if !report.seen {
            return None;
        }
        let holdings = self.shared.devices.holdings().await;
        let gpus = report.devices.iter().filter_map(|device| {
            let facts = device.gpu.as_ref()?;
            let address = device.name.rsplit('/').next().unwrap_or_default();
            let held = holdings.iter().filter(|holding| holding.device == address);
            Some(Gpu {
                address: address.to_owned(),
                uuid: facts.uuid.clone(),
                model: facts.model.clone(),
                state: device.state(),
                reason: device.reason.clone(),
                holders: held.map(|holding| self.holder(holding, known)).collect(),
            })
        });
        Some(gpus.collect())
    }

    fn holder(&self, holding: &Holding, known: &HashMap<Uuid, DesiredInstance>) -> Holder {
        let desired = known.get(&holding.uid);
        let asked = desired.and_then(|desired| desired.devices.iter().find(|one| one.id == holding.request));
        let look = self.shared.surveyor.watch().borrow().clone();
        let attached = look.as_ref().and_then(|look| {
            look.domain(holding.uid)?.devices.iter().find(|attached| attached.alias == holding.request)?.guest
        });
        Holder {
            uid: holding.uid,
            tenant: desired.map(|desired| desired.tenant.clone()).unwrap_or_default(),
            instance: desired.map(|desired| desired.name.clone()).unwrap_or_default(),
            function: holding.function.clone(),
            guest: attached.map(|address| address.to_string()).unwrap_or_default(),
            profile: match asked.and_then(|asked| asked.piece.as_ref()) {
                Some(Piece::Vgpu(vgpu)) => vgpu.r#type.clone(),
                Some(Piece::Whole(_) | Piece::Usb(_)) | None => String::new(),
            },
        }
    }
}

/// A device that somebody may have, or has, without being afraid for it.
pub(super) fn healthy(state: v1::device::State) -> bool {
    use v1::device::State;
    match state {
        State::Available | State::InUse | State::Foreign => true,
        State::Unspecified
        | State::Unhealthy
        | State::Quarantined
        | State::Stuck
        | State::Changed
        | State::Missing
        | State::Unusable => false,
    }
}
