//! What was seen of a cluster, and how it is opened.

use croft_core::cluster::{Cluster, Status, health};
use croft_core::condition::{Condition, ConditionStatus};
use croft_core::event::Severity;
use croft_core::join::cluster::Access;
use croft_core::{Error, Result};

use super::by_uid;
use crate::column::to_json;
use crate::event::reason;
use crate::open::Store;
use crate::secret;
use crate::sql::sql;
use crate::tx::Tx;

/// An event for each condition that turned.
pub(super) fn turn(tx: &mut Tx, before: &Cluster, after: &Status) {
    let name = before.name();
    for condition in health::turned(&before.status, after) {
        let severity = if condition.status == ConditionStatus::True { Severity::Info } else { Severity::Warning };
        tx.event(before.tenant.as_ref(), &name, reason::CLUSTER_CONDITION_CHANGED, &sentence(condition), severity);
    }
}

/// `Reachable is False: CLUSTER_UNREACHABLE: …`
fn sentence(condition: &Condition) -> String {
    let status = match condition.status {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown => "Unknown",
    };
    let said = [condition.reason.as_str(), condition.message.as_str()];
    let why: String = said.into_iter().filter(|part| !part.is_empty()).map(|part| format!(": {part}")).collect();
    format!("{} is {status}{why}", condition.kind)
}

impl Store {
    /// How Croft gets in; in clear.
    pub async fn cluster_access(&self, cluster: &Cluster) -> Result<Access> {
        if cluster.credential_digest.is_empty() {
            return Ok(Access::InCluster);
        }
        let found = secret::get(&mut *self.reader().await?, &self.inner.keys, &cluster.credential_digest).await?;
        let missing = || Error::internal(format!("the credential of {} is missing", cluster.name()));
        let text = String::from_utf8(found.ok_or_else(missing)?)
            .map_err(|_| Error::internal(format!("the credential of {} is no text", cluster.name())))?;
        Ok(match cluster.tenant {
            None => Access::Kubeconfig(text),
            Some(_) => Access::TenantsKubeconfig(text),
        })
    }

    /// Of a cluster that is gone, nothing is written. Changes no etag.
    pub async fn cluster_told(&self, uid: &str, status: Status) -> Result<()> {
        let uid = uid.to_owned();
        self.transaction(move |tx| {
            Box::pin(async move {
                let Some(cluster) = by_uid(&mut tx.conn, &uid).await?.filter(|cluster| cluster.status != status) else {
                    return Ok(());
                };
                turn(tx, &cluster, &status);
                sql("UPDATE clusters SET status = $2 WHERE uid = $1")
                    .bind(&uid)
                    .bind(to_json(&status)?)
                    .run(&mut tx.conn)
                    .await?;
                Ok(())
            })
        })
        .await
    }
}
