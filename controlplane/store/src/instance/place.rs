//! A new host for an instance whose host was fenced, or that left it. The charges of its shape never left; those of its devices are made anew, for
//! the pieces that it gets.

use std::collections::BTreeMap;

use croft_core::event::Severity;
use croft_core::id::InstanceUid;
use croft_core::instance::{Instance, Power, State};
use croft_core::placement::Placement;
use croft_core::placement::view::Claim;
use croft_core::{Error, Result};

use super::{Settled, charged};
use crate::event::reason;
use crate::host::claimed::{self, Taken};
use crate::open::Store;
use crate::pool::claimed::Pools;
use crate::sql::sql;

#[derive(Debug, Clone, PartialEq)]
pub enum PlaceAnswer {
    Placed(Box<Instance>),
    /// The host, or a pool, moved on: place again.
    Stale,
    /// It has a host, is being deleted, should not run, or is gone.
    Unneeded,
}

fn looks_for_host(instance: &Instance) -> bool {
    instance.placement.is_none() && instance.meta.delete_time.is_none() && instance.intent.power == Power::Running
}

impl Store {
    /// No host takes it now: says why for as long as it looks for one. Written where it differs.
    pub async fn instance_unplaced(&self, uid: InstanceUid, why: &Error) -> Result<()> {
        let (word, message) = (why.reason().as_str(), why.to_string());
        self.transaction(move |tx| {
            Box::pin(async move {
                let looks = |one: &Instance| looks_for_host(one) && one.status.state == State::Placing;
                let Some(mut instance) = super::by_uids(&mut tx.conn, &[uid]).await?.pop().filter(looks) else {
                    return Ok(());
                };
                let status = &instance.status;
                if (status.reason.as_str(), &status.message) == (word, &message) {
                    return Ok(());
                }
                // The numbers in a message change with every look at the hosts; a reason that is another one is news.
                if status.reason != word {
                    let (tenant, text) = (Some(&instance.tenant), format!("{word}: {message}"));
                    tx.event(tenant, &instance.name(), reason::INSTANCE_PLACING, &text, Severity::Warning);
                }
                (instance.status.reason, instance.status.message) = (word.to_owned(), message);
                super::write(&mut tx.conn, &instance, Settled::No).await?;
                tx.instance_written(&instance, false);
                Ok(())
            })
        })
        .await
    }

    /// `version`: of the host, as the placement saw it.
    pub async fn instance_place(
        &self,
        uid: InstanceUid,
        placement: Placement,
        claim: Claim,
        version: i64,
    ) -> Result<PlaceAnswer> {
        self.transaction(move |tx| {
            Box::pin(async move {
                let Some(mut instance) = super::by_uids(&mut tx.conn, &[uid]).await?.pop().filter(looks_for_host)
                else {
                    return Ok(PlaceAnswer::Unneeded);
                };
                let host = placement.host.clone();
                let buried = sql("SELECT 1 AS found FROM fenced WHERE host = $1 AND instance_uid = $2")
                    .bind(&host)
                    .bind(uid)
                    .any(&mut tx.conn)
                    .await?;
                // Since it was decided a device may have come or gone.
                let placed = placement.devices.iter().map(|one| &one.id);
                if !placed.eq(instance.spec.devices.iter().map(|request| &request.id)) {
                    return Ok(PlaceAnswer::Stale);
                }
                let pools = Pools::read(&mut tx.conn, &[(&host, &placement.devices)]).await?;
                if !pools.hold(&host, &placement.devices) {
                    return Ok(PlaceAnswer::Stale);
                }
                charged::charge(&mut tx.conn, uid, &instance.tenant, &placement.devices).await?;
                let taken = Taken { uid, host: host.clone(), claim };
                let versions = BTreeMap::from([(host.clone(), version)]);
                // Where it lies buried it cannot live: such a host is not READY, so whoever chose it saw an older one.
                if buried || !claimed::take(&mut tx.conn, &[taken], &versions).await? {
                    tx.discard();
                    return Ok(PlaceAnswer::Stale);
                }
                instance.placement = Some(placement);
                instance.intent.away_from = None;
                instance.status.observed = None;
                instance.status.observed_time = None;
                super::write(&mut tx.conn, &instance, Settled::No).await?;
                tx.instance_written(&instance, false);
                let message = format!("placed on hosts/{host}");
                tx.event(Some(&instance.tenant), &instance.name(), reason::INSTANCE_PLACED, &message, Severity::Info);
                Ok(PlaceAnswer::Placed(Box::new(instance)))
            })
        })
        .await
    }
}
