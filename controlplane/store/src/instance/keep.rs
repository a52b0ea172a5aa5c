//! A node that is not well: what is done about its machine is decided, over all nodes of its cluster, in the commit that does it.
//! So two who look at once spend no more of a budget than one.

use croft_core::Result;
use croft_core::event::Severity;
use croft_core::id::InstanceUid;
use croft_core::instance::Instance;
use croft_core::join::keep::{self, Kept, Remedy, Sight, Verdict};
use croft_core::join::machine::tell_power;

use super::{Row, Settled, select_instances};
use crate::event::reason;
use crate::open::Store;
use crate::sql::sql;
use crate::tx::Tx;

impl Store {
    /// `sight`: since when the cluster has answered for each of them. `most`: no higher remedy, whatever is due. `None`: it is not
    /// due, or not any more.
    pub async fn instance_node_remedy(
        &self,
        cluster_uid: &str,
        uid: InstanceUid,
        sight: Sight,
        most: Remedy,
    ) -> Result<Option<(Instance, Remedy)>> {
        let cluster_uid = cluster_uid.to_owned();
        self.transaction(move |tx| Box::pin(remedy(tx, cluster_uid, uid, sight, most))).await
    }
}

async fn remedy(
    tx: &mut Tx,
    cluster_uid: String,
    uid: InstanceUid,
    sight: Sight,
    most: Remedy,
) -> Result<Option<(Instance, Remedy)>> {
    let rows: Vec<Row> = sql(select_instances!("WHERE cluster_uid = $1")).bind(cluster_uid).all(&mut tx.conn).await?;
    let fleet = rows.into_iter().map(TryInto::try_into).collect::<Result<Vec<Instance>>>()?;
    let kept: Vec<Kept<'_>> = fleet.iter().filter_map(Kept::of).collect();
    let Some(Verdict::Do(due)) = keep::look(&kept, &sight, tx.now).get(&uid).copied() else { return Ok(None) };
    let Some(mut instance) = fleet.iter().find(|one| one.uid == uid).cloned() else { return Ok(None) };
    let mut remedy = due.min(most);
    if remedy > Remedy::Restart && super::command::check_rebuild(tx, &instance).await.is_err() {
        remedy = Remedy::Restart;
    }
    let words = instance.node.as_ref().map(|node| keep::words(node, remedy, tx.now)).unwrap_or_default();
    keep::apply(&mut instance, remedy, tx.now);
    tell_power(&mut instance);
    super::write(&mut tx.conn, &instance, Settled::No).await?;
    tx.instance_written(&instance, false);
    let reason = match remedy {
        Remedy::Restart => reason::NODE_RESTARTED,
        Remedy::Rebuild | Remedy::Replace => reason::NODE_REBUILT,
    };
    tx.event(Some(&instance.tenant), &instance.name(), reason, &words, Severity::Warning);
    Ok(Some((instance, remedy)))
}
