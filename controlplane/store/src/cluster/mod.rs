//! Kubernetes clusters, of the platform or of a tenant: rows, and the credential among the secrets.
//!
//! A row has the credential's digest and nothing else of it. [`change`] writes what people say, [`told`] what was seen;
//! [`scope`] knows who may see and join which.

mod change;
mod scope;
mod told;

use std::collections::HashMap;

use croft_core::cluster::{Cluster, name};
use croft_core::id::TenantId;
use croft_core::{Error, Result};
use sqlx::AnyConnection;

use crate::column::from_json;
use crate::meta::MetaRow;
use crate::open::Store;
use crate::page::Page;
use crate::sql::sql;

pub use change::NewCredential;
pub use scope::ClusterScope;

#[derive(sqlx::FromRow)]
struct Row {
    #[sqlx(flatten)]
    meta: MetaRow,
    tenant: Option<String>,
    id: String,
    description: String,
    credential_digest: String,
    node_server: String,
    cluster_dns: String,
    status: String,
}

/// All of a cluster's row, and the rest of the statement.
macro_rules! select_clusters {
    ($tail:literal) => {
        concat!(
            "SELECT uid, tenant, id, description, credential_digest, node_server, cluster_dns, status, generation, labels,
                    annotations, create_time, update_time
             FROM clusters ",
            $tail
        )
    };
}
use select_clusters;

impl Row {
    fn cluster(self, tenants: Vec<TenantId>) -> Result<Cluster> {
        Ok(Cluster {
            meta: self.meta.read("clusters")?,
            tenant: self.tenant.map(TenantId),
            id: self.id,
            description: self.description,
            tenants,
            credential_digest: self.credential_digest,
            node_server: self.node_server,
            cluster_dns: from_json(&self.cluster_dns, "clusters.cluster_dns")?,
            status: from_json(&self.status, "clusters.status")?,
        })
    }
}

async fn with_tenants(conn: &mut AnyConnection, rows: Vec<Row>) -> Result<Vec<Cluster>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let uids: Vec<&str> = rows.iter().map(|row| row.meta.uid.as_str()).collect();
    let pairs: Vec<(String, String)> = sql("SELECT cluster_uid, tenant
                                            FROM cluster_tenants
                                            WHERE cluster_uid IN ")
    .list(&uids)
    .push(" ORDER BY tenant")
    .all(conn)
    .await?;
    let mut tenants: HashMap<String, Vec<TenantId>> = HashMap::new();
    for (uid, tenant) in pairs {
        tenants.entry(uid).or_default().push(TenantId(tenant));
    }
    rows.into_iter()
        .map(|row| {
            let named = tenants.remove(&row.meta.uid).unwrap_or_default();
            row.cluster(named)
        })
        .collect()
}

async fn get(conn: &mut AnyConnection, name: &str) -> Result<Option<Cluster>> {
    let rows = sql(select_clusters!("WHERE name = $1")).bind(name).all(conn).await?;
    Ok(with_tenants(conn, rows).await?.pop())
}

async fn require(conn: &mut AnyConnection, name: &str) -> Result<Cluster> {
    get(conn, name).await?.ok_or_else(|| Error::not_found(name))
}

async fn by_uid(conn: &mut AnyConnection, uid: &str) -> Result<Option<Cluster>> {
    let rows = sql(select_clusters!("WHERE uid = $1")).bind(uid).all(conn).await?;
    Ok(with_tenants(conn, rows).await?.pop())
}

/// One that does not exist and one that `tenant` may not join are the same to it.
pub(crate) async fn joinable(conn: &mut AnyConnection, name: &str, tenant: &TenantId) -> Result<Cluster> {
    let scope = ClusterScope::JoinableBy(tenant.clone());
    scope::visible(conn, name, &scope).await?.ok_or_else(|| Error::not_found(name))
}

impl Store {
    /// The cluster that `tenant` may join under this name; another's does not exist.
    pub async fn cluster_joinable(&self, name: &str, tenant: &TenantId) -> Result<Cluster> {
        joinable(&mut *self.snapshot().await?, name, tenant).await
    }

    /// `tenant`: `None` for the platform's. Whether somebody may see it is not asked here.
    pub async fn cluster_get(&self, tenant: Option<&TenantId>, id: &str) -> Result<Option<Cluster>> {
        get(&mut *self.snapshot().await?, &name(tenant, id)).await
    }

    pub async fn cluster_by_uid(&self, uid: &str) -> Result<Option<Cluster>> {
        by_uid(&mut *self.snapshot().await?, uid).await
    }

    /// By name: the platform's first.
    pub async fn cluster_list(&self, scope: &ClusterScope, page: &Page) -> Result<(Vec<Cluster>, Option<String>)> {
        let list = format!("clusters {scope:?}");
        let after = page.after::<1>(&list)?.map(|[name]| name).unwrap_or_default();
        let mut tx = self.snapshot().await?;
        let mut rows: Vec<Row> = scope
            .narrow(sql(select_clusters!("WHERE name > $1")).bind(after))
            .push(" ORDER BY name LIMIT ")
            .push_bind(page.fetch())
            .all(&mut tx)
            .await?;
        let next = page.cut(&list, &mut rows, |row| [name(row.tenant.clone().map(TenantId).as_ref(), &row.id)]);
        Ok((with_tenants(&mut tx, rows).await?, next))
    }

    /// By name.
    pub async fn cluster_all(&self) -> Result<Vec<Cluster>> {
        let mut tx = self.snapshot().await?;
        let rows = sql(select_clusters!("ORDER BY name")).all(&mut tx).await?;
        with_tenants(&mut tx, rows).await
    }
}
