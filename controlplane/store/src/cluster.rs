//! Kubernetes clusters that instances may join.

use croft_core::cluster::Cluster;
use croft_core::id::TenantId;
use croft_core::{Error, Result, Timestamp, cluster, meta::Meta, name};
use sqlx::AnyConnection;

use crate::sql::sql;

/// One that the tenant may join. What does not exist and what he may not join say the same.
pub(crate) async fn joinable(conn: &mut AnyConnection, name: &str, tenant: &TenantId) -> Result<Cluster> {
    let (owner, id) = name::cluster("cluster", name)?;
    let row: Option<(String,)> = sql("SELECT c.uid
                                      FROM clusters c
                                      WHERE c.name = $1
                                        AND EXISTS (
                                            SELECT 1
                                            FROM tenants t
                                            JOIN tenant_ancestors a ON a.tenant_uid = t.uid
                                            JOIN tenants above ON above.uid = a.ancestor_uid
                                            WHERE t.id = $2
                                              AND (above.id = c.tenant OR above.id IN (
                                                  SELECT tenant FROM cluster_tenants WHERE cluster_uid = c.uid)))")
    .bind(name)
    .bind(tenant)
    .optional(conn)
    .await?;
    let Some((uid,)) = row else { return Err(Error::not_found(name)) };
    Ok(Cluster {
        meta: Meta::new(uid, Default::default(), Default::default(), Timestamp(0)),
        tenant: owner,
        id,
        description: String::new(),
        tenants: Vec::new(),
        credential_digest: String::new(),
        node_server: String::new(),
        cluster_dns: Vec::new(),
        status: cluster::Status::default(),
    })
}
