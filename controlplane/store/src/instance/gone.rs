//! The end of instances: row, claims, charges and seed leave in one commit. A reader never sees a free host that is
//! still charged, nor a charge without its instance.
//!
//! What was fenced on another host stays a tombstone there: it is not this commit's to forget.

use std::collections::BTreeMap;

use croft_core::Result;
use croft_core::id::{InstanceUid, TenantId};
use croft_core::instance::Instance;
use sqlx::AnyConnection;

use crate::host::claimed;
use crate::quota::{self, Amounts};
use crate::sql::sql;
use crate::tenant;

#[derive(sqlx::FromRow)]
struct Charge {
    tenant: String,
    resource: String,
    amount: i64,
}

pub(super) async fn remove(conn: &mut AnyConnection, instances: &[&Instance]) -> Result<()> {
    if instances.is_empty() {
        return Ok(());
    }
    let uids: Vec<InstanceUid> = instances.iter().map(|instance| instance.uid).collect();
    claimed::give_back(conn, &uids).await?;
    let charges: Vec<Charge> = sql("DELETE FROM charges WHERE holder_uid IN ")
        .list(&uids)
        .push(" RETURNING tenant, resource, amount")
        .all(conn)
        .await?;
    let amounts = with_ancestors(conn, charges).await?;
    quota::give_back(conn, &amounts).await?;
    sql("DELETE FROM instances WHERE uid IN ").list(&uids).run(conn).await?;
    let seeds: Vec<&str> = instances.iter().map(|instance| instance.intent.seed_digest.as_str()).collect();
    sql("DELETE FROM secrets
         WHERE NOT EXISTS (SELECT 1 FROM instances WHERE seed_digest = digest)
           AND digest IN ")
    .list(&seeds)
    .run(conn)
    .await?;
    Ok(())
}

/// Each charge counts against its tenant and all above it.
async fn with_ancestors(conn: &mut AnyConnection, charges: Vec<Charge>) -> Result<Amounts> {
    let mut own: BTreeMap<TenantId, BTreeMap<String, i64>> = BTreeMap::new();
    for charge in charges {
        *own.entry(TenantId(charge.tenant)).or_default().entry(charge.resource).or_default() += charge.amount;
    }
    let mut amounts = Amounts::new();
    for (id, resources) in own {
        for above in tenant::ancestors(conn, &id).await? {
            for (resource, amount) in &resources {
                *amounts.entry((above.clone(), resource.clone())).or_default() += amount;
            }
        }
    }
    Ok(amounts)
}
