//! What instances are charged for devices: by the exact pieces, in the transaction that takes or gives them back.

use std::collections::BTreeMap;

use croft_core::Result;
use croft_core::device::Assignment;
use croft_core::id::{InstanceUid, TenantId};
use croft_core::quota::{Charges, PLAIN, admit, device};
use sqlx::AnyConnection;

use crate::quota::{self, Amounts};
use crate::sql::{Sql, insert, sql};
use crate::tenant;

#[derive(sqlx::FromRow)]
struct Charge {
    tenant: String,
    resource: String,
    amount: i64,
}

/// Charges `pieces`, or says which limit is in the way.
pub(crate) async fn charge(
    conn: &mut AnyConnection,
    uid: InstanceUid,
    tenant: &TenantId,
    pieces: &[Assignment],
) -> Result<()> {
    let charges = device::total(pieces);
    if charges.is_empty() {
        return Ok(());
    }
    let lineage = tenant::ancestors(conn, tenant).await?;
    let rows = quota::of_tenants(conn, &lineage).await?;
    device::granted(&rows, tenant, pieces)?;
    admit(&rows, &charges)?;
    quota::charge(conn, &amounts(&lineage, &charges)).await?;
    let charges: Vec<_> = charges.iter().collect();
    insert(
        conn,
        "INSERT INTO charges (holder_uid, tenant, resource, amount)",
        " ON CONFLICT (holder_uid, resource) DO UPDATE SET amount = charges.amount + excluded.amount",
        &charges,
        |row, (resource, amount)| row.cell(uid).cell(tenant).cell(*resource).cell(**amount),
    )
    .await
}

fn amounts(lineage: &[TenantId], charges: &Charges) -> Amounts {
    let one = |tenant: &TenantId| {
        let tenant = tenant.clone();
        charges.iter().map(move |(resource, amount)| ((tenant.clone(), resource.clone()), *amount))
    };
    lineage.iter().flat_map(one).collect()
}

/// Of some of the pieces that it holds.
pub(crate) async fn give_back(
    conn: &mut AnyConnection,
    uid: InstanceUid,
    tenant: &TenantId,
    pieces: &[Assignment],
) -> Result<()> {
    let charges = device::total(pieces);
    for (resource, amount) in &charges {
        let all = sql("DELETE FROM charges WHERE holder_uid = $1 AND resource = $2 AND amount = $3")
            .bind(uid)
            .bind(resource)
            .bind(*amount)
            .run(conn)
            .await?;
        if all == 0 {
            sql("UPDATE charges SET amount = amount - $3 WHERE holder_uid = $1 AND resource = $2")
                .bind(uid)
                .bind(resource)
                .bind(*amount)
                .run(conn)
                .await?;
        }
    }
    let lineage = tenant::ancestors(conn, tenant).await?;
    quota::give_back(conn, &amounts(&lineage, &charges)).await
}

/// Of all their devices: these hold none any more.
pub(crate) async fn give_back_devices(conn: &mut AnyConnection, uids: &[InstanceUid]) -> Result<()> {
    if uids.is_empty() {
        return Ok(());
    }
    let plain: Vec<String> = PLAIN.into_iter().map(str::to_owned).collect();
    let devices = sql("DELETE FROM charges WHERE resource NOT IN ").list(&plain).push(" AND holder_uid IN ").list(uids);
    end(conn, devices).await
}

/// Of all that they are charged for.
pub(crate) async fn give_back_all(conn: &mut AnyConnection, uids: &[InstanceUid]) -> Result<()> {
    end(conn, sql("DELETE FROM charges WHERE holder_uid IN ").list(uids)).await
}

async fn end(conn: &mut AnyConnection, delete: Sql) -> Result<()> {
    let charges: Vec<Charge> = delete.push(" RETURNING tenant, resource, amount").all(conn).await?;
    let amounts = with_ancestors(conn, charges).await?;
    quota::give_back(conn, &amounts).await
}

/// Each charge counts against its tenant and all above it.
async fn with_ancestors(conn: &mut AnyConnection, charges: Vec<Charge>) -> Result<Amounts> {
    let mut own: BTreeMap<TenantId, Charges> = BTreeMap::new();
    for charge in charges {
        *own.entry(TenantId(charge.tenant)).or_default().entry(charge.resource).or_default() += charge.amount;
    }
    let mut amounts = Amounts::new();
    for (id, resources) in own {
        let lineage = tenant::ancestors(conn, &id).await?;
        for (key, amount) in self::amounts(&lineage, &resources) {
            *amounts.entry(key).or_default() += amount;
        }
    }
    Ok(amounts)
}
