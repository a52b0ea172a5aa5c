//! Hosts: the rows, and what operators do to them.

pub(crate) mod claimed;
pub(crate) mod desired;
pub(crate) mod enrol;
pub(crate) mod fence;
pub(crate) mod layout;
pub(crate) mod lease;
pub(crate) mod maintenance;
pub(crate) mod report;
pub(crate) mod view;

use std::collections::BTreeMap;

use croft_core::audit::Call;
use croft_core::event::Severity;
use croft_core::host::{Host, Resources, State};
use croft_core::id::HostId;
use croft_core::meta::Labels;
use croft_core::placement::view::Claim;
use croft_core::{Error, Reason, Result, Timestamp};
use sqlx::AnyConnection;

use crate::call::{About, Done};
use crate::column::{from_json, to_json, wrong};
use crate::event::reason;
use crate::meta::MetaRow;
use crate::open::Store;
use crate::page::Page;
use crate::sql::sql;

#[derive(sqlx::FromRow)]
pub(crate) struct Row {
    #[sqlx(flatten)]
    meta: MetaRow,
    id: String,
    state: String,
    cordoned: i64,
    maintenance: Option<String>,
    epoch: i64,
    lease_expire_time: Option<i64>,
    capacity: String,
    claimed_vcpus: i64,
    claimed_memory_mib: i64,
    claimed_disk_gib: i64,
    foreign_resources: String,
    reserve: String,
    overhead_memory_mib: i64,
    cpu_overcommit_percent: i64,
    info: String,
    features: String,
    conditions: String,
    pub(crate) boot_id: String,
    pub(crate) devices_boot_id: String,
    pub(crate) version: i64,
}

/// All of a host's row, and the rest of the statement.
macro_rules! select_hosts {
    ($tail:literal) => {
        concat!(
            "SELECT id, uid, generation, labels, annotations, create_time, update_time, state, cordoned,
                    maintenance, epoch, lease_expire_time, capacity, claimed_vcpus, claimed_memory_mib, claimed_disk_gib,
                    foreign_resources, reserve, overhead_memory_mib, cpu_overcommit_percent, info, features,
                    conditions, boot_id, devices_boot_id, version
             FROM hosts ",
            $tail
        )
    };
}
pub(crate) use select_hosts;

impl TryFrom<Row> for Host {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: HostId(row.id),
            meta: row.meta.read("hosts")?,
            state: state(&row.state)?,
            cordoned: row.cordoned != 0,
            maintenance: row.maintenance.map(|text| from_json(&text, "hosts.maintenance")).transpose()?,
            epoch: row.epoch,
            lease_expire_time: row.lease_expire_time.map(Timestamp),
            capacity: from_json(&row.capacity, "hosts.capacity")?,
            claimed: Resources {
                vcpus: row.claimed_vcpus,
                memory_mib: row.claimed_memory_mib,
                disk_gib: row.claimed_disk_gib,
            },
            foreign: from_json(&row.foreign_resources, "hosts.foreign_resources")?,
            reserve: from_json(&row.reserve, "hosts.reserve")?,
            overhead_memory_mib: row.overhead_memory_mib,
            cpu_overcommit_percent: row.cpu_overcommit_percent,
            info: from_json(&row.info, "hosts.info")?,
            features: from_json(&row.features, "hosts.features")?,
            conditions: from_json(&row.conditions, "hosts.conditions")?,
        })
    }
}

pub(crate) fn state(word: &str) -> Result<State> {
    State::parse(word).ok_or_else(|| wrong("hosts.state", word))
}

/// Everything that a claim takes of a host, dedicated CPUs and huge pages too: what the host's row shows as claimed.
pub(crate) fn total(claim: &Claim) -> Resources {
    let dedicated = i64::try_from(claim.dedicated.len()).unwrap_or(i64::MAX);
    let huge: i64 = claim.huge.iter().map(|(_, _, mib)| mib).sum();
    claim.shared + Resources { vcpus: dedicated, memory_mib: huge, disk_gib: 0 }
}

pub(crate) async fn row(conn: &mut AnyConnection, id: &HostId) -> Result<Option<Row>> {
    sql(select_hosts!("WHERE id = $1")).bind(id).optional(conn).await
}

pub(crate) async fn get(conn: &mut AnyConnection, id: &HostId) -> Result<Option<Host>> {
    row(conn, id).await?.map(TryInto::try_into).transpose()
}

pub(crate) async fn require(conn: &mut AnyConnection, id: &HostId) -> Result<Host> {
    get(conn, id).await?.ok_or_else(|| Error::not_found(format!("hosts/{id}")))
}

/// Labels of every host.
pub(crate) async fn labels(conn: &mut AnyConnection) -> Result<BTreeMap<HostId, Labels>> {
    let rows: Vec<(String, String)> = sql("SELECT id, labels FROM hosts").all(conn).await?;
    rows.into_iter().map(|(id, labels)| Ok((HostId(id), from_json(&labels, "hosts.labels")?))).collect()
}

/// Placement has to look at it again.
pub(crate) async fn moved(conn: &mut AnyConnection, id: &HostId) -> Result<()> {
    sql("UPDATE hosts SET version = version + 1 WHERE id = $1").bind(id).run(conn).await?;
    Ok(())
}

