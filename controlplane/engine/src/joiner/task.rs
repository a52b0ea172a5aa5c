//! One cluster's task: when the next pass is.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use croft_core::id::InstanceUid;
use croft_core::instance::{Address, Instance};
use croft_core::join::machine::{Guest, Node};
use croft_core::{Error, Result, Timestamp};
use croft_store::NodeStep;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Ports;
use super::denials::Denials;
use super::keep::Watch;
use super::quote::Quotes;
use super::roster::Roster;
use super::token::jitter;

/// While something moves.
const SOON: Duration = Duration::from_secs(1);
/// While all is as it should be: renewals of certificates wait this long.
const LATER: Duration = Duration::from_secs(10);
/// While nobody joins this cluster.
const IDLE: Duration = Duration::from_secs(60);
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// Between two passes, however many touch whatever.
const SPACING: Duration = Duration::from_millis(200);
/// A pass that is slow is not repeated at once.
const SHARE: u32 = 3;

/// What came of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Quiet,
    Moving,
    /// The cluster, or our own store, did not do what it was asked.
    Fault,
}

/// Of an instance, all that a pass goes by besides the cluster.
pub(super) type Looked = BTreeMap<InstanceUid, (Node, Guest, Vec<Address>)>;

pub(super) struct Task {
    pub ports: Ports,
    /// Of the cluster.
    pub uid: String,
    pub roster: Roster,
    pub watch: Watch,
    pub denials: Denials,
    pub quotes: Quotes,
    /// Of an instance, all that the last pass went by, and what it wrote itself since.
    looked: Mutex<Looked>,
    /// Passes since somebody was here.
    empty: u32,
    faults: u32,
    /// A cluster was registered, changed or deleted: what a fault was about may be mended.
    changed: watch::Receiver<()>,
}

impl Task {
    pub fn new(ports: Ports, uid: String, changed: watch::Receiver<()>) -> Self {
        Self {
            ports,
            uid,
            roster: Roster::default(),
            watch: Watch::default(),
            denials: Denials::default(),
            quotes: Quotes::default(),
            looked: Mutex::default(),
            empty: 0,
            faults: 0,
            changed,
        }
    }

    /// Until the cluster is gone; returns its uid.
    pub async fn run(mut self) -> String {
        let mut touched = self.ports.dirty.touched();
        loop {
            touched.mark_unchanged();
            self.changed.mark_unchanged();
            let began = Instant::now();
            let outcome = match self.ports.store.cluster_by_uid(&self.uid).await {
                Ok(None) => return self.uid,
                Ok(Some(cluster)) => self.pass(&cluster).await,
                Err(error) => Err(error),
            };
            let outcome = outcome.unwrap_or_else(|error| {
                tracing::warn!(
                    cluster = self.uid,
                    cause = cause(&error),
                    "a pass over the nodes of a cluster broke off"
                );
                Outcome::Fault
            });
            let next = Instant::now() + self.pause(outcome).max(began.elapsed() * SHARE);
            tokio::time::sleep(SPACING).await;
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(next) => break,
                    Ok(()) = self.changed.changed() => break,
                    changed = touched.changed() => {
                        if changed.is_err() || self.has_news().await {
                            break;
                        }
                        tokio::time::sleep(SPACING).await;
                    }
                }
            }
        }
    }

    fn pause(&mut self, outcome: Outcome) -> Duration {
        match outcome {
            Outcome::Fault => {
                self.faults = self.faults.saturating_add(1).min(16);
                jitter(SOON.saturating_mul(1 << self.faults.min(6)).min(BACK_OFF_MAX))
            }
            Outcome::Quiet => {
                self.faults = 0;
                // The first one without anybody clears away what the last of them left.
                if self.empty > 1 { IDLE } else { LATER }
            }
            Outcome::Moving => {
                self.faults = 0;
                SOON
            }
        }
    }

    /// Whether anything is another way than when the last pass looked.
    async fn has_news(&self) -> bool {
        match self.ports.store.instance_nodes(&self.uid).await {
            Ok(instances) => looked(&instances) != *self.looked(),
            // The next pass says so.
            Err(_) => false,
        }
    }

    pub fn note(&mut self, instances: &[Instance]) {
        self.quotes.keep(instances);
        *self.looked() = looked(instances);
        self.empty = if instances.is_empty() { self.empty.saturating_add(1) } else { 0 };
    }

    /// Into the store, and those who wait for it look. What this task writes is no news to it. `None`: somebody else was here.
    pub async fn step(&self, step: NodeStep) -> Result<Option<Instance>> {
        let written = self.ports.step(step).await?;
        if let Some((instance, node)) = written.as_ref().and_then(|instance| Some((instance, instance.node.clone()?))) {
            // No more of it than the node: its user may have been here just now.
            self.looked().entry(instance.uid).and_modify(|(known, ..)| *known = node);
        }
        Ok(written)
    }

    fn looked(&self) -> MutexGuard<'_, Looked> {
        // Replaced as a whole, or one record of it.
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when the cluster has answered, and now.
    pub fn seen_at(&self) -> (Timestamp, Timestamp) {
        let now = self.now();
        (self.watch.answers_since(now), now)
    }

    pub fn now(&self) -> Timestamp {
        self.ports.clock.now()
    }
}

fn looked(instances: &[Instance]) -> Looked {
    let of = |instance: &Instance| {
        let addresses = instance.status.observed.as_ref().map(|seen| seen.addresses.clone());
        Some((instance.uid, (instance.node.clone()?, Guest::of(instance), addresses.unwrap_or_default())))
    };
    instances.iter().filter_map(of).collect()
}

fn cause(error: &Error) -> String {
    match error {
        Error::Internal { cause } => cause.clone(),
        other => other.to_string(),
    }
}
