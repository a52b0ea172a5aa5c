//! The reconciler: looks at instances that something happened to, and commits what follows.
//!
//! What follows is decided by `croft_core::instance::machine`; here is only who is looked at, and when. Many instances
//! share one commit, so a host that comes back with hundreds costs a few.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use croft_core::id::InstanceUid;
use croft_core::{Clock, Result, Timestamp};
use croft_store::Store;
use tokio::time::Instant;

use crate::dirty::Dirty;
use crate::hooks::Hooks;
use crate::placer::Placer;

/// How long a write of another replica, or a lost wake, may go unnoticed.
const LOOK_AT_EVERYTHING: Duration = Duration::from_secs(10);
const BACK_OFF: Duration = Duration::from_secs(1);
/// The one event that no commit of the store writes by itself.
pub const INSTANCE_OVERDUE: &str = "InstanceOverdue";

pub async fn run(store: Store, clock: Arc<dyn Clock>, dirty: Arc<Dirty>, placer: Placer, hooks: Hooks) {
    let mut timer = tokio::time::interval(LOOK_AT_EVERYTHING);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut overdue = Overdue::default();
    loop {
        tokio::select! {
            _ = timer.tick() => dirty.look_at_everything(),
            () = dirty.woken() => {}
        }
        let (batch, everything) = dirty.take();
        if everything {
            match store.instance_unsettled().await {
                Ok(uids) => {
                    overdue.announce(&store, clock.now(), &uids).await;
                    dirty.add(uids);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot look at everything now; trying again");
                    tokio::time::sleep(BACK_OFF).await;
                    dirty.look_at_everything();
                }
            }
        }
        if batch.is_empty() {
            continue;
        }
        if let Err(error) = settle(&store, &batch, &placer, &hooks).await {
            tracing::warn!(%error, "{} instances are not settled together; trying each alone", batch.len());
            // One that cannot be settled must not hold up its neighbours.
            for uid in batch {
                if let Err(error) = settle(&store, &[uid], &placer, &hooks).await {
                    tracing::warn!(%uid, %error, "not settled now; it is looked at again with everything unsettled");
                }
            }
            tokio::time::sleep(BACK_OFF).await;
        }
    }
}

async fn settle(store: &Store, batch: &[InstanceUid], placer: &Placer, hooks: &Hooks) -> Result<()> {
    let began = Instant::now();
    let settled = store.instance_settle(batch.to_vec()).await?;
    hooks.meter.reconciled(began.elapsed(), batch.len());
    for one in &settled {
        if one.needs_place {
            placer.place_again(one.uid);
        }
        if one.after != Some(one.before) {
            hooks.meter.left(one.before, one.spent);
        }
    }
    if !settled.is_empty() {
        (hooks.operations_changed)();
    }
    Ok(())
}

/// Says once that an instance has been in a state for longer than the state table allows.
#[derive(Debug, Default)]
struct Overdue {
    announced: BTreeSet<(InstanceUid, Timestamp)>,
}

impl Overdue {
    async fn announce(&mut self, store: &Store, now: Timestamp, unsettled: &[InstanceUid]) {
        self.announced.retain(|(uid, _)| unsettled.contains(uid));
        for uid in unsettled {
            let Ok(Some(instance)) = store.instance_by_uid(*uid).await else { continue };
            let since = instance.status.state_time;
            let Some(over) = croft_core::instance::machine::overdue(&instance, now) else { continue };
            if !self.announced.insert((*uid, since)) {
                continue;
            }
            let event = croft_core::event::Event {
                revision: 0,
                time: now,
                tenant: Some(instance.tenant.clone()),
                target: instance.name(),
                reason: INSTANCE_OVERDUE.to_owned(),
                message: format!(
                    "{} for {} s longer than usual; {} {}",
                    instance.status.state.as_str(),
                    over.as_secs(),
                    instance.status.reason,
                    instance.status.message
                ),
                severity: croft_core::event::Severity::Warning,
            };
            if let Err(error) = store.event_append(event).await {
                self.announced.remove(&(*uid, since));
                tracing::warn!(%error, "an overdue instance is not announced now; trying again");
            }
        }
    }
}