/// What operators set, and the version that placement goes by.
async fn write(conn: &mut AnyConnection, host: &Host) -> Result<()> {
    sql("UPDATE hosts
         SET generation = $2, labels = $3, annotations = $4, update_time = $5, cordoned = $6, reserve = $7,
             overhead_memory_mib = $8, cpu_overcommit_percent = $9, version = version + 1
         WHERE id = $1")
    .bind(&host.id)
    .bind(host.meta.generation)
    .bind(to_json(&host.meta.labels)?)
    .bind(to_json(&host.meta.annotations)?)
    .bind(host.meta.update_time)
    .bind(host.cordoned)
    .bind(to_json(&host.reserve)?)
    .bind(host.overhead_memory_mib)
    .bind(host.cpu_overcommit_percent)
    .run(conn)
    .await?;
    Ok(())
}

impl Store {
    pub async fn host_get(&self, id: &HostId) -> Result<Option<Host>> {
        get(&mut *self.reader().await?, id).await
    }

    async fn host_now(&self, done: Done<Host>) -> Result<Done<Host>> {
        if let Done::Replayed(then) = &done
            && let Some(now) = self.host_get(&then.id).await?.filter(|now| now.meta.uid == then.meta.uid)
        {
            return Ok(Done::Replayed(now));
        }
        Ok(done)
    }

    /// By id.
    pub async fn host_list(&self, page: &Page) -> Result<(Vec<Host>, Option<String>)> {
        let after = page.after::<1>("hosts")?.map(|[id]| id).unwrap_or_default();
        let mut rows: Vec<Row> = sql(select_hosts!("WHERE id > $1 ORDER BY id LIMIT $2"))
            .bind(after)
            .bind(page.fetch())
            .all(&mut *self.reader().await?)
            .await?;
        let next = page.cut("hosts", &mut rows, |row| [row.id.clone()]);
        Ok((rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?, next))
    }

    /// By id.
    pub async fn host_all(&self) -> Result<Vec<Host>> {
        let rows: Vec<Row> = sql(select_hosts!("ORDER BY id")).all(&mut *self.reader().await?).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Of what `change` does, labels, annotations, reserve, overhead and overcommit count.
    pub async fn host_update(
        &self,
        call: &Call,
        id: &HostId,
        etag: &str,
        change: impl FnOnce(&mut Host) -> Result<()> + Send + 'static,
    ) -> Result<Done<Host>> {
        let (id, etag) = (id.clone(), etag.to_owned());
        let done = self
            .mutate(call, About::platform(format!("hosts/{id}")), move |tx| {
                Box::pin(async move {
                    let before = require(&mut tx.conn, &id).await?;
                    before.meta.check_etag(&etag, &before.name())?;
                    let mut host = before.clone();
                    change(&mut host)?;
                    host.cordoned = before.cordoned;
                    host.meta.generation += 1;
                    host.meta.update_time = tx.now;
                    write(&mut tx.conn, &host).await?;
                    Ok(host)
                })
            })
            .await?;
        self.host_now(done).await
    }

    /// Cordoned: nothing new is placed there; what runs goes on.
    pub async fn host_cordon(&self, call: &Call, id: &HostId, cordoned: bool) -> Result<Done<Host>> {
        let id = id.clone();
        let done = self
            .mutate(call, About::platform(format!("hosts/{id}")), move |tx| {
                Box::pin(async move {
                    let mut host = require(&mut tx.conn, &id).await?;
                    if !cordoned {
                        maintenance::check_none(&host)?;
                    }
                    if host.cordoned == cordoned {
                        return Ok(host);
                    }
                    host.cordoned = cordoned;
                    host.meta.generation += 1;
                    host.meta.update_time = tx.now;
                    write(&mut tx.conn, &host).await?;
                    let (reason, message) = match cordoned {
                        true => (reason::HOST_CORDONED, "nothing new is placed here"),
                        false => (reason::HOST_UNCORDONED, "placed on again"),
                    };
                    tx.event(None, &host.name(), reason, message, Severity::Info);
                    Ok(host)
                })
            })
            .await?;
        self.host_now(done).await
    }

    /// Forgets a host without instances. What was fenced there, and its epoch, are remembered: a host of the same id
    /// that comes later is still told.
    pub async fn host_delete(&self, call: &Call, id: &HostId, etag: &str) -> Result<()> {
        let (host_id, etag) = (id.clone(), etag.to_owned());
        self.mutate(call, About::platform(format!("hosts/{id}")), move |tx| {
            Box::pin(async move {
                let id = host_id;
                let host = require(&mut tx.conn, &id).await?;
                host.meta.check_etag(&etag, &host.name())?;
                check_empty(&mut tx.conn, &host).await?;
                sql("INSERT INTO former_hosts (id, epoch)
                     VALUES ($1, $2)
                     ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch")
                .bind(&id)
                .bind(host.epoch)
                .run(&mut tx.conn)
                .await?;
                sql("DELETE FROM enrolment_tokens WHERE host = $1").bind(&id).run(&mut tx.conn).await?;
                sql("DELETE FROM hosts WHERE id = $1").bind(&id).run(&mut tx.conn).await?;
                tx.event(
                    None,
                    &host.name(),
                    reason::HOST_DELETED,
                    "its certificate is refused from now on",
                    Severity::Info,
                );
                Ok(())
            })
        })
        .await?;
        if !call.validate_only {
            self.inner.synced().remove(id);
        }
        Ok(())
    }
}

async fn check_empty(conn: &mut AnyConnection, host: &Host) -> Result<()> {
    let instances = sql("SELECT COUNT(*) FROM instances WHERE host = $1").bind(&host.id).number(conn).await?;
    if instances == 0 {
        return Ok(());
    }
    let message = format!(
        "{} holds {instances} instances; delete these first, or fence it if it is off for certain",
        host.name()
    );
    Err(Error::precondition(Reason::HostNotEmpty, host.name(), message))
}
