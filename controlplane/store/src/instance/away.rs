//! Without a host: because it was fenced, or because an instance that is to be rebuilt elsewhere has left it.

use croft_core::Result;
use croft_core::event::Severity;
use croft_core::instance::Instance;
use croft_core::join::machine::tell_power;

use super::settle::settle;
use super::{Settled, charged, write, write_spec};
use crate::event::reason;
use crate::host::claimed;
use crate::sql::sql;
use crate::tx::Tx;

/// Nothing of it is left on its host, by the host's own word after it was told: claims and charges of devices go in the commit
/// that says so, and it looks for another host, or is off without one.
pub(super) async fn let_go(tx: &mut Tx, mut instance: Instance) -> Result<()> {
    let uid = instance.uid;
    claimed::give_back(&mut tx.conn, &[uid]).await?;
    charged::give_back_devices(&mut tx.conn, &[uid]).await?;
    sql("UPDATE instances SET delete_revision = NULL WHERE uid = $1").bind(uid).run(&mut tx.conn).await?;
    let left = instance.host().map(ToString::to_string).unwrap_or_default();
    leave(tx, &mut instance).await?;
    (instance.status.reason, instance.status.message) = (String::new(), format!("has left hosts/{left}"));
    write(&mut tx.conn, &instance, Settled::No).await?;
    tx.instance_written(&instance, false);
    let message = format!("has left hosts/{left}, and is rebuilt on another host");
    tx.event(Some(&instance.tenant), &instance.name(), reason::INSTANCE_MOVED, &message, Severity::Info);
    settle(tx, vec![uid]).await.map(drop)
}

/// What was known of it there is history; a device that was to leave has left.
pub(crate) async fn leave(tx: &mut Tx, instance: &mut Instance) -> Result<()> {
    instance.placement = None;
    tell_power(instance);
    if !instance.intent.detaching.is_empty() {
        // Off is out of the guest.
        instance.spec.devices.retain(|request| !instance.intent.detaching.contains_key(&request.id));
        instance.intent.detaching.clear();
        write_spec(&mut tx.conn, instance).await?;
    }
    instance.status.observed = None;
    instance.status.observed_time = None;
    Ok(())
}
