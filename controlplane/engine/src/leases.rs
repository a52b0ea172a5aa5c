//! Leases: how long the plane takes a host's word without hearing from it.
//!
//! An expired lease makes the host UNREACHABLE and its instances UNKNOWN, and nothing more: nothing is placed anew,
//! released or tainted. Heartbeats are never written; the leases of all hosts heard from are renewed in one statement.

use std::sync::Arc;
use std::time::Duration;

use croft_core::{Clock, Result, Timestamp, host};
use croft_store::Store;

use crate::LiveHosts;
use crate::dirty::Dirty;

const TICK: Duration = Duration::from_secs(1);

pub struct Leases {
    store: Store,
    clock: Arc<dyn Clock>,
    live_hosts: LiveHosts,
    dirty: Arc<Dirty>,
    /// Before this no lease ends: while no plane ran, no agent could be heard, and that says nothing about hosts.
    grace_until: Timestamp,
}

impl std::fmt::Debug for Leases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leases").field("grace_until", &self.grace_until).finish_non_exhaustive()
    }
}

impl Leases {
    pub(crate) fn new(store: Store, clock: Arc<dyn Clock>, live_hosts: LiveHosts, dirty: Arc<Dirty>) -> Self {
        let grace_until = clock.now().plus(host::LEASE);
        Self { store, clock, live_hosts, dirty, grace_until }
    }

    pub(crate) async fn run(self: Arc<Self>) {
        let mut timer = tokio::time::interval(TICK);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            if let Err(error) = self.tick().await {
                tracing::warn!(%error, "leases are neither renewed nor ended now; trying again");
            }
        }
    }

    pub(crate) async fn tick(&self) -> Result<()> {
        let now = self.clock.now();
        let live = (self.live_hosts)();
        let mut moved = Vec::new();
        if !live.is_empty() {
            moved.extend(self.store.host_lease_renew(&live, now.plus(host::LEASE)).await?);
        }
        if now >= self.grace_until {
            moved.extend(self.store.host_lease_expire(now).await?);
        }
        for host in &moved {
            self.dirty.add(self.store.instance_on_host(host).await?);
        }
        if !moved.is_empty() {
            self.dirty.look_at_everything();
        }
        Ok(())
    }
}
