//! Maintenance: a host is drained, found to be drained, and taken back. Each is one commit with everything that follows from it for
//! its instances, so that nobody ever reads of a host that is half under maintenance.
//!
//! What is done to an instance is decided by [`croft_core::maintenance`].

use croft_core::audit::Call;
use croft_core::event::Severity;
use croft_core::host::{Host, State};
use croft_core::id::HostId;
use croft_core::instance::Instance;
use croft_core::join::machine::tell_power;
use croft_core::maintenance::{self, Expected, Maintenance, Phase, Step, differences};
use croft_core::{Error, Reason, Result};
use sqlx::AnyConnection;

use crate::call::{About, Done};
use crate::column::to_json;
use crate::event::reason;
use crate::instance::{self, Settled};
use crate::open::Store;
use crate::sql::sql;
use crate::tx::Tx;
use crate::{crash, operation};

/// Differences that a refusal names.
const NAMED: usize = 10;

/// What an operator asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drain {
    pub why: String,
    /// What he was shown; `None`: whatever it is.
    pub expect: Option<Vec<Expected>>,
}

impl Store {
    /// What a drain does to each instance, or has still to do; by name.
    pub async fn host_drain_plan(&self, id: &HostId) -> Result<Vec<Step>> {
        let mut tx = self.snapshot().await?;
        let host = super::require(&mut tx, id).await?;
        Ok(maintenance::plan(host.state, &instance::on_host(&mut tx, id).await?))
    }

    pub async fn host_drain(&self, call: &Call, id: &HostId, drain: Drain) -> Result<Done<Host>> {
        let (id, actor) = (id.clone(), call.principal.actor());
        let done = self
            .mutate(call, About::platform(format!("hosts/{id}")), move |tx| {
                Box::pin(async move { begin(tx, &id, actor, drain).await })
            })
            .await?;
        self.host_now(done).await
    }

    /// Also in the middle of a drain. A host that is not under maintenance stays as it is.
    pub async fn host_undrain(&self, call: &Call, id: &HostId) -> Result<Done<Host>> {
        let id = id.clone();
        let done = self
            .mutate(call, About::platform(format!("hosts/{id}")), move |tx| Box::pin(async move { end(tx, &id).await }))
            .await?;
        self.host_now(done).await
    }

    /// Hosts on which something may still run although they are drained.
    pub async fn host_draining(&self) -> Result<Vec<HostId>> {
        let rows: Vec<super::Row> = sql(super::select_hosts!("WHERE maintenance IS NOT NULL ORDER BY id"))
            .all(&mut *self.reader().await?)
            .await?;
        let hosts = rows.into_iter().map(TryInto::try_into).collect::<Result<Vec<Host>>>()?;
        Ok(hosts.into_iter().filter(is_draining).map(|host| host.id).collect())
    }

    /// Looks whether nothing runs there any more. `true`: it is drained now, and was not before.
    pub async fn host_drained(&self, id: &HostId) -> Result<bool> {
        if !is_at_rest(&mut *self.snapshot().await?, id).await? {
            return Ok(false);
        }
        let id = id.clone();
        self.transaction(move |tx| Box::pin(async move { rest(tx, &id).await })).await
    }
}

fn is_draining(host: &Host) -> bool {
    host.maintenance.as_ref().is_some_and(|maintenance| maintenance.phase == Phase::Draining)
}

/// A call that would say nothing while a host is under maintenance is refused.
pub(super) fn check_none(host: &Host) -> Result<()> {
    let Some(maintenance) = &host.maintenance else { return Ok(()) };
    let message = format!(
        "{} is under maintenance ({}); `croft host undrain {}` ends it",
        host.name(),
        maintenance.words(),
        host.id
    );
    Err(Error::precondition(Reason::HostInMaintenance, host.name(), message))
}

/// Only a host that is heard from can say that something is off.
fn check_heard(host: &Host) -> Result<()> {
    let name = host.name();
    let (reason, message) = match host.state {
        State::Ready => return Ok(()),
        State::Enrolled => (
            Reason::HostUnreachable,
            format!(
                "{name} has not said yet what it has: nothing is on it. `croft host cordon {}` keeps it so",
                host.id
            ),
        ),
        State::Unreachable => (
            Reason::HostUnreachable,
            format!(
                "{name} is not heard from, so nothing there can be stopped. Bring its agent back; or, when the machine is off \
                 for certain, `croft host fence {}`",
                host.id
            ),
        ),
        State::Fenced => (
            Reason::HostFenced,
            format!("{name} is fenced: nothing is on it. `croft host cordon {}` keeps it so", host.id),
        ),
    };
    Err(Error::precondition(reason, name, message))
}

