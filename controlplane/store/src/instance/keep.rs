//! A node that is not well: whether its machine is restarted is decided, over all nodes of its cluster, in the commit that does
//! it. So two who look at once spend no more of a budget than one.

use croft_core::Result;
use croft_core::event::Severity;
use croft_core::id::InstanceUid;
use croft_core::instance::Instance;
use croft_core::join::keep::{self, Kept, Sight, Verdict};
use croft_core::join::machine::tell_power;

use super::{Row, Settled, select_instances};
use crate::event::reason;
use crate::open::Store;
use crate::sql::sql;
use crate::tx::Tx;

impl Store {
    /// `sight`: since when the cluster has answered for each of them. `None`: it is not due, or not any more.
    pub async fn instance_node_restart(
        &self,
        cluster_uid: &str,
        uid: InstanceUid,
        sight: Sight,
    ) -> Result<Option<Instance>> {
        let cluster_uid = cluster_uid.to_owned();
        self.transaction(move |tx| Box::pin(restart(tx, cluster_uid, uid, sight))).await
    }
}

async fn restart(tx: &mut Tx, cluster_uid: String, uid: InstanceUid, sight: Sight) -> Result<Option<Instance>> {
    let rows: Vec<Row> = sql(select_instances!("WHERE cluster_uid = $1")).bind(cluster_uid).all(&mut tx.conn).await?;
    let fleet = rows.into_iter().map(TryInto::try_into).collect::<Result<Vec<Instance>>>()?;
    let kept: Vec<Kept<'_>> = fleet.iter().filter_map(Kept::of).collect();
    if keep::look(&kept, &sight, tx.now).get(&uid) != Some(&Verdict::Restart) {
        return Ok(None);
    }
    let Some(mut instance) = fleet.into_iter().find(|one| one.uid == uid) else { return Ok(None) };
    let words = instance.node.as_ref().map(|node| keep::words(node, tx.now)).unwrap_or_default();
    keep::restart(&mut instance, tx.now);
    tell_power(&mut instance);
    super::write(&mut tx.conn, &instance, Settled::No).await?;
    tx.instance_written(&instance, false);
    tx.event(Some(&instance.tenant), &instance.name(), reason::NODE_RESTARTED, &words, Severity::Warning);
    Ok(Some(instance))
}
