//! Fencing: an operator says that a machine is off for certain. Everything that ran there is let go of, in one commit.
//!
//! What was there stays a tombstone for that host: should it come back, its agent destroys it before the host counts.

use croft_core::audit::Call;
use croft_core::event::Severity;
use croft_core::host::{Host, State};
use croft_core::id::{HostId, InstanceUid};
use croft_core::instance::Instance;
use croft_core::join::machine::tell_power;
use croft_core::{Reason, Result};

use super::claimed;
use crate::call::{About, Done};
use crate::event::reason;
use crate::instance::{self, Settled};
use crate::open::Store;
use crate::sql::{insert, sql};
use crate::tx::Tx;

impl Store {
    /// A host that is fenced already stays as it is.
    pub async fn host_fence(&self, call: &Call, id: &HostId) -> Result<Done<Host>> {
        let (host, id) = (id.clone(), id.clone());
        let done = self
            .mutate(call, About::platform(format!("hosts/{id}")), move |tx| {
                Box::pin(async move {
                    let host = super::require(&mut tx.conn, &id).await?;
                    if host.state == State::Fenced {
                        return Ok(host);
                    }
                    let instances = instance::on_host(&mut tx.conn, &id).await?;
                    bury(tx, &id, &instances).await?;
                    for instance in &instances {
                        let_go(tx, &host, instance.clone()).await?;
                    }
                    instance::settle::settle(tx, instances.iter().map(|instance| instance.uid).collect()).await?;
                    sql("UPDATE hosts
                         SET state = 'FENCED', epoch = epoch + 1, lease_expire_time = NULL, version = version + 1
                         WHERE id = $1")
                    .bind(&id)
                    .run(&mut tx.conn)
                    .await?;
                    let message = format!("said to be off; {} instances let go of", instances.len());
                    tx.event(None, &host.name(), reason::HOST_FENCED, &message, Severity::Warning);
                    super::require(&mut tx.conn, &id).await
                })
            })
            .await?;
        if !call.validate_only {
            self.inner.synced().remove(&host);
        }
        self.host_now(done).await
    }
}

async fn bury(tx: &mut Tx, host: &HostId, instances: &[Instance]) -> Result<()> {
    let uids: Vec<InstanceUid> = instances.iter().map(|instance| instance.uid).collect();
    let now = tx.now;
    insert(
        &mut tx.conn,
        "INSERT INTO fenced (host, instance_uid, absent, create_time)",
        " ON CONFLICT (host, instance_uid) DO UPDATE SET absent = 0",
        &uids,
        |row, uid| row.cell(host).cell(*uid).cell(0).cell(now),
    )
    .await?;
    for some in uids.chunks(500) {
        claimed::give_back(&mut tx.conn, some).await?;
        instance::charged::give_back_devices(&mut tx.conn, some).await?;
    }
    Ok(())
}

/// Its devices are off with the host: their charges went with their claims. Those of its shape stay.
///
/// Without a host it is placed anew, stays stopped, or is gone. It is settled in this same commit, so that nobody ever
/// reads of an instance that runs nowhere.
async fn let_go(tx: &mut Tx, host: &Host, mut instance: Instance) -> Result<()> {
    instance.placement = None;
    if let Some(node) = &mut instance.node {
        node.lose(tx.now);
    }
    tell_power(&mut instance);
    if !instance.intent.detaching.is_empty() {
        // Off is out of the guest.
        instance.spec.devices.retain(|request| !instance.intent.detaching.contains_key(&request.id));
        instance.intent.detaching.clear();
        instance::write_spec(&mut tx.conn, &instance).await?;
    }
    instance.status.observed = None;
    instance.status.observed_time = None;
    instance.status.reason = Reason::HostFenced.as_str().to_owned();
    instance.status.message = format!("{} was fenced while it was there", host.name());
    instance::write(&mut tx.conn, &instance, Settled::No).await?;
    tx.instance_written(&instance, false);
    let message = instance.status.message.clone();
    tx.event(Some(&instance.tenant), &instance.name(), reason::INSTANCE_FENCED, &message, Severity::Warning);
    Ok(())
}
