//! Truth from a host. Written only where it differs from what is known; what is out of date is ignored.
//!
//! What counts as proof that nothing is left of an instance is decided here: an ABSENT that was told after the delete,
//! by the host that it is placed on, in the host's present epoch.

use std::collections::{BTreeMap, BTreeSet};

use croft_core::id::{HostId, InstanceUid};
use croft_core::instance::machine::is_buried;
use croft_core::instance::{Instance, Observed, Phase};
use croft_core::{Error, Result};
use sqlx::AnyConnection;

use super::attach::{self, Released};
use super::away;
use super::settle::settle;
use super::{Row, Settled, select_instances};
use crate::host::lease;
use crate::open::Store;
use crate::sql::sql;
use crate::tx::Tx;

#[derive(sqlx::FromRow)]
struct Deleted {
    uid: String,
    delete_revision: i64,
}

/// One message of a host.
struct Report {
    host: HostId,
    epoch: i64,
    seen: BTreeMap<InstanceUid, Observed>,
    complete: bool,
    /// Up to where its agent knows what it should do.
    synced: Option<i64>,
}

impl Store {
    /// Returns those whose truth changed. `epoch`: the agent's; `complete`: a look at the whole host, so that what is
    /// not listed is not there.
    pub async fn instance_observe(
        &self,
        host: &HostId,
        epoch: i64,
        seen: Vec<(InstanceUid, Observed)>,
        complete: bool,
    ) -> Result<Vec<InstanceUid>> {
        let synced = self.inner.synced().get(host).filter(|(at, _)| *at == epoch).map(|(_, revision)| *revision);
        let report = Report { host: host.clone(), epoch, seen: seen.into_iter().collect(), complete, synced };
        self.transaction(move |tx| Box::pin(observe(tx, report))).await
    }
}

async fn observe(tx: &mut Tx, report: Report) -> Result<Vec<InstanceUid>> {
    let epoch = current_epoch(&mut tx.conn, &report.host).await?;
    note_fenced(tx, &report, epoch).await?;
    if report.epoch < epoch {
        return Ok(Vec::new());
    }
    let told = deletes_told(&mut tx.conn, &report).await?;
    let (mut changed, mut left) = (Vec::new(), Vec::new());
    for mut instance in placed_here(&mut tx.conn, &report).await? {
        let Some(mut truth) = truth(&instance, &report, told.contains(&instance.uid)) else { continue };
        let known = instance.status.observed.as_ref().map_or(0, |known| known.disk_generation);
        truth.disk_generation = truth.disk_generation.max(known);
        if instance.status.observed.as_ref() == Some(&truth) {
            continue;
        }
        if truth.phase == Phase::Absent && is_buried(&instance) && instance.meta.delete_time.is_none() {
            changed.push(instance.uid);
            away::let_go(tx, instance).await?;
            continue;
        }
        let released = Released { generation: truth.generation, devices: &truth.released_devices };
        if attach::release(tx, &mut instance, &released).await? {
            left.push(instance.uid);
        }
        instance.status.observed = Some(truth);
        instance.status.observed_time = Some(tx.now);
        super::write(&mut tx.conn, &instance, Settled::No).await?;
        tx.instance_written(&instance, false);
        changed.push(instance.uid);
    }
    // A detach is done in the commit that gives back, before its id can be used again.
    if !left.is_empty() {
        settle(tx, left).await?;
    }
    Ok(changed)
}

async fn current_epoch(conn: &mut AnyConnection, host: &HostId) -> Result<i64> {
    let row: Option<(i64,)> = sql("SELECT epoch FROM hosts WHERE id = $1").bind(host).optional(conn).await?;
    row.map(|(epoch,)| epoch).ok_or_else(|| Error::not_found(format!("hosts/{host}")))
}

