//! Who may join which cluster: a tenant's is for it and those below it; one of the platform's for the tenants named in it,
//! each with those below it.

use croft_core::Result;
use croft_core::cluster::Cluster;
use croft_core::id::TenantId;
use sqlx::AnyConnection;

use super::{Row, select_clusters, with_tenants};
use crate::open::Store;
use crate::sql::{Sql, sql};

/// Which of them a list has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterScope {
    /// What this tenant may join.
    JoinableBy(TenantId),
    /// The same, and what the tenants below it may join.
    SeenFrom(TenantId),
    All,
}

/// The tenant and those above it.
const LINEAGE: &str = "SELECT above.id
                       FROM tenants above
                       JOIN tenant_ancestors a ON a.ancestor_uid = above.uid
                       JOIN tenants t ON t.uid = a.tenant_uid
                       WHERE t.id = ";
/// The tenant and those below it.
const SUBTREE: &str = "SELECT below.id
                       FROM tenants below
                       JOIN tenant_ancestors a ON a.tenant_uid = below.uid
                       JOIN tenants t ON t.uid = a.ancestor_uid
                       WHERE t.id = ";

impl ClusterScope {
    /// ` AND …`
    pub(super) fn narrow(&self, clusters: Sql) -> Sql {
        match self {
            Self::All => clusters,
            Self::JoinableBy(tenant) => of(clusters.push(" AND ("), LINEAGE, tenant).push(")"),
            Self::SeenFrom(tenant) => {
                let joinable = of(clusters.push(" AND ("), LINEAGE, tenant);
                of(joinable.push(" OR "), SUBTREE, tenant).push(")")
            }
        }
    }
}

/// Those that a tenant of `tenants` owns, or that name one.
fn of(clusters: Sql, tenants: &str, tenant: &TenantId) -> Sql {
    clusters
        .push("tenant IN (")
        .push(tenants)
        .push_bind(tenant)
        .push(") OR uid IN (SELECT cluster_uid FROM cluster_tenants WHERE tenant IN (")
        .push(tenants)
        .push_bind(tenant)
        .push("))")
}

pub(super) async fn visible(conn: &mut AnyConnection, name: &str, scope: &ClusterScope) -> Result<Option<Cluster>> {
    let rows: Vec<Row> = scope.narrow(sql(select_clusters!("WHERE name = $1")).bind(name)).all(conn).await?;
    Ok(with_tenants(conn, rows).await?.pop())
}

impl Store {
    /// `None` also for what is not of `scope`.
    pub async fn cluster_visible(&self, name: &str, scope: &ClusterScope) -> Result<Option<Cluster>> {
        visible(&mut *self.snapshot().await?, name, scope).await
    }
}
