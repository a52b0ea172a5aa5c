//! Leases: how long the plane takes a host's word without hearing from it.
//!
//! An expired lease makes the host UNREACHABLE and its instances UNKNOWN, and nothing more: nothing is placed anew,
//! released or tainted. Heartbeats are never written; the leases of all hosts heard from are renewed in one statement.
//!
//! Leases are kept by the wall clock, which is what the database and other replicas understand. So all of them begin anew
//! when nothing can be concluded from them: at the start (while no plane ran, no agent could be heard), when somebody set
//! the clock, and when this process was held up. A host that is gone is then noticed one lease later, and no other is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use croft_core::{Clock, Result, Timestamp, host};
use croft_store::Store;

use crate::LiveHosts;
use crate::dirty::Dirty;
use crate::wall::WallWatch;

const TICK: Duration = Duration::from_secs(1);
/// A lease is renewed every second, and a heartbeat comes every five: less than this ends none that should run.
const TOLERANCE: Duration = Duration::from_secs(10);

pub struct Leases {
    store: Store,
    live_hosts: LiveHosts,
    dirty: Arc<Dirty>,
    time: Mutex<Time>,
}

#[derive(Debug)]
struct Time {
    watch: WallWatch,
    /// All leases are to begin anew, and the store has not done it yet.
    anew: bool,
}

impl std::fmt::Debug for Leases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leases").field("time", &self.time).finish_non_exhaustive()
    }
}

impl Leases {
    pub(crate) fn new(store: Store, clock: Arc<dyn Clock>, live_hosts: LiveHosts, dirty: Arc<Dirty>) -> Self {
        let time = Mutex::new(Time { watch: WallWatch::new(clock), anew: true });
        Self { store, live_hosts, dirty, time }
    }

    pub(crate) async fn run(self: Arc<Self>) {
        let mut timer = tokio::time::interval(TICK);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            timer.tick().await;
            // The machine's own clock, because time that a story lets pass is not time without heartbeats.
            self.resumed(last.elapsed());
            last = Instant::now();
            if let Err(error) = self.tick().await {
                tracing::warn!(%error, "leases are neither renewed nor ended now; trying again");
            }
        }
    }

    /// After so long without a tick. While this process stood still, it could hear nobody.
    fn resumed(&self, after: Duration) {
        if after > TOLERANCE {
            tracing::warn!("this process was held up for {} s: all leases begin anew", after.as_secs());
            self.time().anew = true;
        }
    }

    pub(crate) async fn tick(&self) -> Result<()> {
        let (now, anew) = self.look();
        if anew {
            self.store.host_lease_anew(now.plus(host::LEASE)).await?;
            self.time().anew = false;
        }
        let live = (self.live_hosts)();
        let mut moved = Vec::new();
        if !live.is_empty() {
            moved.extend(self.store.host_lease_renew(&live, now.plus(host::LEASE)).await?);
        }
        moved.extend(self.store.host_lease_expire(now).await?);
        for host in &moved {
            self.dirty.add(self.store.instance_on_host(host).await?);
        }
        if !moved.is_empty() {
            self.dirty.look_at_everything();
        }
        Ok(())
    }

    /// The time, and whether all leases are to begin anew.
    fn look(&self) -> (Timestamp, bool) {
        let mut time = self.time();
        let look = time.watch.look();
        if look.step.exceeds(TOLERANCE) {
            tracing::warn!("the clock was set {}: all leases begin anew", look.step);
            time.anew = true;
        }
        (look.wall, time.anew)
    }

    fn time(&self) -> MutexGuard<'_, Time> {
        // Two clocks' readings and a flag: whole whatever panicked while they were held.
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
