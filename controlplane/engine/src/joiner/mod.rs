//! The joiner: makes instances nodes of their clusters, and takes them out again.
//!
//! ```text
//!  store ── instances of a cluster ─┐
//!  cluster ── requests, nodes, pods ┴─► core::join::machine ─► acts ─► cluster, and a step in the store
//! ```
//! Each cluster has a task of its own ([`task`]), so that one that hangs holds up nobody. A pass ([`pass`]) reads everything
//! anew, and every act may be repeated: a plane that dies anywhere begins with a look and goes on. What is in the store comes
//! before what is in the cluster when something is made, and after it when something is deleted, so that nothing is ever in a
//! cluster that the store does not know of.

mod act;
mod away;
mod denials;
mod dress;
mod enter;
mod keep;
mod look;
mod pass;
mod queue;
mod quote;
mod roster;
mod signings;
mod task;
mod tell;
mod token;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use croft_core::instance::Instance;
use croft_core::join::cluster::Fault;
use croft_core::join::machine::Node;
use croft_core::join::seed::Recipes;
use croft_core::{Clock, Error, Result};
use croft_store::{NodeStep, Stepped, Store};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clusters::Handles;
use crate::dirty::Dirty;
use crate::hooks::Hooks;
use crate::placer::Placer;

/// How soon a cluster that another replica registered is found.
const LIST_EVERY: Duration = Duration::from_secs(10);

/// What the work needs.
#[derive(Debug, Clone)]
pub struct Ports {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    pub handles: Arc<Handles>,
    pub recipes: Arc<Recipes>,
    pub dirty: Arc<Dirty>,
    pub hooks: Hooks,
    pub placer: Placer,
}

impl Ports {
    /// Into the store, and those who wait for it look. `None`: somebody else was here; look again.
    async fn step(&self, step: NodeStep) -> Result<Option<Instance>> {
        match self.store.instance_node_step(step).await? {
            Stepped::Stale => Ok(None),
            Stepped::Done(instance) => {
                self.written(&instance);
                Ok(Some(instance))
            }
        }
    }

    /// Those who wait for it look.
    fn written(&self, instance: &Instance) {
        self.dirty.add([instance.uid]);
        if let Some(host) = instance.host() {
            (self.hooks.host_changed)(host);
        }
    }
}

/// What a pass may fail with.
#[derive(Debug)]
enum Problem {
    /// The cluster's: whoever waits for it is told so.
    Cluster(Fault),
    /// Ours.
    Store(Error),
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self::Cluster(fault)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// Of an instance that the store says is one.
fn record(instance: &Instance) -> Result<&Node> {
    instance.node.as_ref().ok_or_else(|| Error::internal(format!("{} has a cluster and no node", instance.name())))
}

/// Sees to it that each cluster has its task.
#[derive(Debug, Clone)]
pub struct Joiner {
    ports: Ports,
    changed: watch::Sender<()>,
}

impl Joiner {
    pub fn new(ports: Ports) -> Self {
        Self { ports, changed: watch::Sender::new(()) }
    }

    /// A cluster was registered, changed or deleted.
    pub fn wake(&self) {
        self.changed.send_replace(());
    }

    pub async fn run(self) {
        let mut timer = tokio::time::interval(LIST_EVERY);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut changed = self.changed.subscribe();
        let mut served: HashSet<String> = HashSet::new();
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                _ = timer.tick() => {}
                _ = changed.changed() => {}
                Some(ended) = tasks.join_next() => {
                    match ended {
                        Ok(uid) => drop(served.remove::<String>(&uid)),
                        Err(error) => {
                            tracing::error!(%error, "the task of a cluster broke off; all of them begin anew");
                            served.clear();
                            tasks.shutdown().await;
                        }
                    }
                    continue;
                }
            }
            match self.ports.store.cluster_all().await {
                Ok(clusters) => {
                    let uids: BTreeSet<String> = clusters.into_iter().map(|cluster| cluster.meta.uid).collect();
                    for uid in uids {
                        if served.insert(uid.clone()) {
                            tasks.spawn(task::Task::new(self.ports.clone(), uid, self.changed.subscribe()).run());
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "the clusters cannot be listed now; trying again"),
            }
        }
    }
}