/// What the host says of fenced instances. One that is seen again after it was absent is not absent.
async fn note_fenced(tx: &mut Tx, report: &Report, epoch: i64) -> Result<()> {
    let fenced: Vec<(String, i64)> =
        sql("SELECT instance_uid, absent FROM fenced WHERE host = $1").bind(&report.host).all(&mut tx.conn).await?;
    if fenced.is_empty() {
        return Ok(());
    }
    for (text, absent) in fenced {
        let is_absent = match report.seen.get(&super::uid(&text)?) {
            Some(seen) => seen.phase == Phase::Absent,
            // An agent of an older epoch may yet bring back what it does not see now.
            None if report.complete && report.epoch >= epoch => true,
            None => continue,
        };
        if is_absent != (absent != 0) {
            sql("UPDATE fenced SET absent = $3 WHERE host = $1 AND instance_uid = $2")
                .bind(&report.host)
                .bind(text)
                .bind(is_absent)
                .run(&mut tx.conn)
                .await?;
        }
    }
    lease::release(tx, &report.host).await?;
    Ok(())
}

/// Deletes that the agent knew of before it said what it says now.
async fn deletes_told(conn: &mut AnyConnection, report: &Report) -> Result<BTreeSet<InstanceUid>> {
    let Some(synced) = report.synced else { return Ok(BTreeSet::new()) };
    let rows: Vec<Deleted> = sql("SELECT uid, delete_revision
                                  FROM instances
                                  WHERE host = $1 AND delete_revision IS NOT NULL")
    .bind(&report.host)
    .all(conn)
    .await?;
    rows.iter().filter(|row| row.delete_revision <= synced).map(|row| super::uid(&row.uid)).collect()
}

async fn placed_here(conn: &mut AnyConnection, report: &Report) -> Result<Vec<Instance>> {
    if report.complete {
        return super::on_host(conn, &report.host).await;
    }
    let uids: Vec<InstanceUid> = report.seen.keys().copied().collect();
    let mut found = Vec::new();
    for some in uids.chunks(256) {
        let rows: Vec<Row> =
            sql(select_instances!("WHERE host = $1 AND uid IN ")).bind(&report.host).list(some).all(conn).await?;
        for row in rows {
            found.push(row.try_into()?);
        }
    }
    Ok(found)
}

/// What the report says of this instance; `None`: nothing that counts.
fn truth(instance: &Instance, report: &Report, delete_told: bool) -> Option<Observed> {
    let known = instance.status.observed.as_ref();
    let deleting = is_buried(instance);
    let Some(seen) = report.seen.get(&instance.uid) else {
        return match known {
            _ if !report.complete => None,
            _ if deleting => delete_told.then(|| absent(instance)),
            // Never seen, and not there: nothing new.
            None => None,
            Some(known) if known.phase == Phase::Absent => None,
            Some(_) => Some(absent(instance)),
        };
    };
    let nothing = seen.phase == Phase::Absent;
    if deleting && nothing {
        let proven = delete_told || seen.generation == 0 || seen.generation >= instance.meta.generation;
        return proven.then(|| seen.clone());
    }
    // An agent without a desired object (generation 0) can say that nothing is there, and no more than that.
    let older = known.is_some_and(|known| seen.generation < known.generation) && !(nothing && seen.generation == 0);
    (!older).then(|| seen.clone())
}

/// Nothing is there any more; what was is kept as far as it is history.
fn absent(instance: &Instance) -> Observed {
    let blank = Observed {
        generation: 0,
        phase: Phase::Absent,
        reason: String::new(),
        message: String::new(),
        conditions: Vec::new(),
        addresses: Vec::new(),
        exit: None,
        start_time: None,
        restart_count: 0,
        power_generation: 0,
        reboot_generation: 0,
        reset_generation: 0,
        disk_generation: 0,
        attached_devices: Vec::new(),
        released_devices: Vec::new(),
    };
    match &instance.status.observed {
        None => blank,
        Some(known) => Observed {
            generation: known.generation,
            exit: known.exit.clone(),
            restart_count: known.restart_count,
            power_generation: known.power_generation,
            reboot_generation: known.reboot_generation,
            reset_generation: known.reset_generation,
            disk_generation: known.disk_generation,
            ..blank
        },
    }
}
