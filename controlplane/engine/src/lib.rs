//! The engine: moves truth towards intent, and decides where new things go.
//!
//! ```text
//!   rpc ── create ──► placer ──┐                        ┌─► hooks.host_changed      (agent sessions look again)
//!   rpc ── wake ────► reconciler ──► store (one commit) ─┤
//!   clock ── tick ──► leases ──┘                        └─► hooks.operations_changed (waiters look again)
//!   clock ── tick ──► prober ──► each cluster ──► store
//!   clock, wake ────► maintenance ──► store (a host is drained)
//!   clock, wake ────► joiner ──► each cluster ◄─► store (step by step) ─► hooks.host_changed
//! ```
//! Level-triggered: a wake says "look", never "what". Whatever is lost with a killed process is found again by the
//! look at everything unsettled that every start begins with.
#![forbid(unsafe_code)]

pub mod clusters;
mod dirty;
mod fleet;
mod hooks;
mod janitor;
mod joiner;
mod leases;
mod maintenance;
mod placer;
mod reconciler;
mod rights;
mod wall;

#[cfg(test)]
mod bed;
#[cfg(test)]
mod placer_tests;

use std::sync::Arc;

use croft_core::audit::Call;
use croft_core::device::Request;
use croft_core::id::{HostId, InstanceUid, TenantId};
use croft_core::instance::Instance;
use croft_core::join::ports::Clusters;
use croft_core::join::seed::Recipes;
use croft_core::placement::Verdict;
use croft_core::ports::{Admission, Admitted, BoxFuture, NewInstance, Wake};
use croft_core::{Clock, Result};
use croft_store::Store;
use tokio::task::JoinSet;

use clusters::Handles;
use clusters::prober::Prober;
use dirty::Dirty;
pub use hooks::{Console, Hooks, Meter, NoMeter};
use janitor::Janitor;
use joiner::{Joiner, Ports};
pub use leases::Leases;
use placer::{Attach, Placer};
pub use reconciler::INSTANCE_OVERDUE;

/// Hosts that were heard from within the lease, as the sessions of this replica know them.
pub type LiveHosts = Arc<dyn Fn() -> Vec<HostId> + Send + Sync>;

/// A running engine. Dropping it ends its tasks between two commits, never within one.
#[derive(Debug)]
pub struct Engine {
    placer: Placer,
    dirty: Arc<Dirty>,
    leases: Arc<Leases>,
    prober: Prober,
    joiner: Joiner,
    hooks: Hooks,
    tasks: JoinSet<()>,
}

/// What others hold of it: cheap to clone, ends nothing when dropped.
#[derive(Debug, Clone)]
pub struct Handle {
    placer: Placer,
    dirty: Arc<Dirty>,
    prober: Prober,
    joiner: Joiner,
    hooks: Hooks,
}

impl Engine {
    /// Begins with a look at everything unsettled.
    #[must_use]
    pub fn spawn(
        store: Store,
        clock: Arc<dyn Clock>,
        live_hosts: LiveHosts,
        hooks: Hooks,
        clusters: Arc<dyn Clusters>,
        recipes: Arc<Recipes>,
    ) -> Self {
        let dirty = Arc::new(Dirty::default());
        let mut tasks = JoinSet::new();
        let (placer, placing) = Placer::new(store.clone(), hooks.clone(), dirty.clone());
        tasks.spawn(placing);
        let leases = Arc::new(Leases::new(store.clone(), clock.clone(), live_hosts, dirty.clone()));
        tasks.spawn(leases.clone().run());
        tasks.spawn(reconciler::run(store.clone(), clock.clone(), dirty.clone(), placer.clone(), hooks.clone()));
        tasks.spawn(maintenance::run(store.clone(), dirty.clone()));
        let handles = Arc::new(Handles::new(clusters));
        let prober = Prober::new(store.clone(), handles.clone());
        tasks.spawn(prober.clone().run());
        let (held, hooked) = (dirty.clone(), hooks.clone());
        let (store_of, clock_of, placing_of) = (store.clone(), clock.clone(), placer.clone());
        let ports = Ports {
            store: store_of,
            clock: clock_of,
            handles,
            recipes,
            dirty: held,
            hooks: hooked,
            placer: placing_of,
        };
        let joiner = Joiner::new(ports);
        tasks.spawn(joiner.clone().run());
        tasks.spawn(Janitor::new(store, clock).run());
        Self { placer, dirty, leases, prober, joiner, hooks, tasks }
    }

    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            placer: self.placer.clone(),
            dirty: self.dirty.clone(),
            prober: self.prober.clone(),
            joiner: self.joiner.clone(),
            hooks: self.hooks.clone(),
        }
    }

    /// Renews and ends leases now. The engine does so by itself every second; a story that moves the clock calls it.
    pub async fn tick_leases(&self) -> Result<()> {
        self.leases.tick().await
    }

    /// Looks at every cluster now, and returns when each has answered or failed. The engine does so by itself every minute.
    pub async fn probe_clusters(&self) -> Result<()> {
        self.prober.look_at_all().await
    }

    /// Returns when one of its tasks died, which none does by itself: a plane without it must not go on.
    pub async fn failed(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(Err(error)) => format!("a task of the engine died: {error}"),
            Some(Ok(())) => "a task of the engine ended".to_owned(),
            None => "the engine has no tasks".to_owned(),
        }
    }

    /// Ends every task; what was acknowledged is in the store.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

impl Admission for Handle {
    fn create<'a>(&'a self, call: Call, new: NewInstance) -> BoxFuture<'a, Result<Admitted>> {
        Box::pin(self.placer.create(call, new))
    }

    fn attach<'a>(
        &'a self,
        call: Call,
        tenant: TenantId,
        id: String,
        etag: String,
        device: Request,
    ) -> BoxFuture<'a, Result<Admitted>> {
        Box::pin(self.placer.attach(Attach { call, tenant, id, etag, device }))
    }

    fn room_elsewhere(&self, instance: Instance) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.placer.room_elsewhere(instance))
    }

    fn explain<'a>(&'a self, new: NewInstance) -> BoxFuture<'a, Result<Vec<Verdict>>> {
        Box::pin(self.placer.explain(new))
    }
}

impl Wake for Handle {
    fn instance(&self, uid: InstanceUid) {
        self.dirty.add([uid]);
    }

    fn host(&self, id: &HostId) {
        (self.hooks.host_changed)(id);
    }

    fn hosts(&self) {
        self.dirty.look_at_everything();
    }

    fn clusters(&self) {
        self.prober.wake();
        self.joiner.wake();
    }
}
