//! Leases: READY while heard from, UNREACHABLE when not. Neither releases anything.

use croft_core::Result;
use croft_core::Timestamp;
use croft_core::event::Severity;
use croft_core::host::{Capacity, State};
use croft_core::id::HostId;

use crate::column::to_json;
use crate::event::reason;
use crate::open::Store;
use crate::sql::sql;
use crate::tx::Tx;

/// Hosts a statement.
const CHUNK: usize = 4096;

/// Those of a statement that returns ids.
type Ids = Vec<(String,)>;

fn ready(tx: &mut Tx, id: &HostId, message: &str) {
    tx.event(None, &format!("hosts/{id}"), reason::HOST_READY, message, Severity::Info);
}

/// FENCED to READY, once the agent has journaled the epoch and found nothing left of what was fenced. A host that never
/// said what it has, because it was fenced before its first report, is ENROLLED: that report makes it READY.
pub(crate) async fn release(tx: &mut Tx, id: &HostId) -> Result<()> {
    let released: Option<(String,)> = sql("UPDATE hosts
                                           SET state = CASE WHEN capacity = $2 THEN 'ENROLLED' ELSE 'READY' END,
                                               version = version + 1
                                           WHERE id = $1
                                             AND state = 'FENCED'
                                             AND confirmed_epoch = epoch
                                             AND NOT EXISTS (SELECT 1 FROM fenced WHERE host = $1 AND absent = 0)
                                           RETURNING state")
    .bind(id)
    .bind(to_json(&Capacity::default())?)
    .optional(&mut tx.conn)
    .await?;
    let Some((state,)) = released else { return Ok(()) };
    sql("DELETE FROM fenced WHERE host = $1").bind(id).run(&mut tx.conn).await?;
    if state == State::Ready.as_str() {
        ready(tx, id, "came back, and destroyed what was fenced");
    }
    Ok(())
}

/// ENROLLED to READY, with a lease, so that it does not end before it is first renewed.
pub(super) async fn begin(tx: &mut Tx, id: &HostId, until: Timestamp) -> Result<()> {
    sql("UPDATE hosts
         SET state = 'READY', lease_expire_time = $2, version = version + 1
         WHERE id = $1")
    .bind(id)
    .bind(until)
    .run(&mut tx.conn)
    .await?;
    ready(tx, id, "has said what it has");
    Ok(())
}

impl Store {
    /// One commit for all that were heard from. Returns those that became READY by it.
    pub async fn host_lease_renew(&self, hosts: &[HostId], until: Timestamp) -> Result<Vec<HostId>> {
        if hosts.is_empty() {
            return Ok(Vec::new());
        }
        let hosts = hosts.to_vec();
        self.transaction(move |tx| {
            Box::pin(async move {
                let mut back = Vec::new();
                for some in hosts.chunks(CHUNK) {
                    let ids: Ids = sql("UPDATE hosts
                                        SET state = 'READY', version = version + 1
                                        WHERE state = 'UNREACHABLE'
                                          AND id IN ")
                    .list(some)
                    .push(" RETURNING id")
                    .all(&mut tx.conn)
                    .await?;
                    back.extend(ids.into_iter().map(|(id,)| HostId(id)));
                    sql("UPDATE hosts
                         SET lease_expire_time = $1
                         WHERE id IN ")
                    .bind(until)
                    .list(some)
                    .run(&mut tx.conn)
                    .await?;
                }
                for id in &back {
                    ready(tx, id, "is heard from");
                }
                Ok(back)
            })
        })
        .await
    }

    /// Every lease that runs runs until then, whatever it said: what was written by another clock means nothing.
    pub async fn host_lease_anew(&self, until: Timestamp) -> Result<()> {
        self.transaction(move |tx| {
            Box::pin(async move {
                sql("UPDATE hosts
                     SET lease_expire_time = $1
                     WHERE state = 'READY'")
                .bind(until)
                .run(&mut tx.conn)
                .await
            })
        })
        .await
        .map(drop)
    }

    /// Returns those whose lease was over at `now`.
    pub async fn host_lease_expire(&self, now: Timestamp) -> Result<Vec<HostId>> {
        let over = sql("SELECT 1 AS found
                        FROM hosts
                        WHERE state = $1 AND (lease_expire_time IS NULL OR lease_expire_time <= $2)
                        LIMIT 1")
        .bind(State::Ready.as_str())
        .bind(now)
        .any(&mut *self.reader().await?)
        .await?;
        if !over {
            return Ok(Vec::new());
        }
        self.transaction(move |tx| {
            Box::pin(async move {
                let gone: Ids = sql("UPDATE hosts
                                     SET state = 'UNREACHABLE', version = version + 1
                                     WHERE state = 'READY' AND (lease_expire_time IS NULL OR lease_expire_time <= $1)
                                     RETURNING id")
                .bind(now)
                .all(&mut tx.conn)
                .await?;
                let gone: Vec<HostId> = gone.into_iter().map(|(id,)| HostId(id)).collect();
                for id in &gone {
                    let message = "is not heard from; its instances may well be running";
                    tx.event(None, &format!("hosts/{id}"), reason::HOST_UNREACHABLE, message, Severity::Warning);
                }
                Ok(gone)
            })
        })
        .await
    }

    /// The agent has journaled `epoch`, and with it every tombstone of that epoch. An older one is ignored.
    pub async fn host_epoch_confirmed(&self, id: &HostId, epoch: i64) -> Result<()> {
        let news = sql("SELECT 1 AS found FROM hosts WHERE id = $1 AND epoch = $2 AND confirmed_epoch < $2")
            .bind(id)
            .bind(epoch)
            .any(&mut *self.reader().await?)
            .await?;
        if !news {
            return Ok(());
        }
        let id = id.clone();
        self.transaction(move |tx| {
            Box::pin(async move {
                sql("UPDATE hosts
                     SET confirmed_epoch = $2
                     WHERE id = $1 AND epoch = $2")
                .bind(&id)
                .bind(epoch)
                .run(&mut tx.conn)
                .await?;
                release(tx, &id).await
            })
        })
        .await
    }

    /// The agent's `SyncDone`: it knows all that was desired of it at `revision`. The session calls this for each one,
    /// in the order of the stream and before it passes on the observations that follow. Kept in memory. Only an ABSENT
    /// (or, in a complete report, a missing line) that comes after the delete was synced, or that has generation 0,
    /// lets an instance that is being deleted go: one that was sent before the tombstone arrived proves nothing.
    pub fn host_synced(&self, id: &HostId, epoch: i64, revision: i64) {
        self.inner.synced().insert(id.clone(), (epoch, revision));
    }
}
