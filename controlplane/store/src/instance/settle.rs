//! From intent and truth to a state, as [`croft_core::instance::machine`] decides it, and what follows from it:
//! finished operations, events, and at the end everything given back.
//!
//! Level-triggered: each look reads everything again, and writes only what differs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use croft_core::event::Severity;
use croft_core::id::{HostId, InstanceUid};
use croft_core::instance::machine::{self, Named, Settlement, Verdict};
use croft_core::instance::{Instance, State};
use croft_core::operation::Operation;
use croft_core::{Result, host};
use sqlx::AnyConnection;

use super::{Settled as Looked, gone};
use crate::event::reason;
use crate::open::Store;
use crate::operation;
use crate::sql::sql;
use crate::tx::Tx;

/// What came of one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    pub uid: InstanceUid,
    pub before: State,
    /// `None`: gone.
    pub after: Option<State>,
    /// In `before`, until now.
    pub spent: Duration,
    pub needs_place: bool,
}

impl Store {
    /// An answer for each of them that exists.
    pub async fn instance_settle(&self, uids: Vec<InstanceUid>) -> Result<Vec<Settled>> {
        self.transaction(move |tx| Box::pin(settle(tx, uids))).await
    }
}

pub(crate) async fn settle(tx: &mut Tx, uids: Vec<InstanceUid>) -> Result<Vec<Settled>> {
    let uids: Vec<InstanceUid> = uids.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    let mut settled = Vec::with_capacity(uids.len());
    for some in uids.chunks(256) {
        let instances = super::by_uids(&mut tx.conn, some).await?;
        let hosts = host_states(&mut tx.conn, &instances).await?;
        let mut open: HashMap<InstanceUid, Vec<Operation>> = HashMap::new();
        for operation in operation::open(&mut tx.conn, some).await? {
            open.entry(operation.target_uid).or_default().push(operation);
        }
        let mut ended = Vec::new();
        for instance in instances {
            let host = instance.host().and_then(|id| hosts.get(id)).copied();
            let open = open.remove(&instance.uid).unwrap_or_default();
            let settlement = machine::settle(&instance, host, &open);
            let spent = tx.now.since(instance.status.state_time);
            let (uid, before) = (instance.uid, instance.status.state);
            finish(tx, &instance, &settlement, &open).await?;
            let after = match settlement.verdict {
                Verdict::Gone => {
                    ended.push(instance);
                    None
                }
                Verdict::Is(named) => {
                    let state = named.state;
                    enter(tx, instance, named).await?;
                    Some(state)
                }
            };
            settled.push(Settled { uid, before, after, spent, needs_place: after == Some(State::Placing) });
        }
        gone::remove(&mut tx.conn, &ended.iter().collect::<Vec<_>>()).await?;
        for instance in &ended {
            tx.instance_removed(instance);
            let message = "nothing of it is left; its charges are given back";
            tx.event(Some(&instance.tenant), &instance.name(), reason::INSTANCE_DELETED, message, Severity::Info);
        }
    }
    Ok(settled)
}

async fn host_states(conn: &mut AnyConnection, instances: &[Instance]) -> Result<BTreeMap<HostId, host::State>> {
    let hosts: Vec<&HostId> =
        instances.iter().filter_map(Instance::host).collect::<BTreeSet<_>>().into_iter().collect();
    if hosts.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows: Vec<(String, String)> = sql("SELECT id, state FROM hosts WHERE id IN ").list(&hosts).all(conn).await?;
    rows.into_iter().map(|(id, word)| Ok((HostId(id), crate::host::state(&word)?))).collect()
}

/// Ends what is done; lets the rest say what it waits for.
async fn finish(tx: &mut Tx, instance: &Instance, settlement: &Settlement, open: &[Operation]) -> Result<()> {
    for (operation, failure) in &settlement.finished {
        operation::finish(&mut tx.conn, operation.uid, failure.as_ref(), tx.now).await?;
        tx.announce();
    }
    let Verdict::Is(named) = &settlement.verdict else { return Ok(()) };
    let progress = match machine::waits_for_node(instance).filter(|_| named.state == State::Running) {
        Some(node) => operation::waiting(named.state, &node),
        None => operation::waiting(named.state, &named.message),
    };
    let waits = |operation: &&Operation| settlement.finished.iter().all(|(done, _)| done.uid != operation.uid);
    for operation in open.iter().filter(waits).filter(|operation| operation.progress != progress) {
        operation::progress(&mut tx.conn, operation.uid, &progress).await?;
        tx.announce();
    }
    Ok(())
}

async fn enter(tx: &mut Tx, mut instance: Instance, named: Named) -> Result<()> {
    let status = &mut instance.status;
    let moved = status.state != named.state;
    if !moved && status.reason == named.reason && status.message == named.message {
        sql("UPDATE instances
             SET settled = 1
             WHERE uid = $1 AND settled = 0")
        .bind(instance.uid)
        .run(&mut tx.conn)
        .await?;
        return Ok(());
    }
    // A fault that turns into another one is news, too.
    let tells = moved || (severity(named.state) == Severity::Warning && status.reason != named.reason);
    if moved {
        status.state_time = tx.now;
        tx.enters(named.state);
    }
    Named { state: status.state, reason: status.reason, message: status.message } = named;
    super::write(&mut tx.conn, &instance, Looked::Yes).await?;
    tx.instance_written(&instance, false);
    if tells {
        let Instance { tenant, status, .. } = &instance;
        let message = match (status.reason.as_str(), status.message.as_str()) {
            ("", message) => message.to_owned(),
            (reason, "") => reason.to_owned(),
            (reason, message) => format!("{reason}: {message}"),
        };
        tx.event(Some(tenant), &instance.name(), event_of(status.state), &message, severity(status.state));
    }
    Ok(())
}

fn severity(state: State) -> Severity {
    match state {
        State::Failed | State::Unknown => Severity::Warning,
        State::Pending
        | State::Placing
        | State::Preparing
        | State::Starting
        | State::Running
        | State::Stopping
        | State::Stopped
        | State::Deleting => Severity::Info,
    }
}

fn event_of(state: State) -> &'static str {
    match state {
        State::Pending => reason::INSTANCE_PENDING,
        State::Placing => reason::INSTANCE_PLACING,
        State::Preparing => reason::INSTANCE_PREPARING,
        State::Starting => reason::INSTANCE_STARTING,
        State::Running => reason::INSTANCE_RUNNING,
        State::Stopping => reason::INSTANCE_STOPPING,
        State::Stopped => reason::INSTANCE_STOPPED,
        State::Deleting => reason::INSTANCE_DELETING,
        State::Failed => reason::INSTANCE_FAILED,
        State::Unknown => reason::INSTANCE_UNKNOWN,
    }
}