fn check_expected(host: &Host, expect: Option<&[Expected]>, instances: &[Instance]) -> Result<()> {
    let Some(shown) = expect else { return Ok(()) };
    let mut found = differences(shown, &maintenance::plan(host.state, instances));
    if found.is_empty() {
        return Ok(());
    }
    let more = found.len().saturating_sub(NAMED);
    found.truncate(NAMED);
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    let message = format!("{} is another way than the preview: {}{more}", host.name(), found.join("; "));
    Err(Error::precondition(Reason::DrainPlanChanged, host.name(), message))
}

async fn begin(tx: &mut Tx, id: &HostId, actor: String, drain: Drain) -> Result<Host> {
    let mut host = super::require(&mut tx.conn, id).await?;
    check_none(&host)?;
    check_heard(&host)?;
    let instances = instance::on_host(&mut tx.conn, id).await?;
    check_expected(&host, drain.expect.as_deref(), &instances)?;
    let maintenance = Maintenance::begin(actor, drain.why, tx.now);
    let message = format!("{}; {} instances are there", maintenance.words(), instances.len());
    tx.event(None, &host.name(), reason::HOST_DRAINING, &message, Severity::Info);
    for instance in instances.into_iter().filter(|instance| instance.meta.delete_time.is_none()) {
        change(tx, instance, |instance| maintenance::park(instance, &maintenance.why)).await?;
    }
    host.maintenance = Some(maintenance);
    tx.passes(crash::DRAIN);
    write(tx, host).await
}

async fn end(tx: &mut Tx, id: &HostId) -> Result<Host> {
    let mut host = super::require(&mut tx.conn, id).await?;
    if host.maintenance.take().is_none() {
        return Ok(host);
    }
    let mut starting = 0;
    for instance in instance::on_host(&mut tx.conn, id).await? {
        starting += usize::from(maintenance::resumes(&instance));
        if maintenance::parked(&instance).is_some() {
            change(tx, instance, maintenance::unpark).await?;
        }
    }
    let cordoned = if host.cordoned { "; it stays cordoned, as it was" } else { "" };
    let message = format!("its maintenance is over; {starting} instances are to run{cordoned}");
    tx.event(None, &host.name(), reason::HOST_UNDRAINED, &message, Severity::Info);
    tx.passes(crash::UNDRAIN);
    write(tx, host).await
}

async fn rest(tx: &mut Tx, id: &HostId) -> Result<bool> {
    let Some(mut host) = super::get(&mut tx.conn, id).await?.filter(is_draining) else { return Ok(false) };
    if !is_at_rest(&mut tx.conn, id).await? {
        return Ok(false);
    }
    if let Some(maintenance) = &mut host.maintenance {
        (maintenance.phase, maintenance.drained_time) = (Phase::Drained, Some(tx.now));
    }
    tx.event(None, &host.name(), reason::HOST_DRAINED, "nothing runs there any more", Severity::Info);
    tx.passes(crash::DRAINED);
    write(tx, host).await?;
    Ok(true)
}

async fn is_at_rest(conn: &mut AnyConnection, id: &HostId) -> Result<bool> {
    Ok(instance::on_host(conn, id).await?.iter().all(maintenance::is_still))
}

async fn change(tx: &mut Tx, mut instance: Instance, how: impl FnOnce(&mut Instance) -> i64) -> Result<()> {
    let rise = how(&mut instance);
    tell_power(&mut instance);
    if rise > 0 {
        // What waits for a start or a stop goes on waiting for it, under its new number.
        operation::raise_power(&mut tx.conn, instance.uid, rise).await?;
    }
    instance::write(&mut tx.conn, &instance, Settled::No).await?;
    tx.instance_written(&instance, false);
    Ok(())
}

/// Placement looks again: a claim that was decided before names an older version.
async fn write(tx: &mut Tx, mut host: Host) -> Result<Host> {
    host.meta.generation += 1;
    host.meta.update_time = tx.now;
    sql("UPDATE hosts
         SET maintenance = $2, generation = $3, update_time = $4, version = version + 1
         WHERE id = $1")
    .bind(&host.id)
    .bind(host.maintenance.as_ref().map(to_json).transpose()?)
    .bind(host.meta.generation)
    .bind(host.meta.update_time)
    .run(&mut tx.conn)
    .await?;
    Ok(host)
}
