//! What people do to clusters: register, change, delete.

use std::fmt;

use croft_core::access::Principal;
use croft_core::audit::Call;
use croft_core::cluster::{Cluster, Status, name};
use croft_core::id::TenantId;
use croft_core::instance::seed;
use croft_core::validate::Violations;
use croft_core::{Error, Reason, Result};
use sqlx::AnyConnection;

use super::scope::{ClusterScope, visible};
use super::{by_uid, get, require, select_clusters, with_tenants};
use crate::call::{About, Done, replayed};
use crate::column::to_json;
use crate::open::Store;
use crate::secret::{self, Sealed};
use crate::sql::{insert, sql};
use crate::tenant;
use crate::tx::Tx;

/// Of these is said how many more there are.
const NAMED: usize = 3;

/// A credential that was tried on the cluster, with what was seen by it.
pub struct NewCredential {
    /// The text of a kubeconfig; `None`: the plane's own service account.
    pub kubeconfig: Option<String>,
    pub status: Status,
}

impl fmt::Debug for NewCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewCredential").field("server", &self.status.server).finish_non_exhaustive()
    }
}

fn about(cluster: &Cluster) -> About {
    About { tenant: cluster.tenant.clone(), target: cluster.name() }
}

async fn check_tenants(conn: &mut AnyConnection, cluster: &Cluster) -> Result<()> {
    let mut violations = Violations::new();
    for (at, tenant) in cluster.tenants.iter().enumerate() {
        let there = tenant::get(conn, tenant).await?.is_some();
        violations.check(there, &format!("cluster.tenants[{at}]"), format!("tenants/{tenant} does not exist"));
    }
    violations.finish()
}

async fn write_tenants(tx: &mut Tx, cluster: &Cluster) -> Result<()> {
    let uid = &cluster.meta.uid;
    sql("DELETE FROM cluster_tenants WHERE cluster_uid = $1").bind(uid).run(&mut tx.conn).await?;
    insert(&mut tx.conn, "INSERT INTO cluster_tenants (cluster_uid, tenant)", "", &cluster.tenants, |row, tenant| {
        row.cell(uid).cell(tenant)
    })
    .await
}

/// Encrypts the credential and names it in the row. The digest of what nobody can guess tells nothing of it.
async fn write_credential(tx: &mut Tx, cluster: &mut Cluster, kubeconfig: Option<String>) -> Result<()> {
    let Some(text) = kubeconfig else {
        cluster.credential_digest.clear();
        return Ok(());
    };
    let digest = seed::digest(text.as_bytes());
    let sealed: Sealed = tx.inner.keys.seal(&digest, text.into_bytes())?;
    secret::put_all(&mut tx.conn, &[&sealed], tx.now).await?;
    cluster.credential_digest = digest;
    Ok(())
}

/// What no row names any more. Two clusters may have the same credential.
async fn forget_credential(conn: &mut AnyConnection, digest: &str) -> Result<()> {
    sql("DELETE FROM secrets
         WHERE digest = $1
           AND NOT EXISTS (SELECT 1 FROM clusters WHERE credential_digest = digest)
           AND NOT EXISTS (SELECT 1 FROM instances WHERE seed_digest = digest)")
    .bind(digest)
    .run(conn)
    .await?;
    Ok(())
}

/// Names of instances that are, or are to be, nodes of it, as a sentence's subject; `None`: there are none.
async fn users(conn: &mut AnyConnection, cluster: &Cluster) -> Result<Option<String>> {
    let found: Vec<(String, String)> = sql("SELECT tenant, id
                                            FROM instances
                                            WHERE cluster_uid = $1
                                            ORDER BY tenant, id")
    .bind(&cluster.meta.uid)
    .all(conn)
    .await?;
    if found.is_empty() {
        return Ok(None);
    }
    let named: Vec<String> =
        found.iter().take(NAMED).map(|(tenant, id)| format!("tenants/{tenant}/instances/{id}")).collect();
    let more = found.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Ok(Some(format!("{}{more}", named.join(", "))))
}

/// A new credential may not lead nodes' records to a cluster that is not theirs. Where no uid was seen yet, the CA tells.
async fn check_same(conn: &mut AnyConnection, cluster: &Cluster, new: &NewCredential) -> Result<()> {
    let (old, new) = (&cluster.status, &new.status);
    let same_ca = || old.ca_pins.is_empty() || old.ca_pins.iter().any(|pin| new.ca_pins.contains(pin));
    if old.is_of_same_cluster(new).unwrap_or_else(same_ca) {
        return Ok(());
    }
    let Some(users) = users(conn, cluster).await? else { return Ok(()) };
    let message = format!(
        "the new credential is of another cluster than {} (by the uid of its namespace kube-system, or else its CA), and {users} \
         joined this one; register the other under a name of its own",
        cluster.name()
    );
    Err(Error::precondition(Reason::ClusterInUse, cluster.name(), message))
}

/// Two registrations of one cluster would overwrite each other's list of nodes, and deny each other's certificates.
async fn check_single(conn: &mut AnyConnection, call: &Principal, cluster: &Cluster, status: &Status) -> Result<()> {
    let all = sql(select_clusters!("ORDER BY name")).all(conn).await?;
    let all = with_tenants(conn, all).await?;
    let twin =
        |other: &&Cluster| other.meta.uid != cluster.meta.uid && other.status.is_of_same_cluster(status) == Some(true);
    let Some(other) = all.iter().find(twin).map(Cluster::name) else { return Ok(()) };
    let scope = call.tenant().map_or(ClusterScope::All, |own| ClusterScope::SeenFrom(own.clone()));
    let known_as = match visible(conn, &other, &scope).await? {
        Some(seen) => format!("as {}; use that one, or delete it first", seen.name()),
        None => "and not for you to see; ask the platform's administrators".to_owned(),
    };
    let message = format!("the cluster at {} is registered already, {known_as}", status.server);
    Err(Error::precondition(Reason::AlreadyExists, cluster.name(), message))
}

impl Store {
    /// What this call came to when it was made before. For callers who would otherwise do again what is slow, or fails now.
    pub async fn cluster_answered(&self, call: &Call) -> Result<Option<Cluster>> {
        let mut tx = self.snapshot().await?;
        let Some(then) = replayed::<Cluster>(&mut tx, call).await? else { return Ok(None) };
        Ok(Some(by_uid(&mut tx, &then.meta.uid).await?.unwrap_or(then)))
    }

    /// `kubeconfig`: `None` for the plane's own service account. The digest is filled in here.
    pub async fn cluster_create(
        &self,
        call: &Call,
        cluster: Cluster,
        kubeconfig: Option<String>,
    ) -> Result<Done<Cluster>> {
        let (about, principal) = (about(&cluster), call.principal.clone());
        let done = self
            .mutate(call, about, move |tx| {
                Box::pin(async move {
                    let mut cluster = cluster;
                    if let Some(tenant) = &cluster.tenant {
                        tenant::require(&mut tx.conn, tenant).await?;
                    }
                    if get(&mut tx.conn, &cluster.name()).await?.is_some() {
                        return Err(Error::AlreadyExists { name: cluster.name() });
                    }
                    check_single(&mut tx.conn, &principal, &cluster, &cluster.status).await?;
                    check_tenants(&mut tx.conn, &cluster).await?;
                    write_credential(tx, &mut cluster, kubeconfig).await?;
                    sql("INSERT INTO clusters (uid, name, tenant, id, description, credential_digest, node_server,
                                               cluster_dns, status, generation, labels, annotations, create_time,
                                               update_time)
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)")
                    .bind(&cluster.meta.uid)
                    .bind(cluster.name())
                    .bind(&cluster.tenant)
                    .bind(&cluster.id)
                    .bind(&cluster.description)
                    .bind(&cluster.credential_digest)
                    .bind(&cluster.node_server)
                    .bind(to_json(&cluster.cluster_dns)?)
                    .bind(to_json(&cluster.status)?)
                    .bind(cluster.meta.generation)
                    .bind(to_json(&cluster.meta.labels)?)
                    .bind(to_json(&cluster.meta.annotations)?)
                    .bind(cluster.meta.create_time)
                    .bind(cluster.meta.update_time)
                    .run(&mut tx.conn)
                    .await?;
                    write_tenants(tx, &cluster).await?;
                    Ok(cluster)
                })
            })
            .await?;
        self.cluster_now(done).await
    }

    async fn cluster_now(&self, done: Done<Cluster>) -> Result<Done<Cluster>> {
        let Done::Replayed(then) = done else { return Ok(done) };
        Ok(Done::Replayed(self.cluster_by_uid(&then.meta.uid).await?.unwrap_or(then)))
    }

    /// Of what `change` does, description, tenants, how nodes reach it, labels and annotations count; tenants that may join no
    /// more keep what joined. `credential`: takes the place of the old one; of another cluster it is refused while there are
    /// nodes.
    pub async fn cluster_update(
        &self,
        call: &Call,
        tenant: Option<&TenantId>,
        id: &str,
        etag: &str,
        credential: Option<NewCredential>,
        change: impl FnOnce(&mut Cluster) -> Result<()> + Send + 'static,
    ) -> Result<Done<Cluster>> {
        let (name, etag) = (name(tenant, id), etag.to_owned());
        let about = About { tenant: tenant.cloned(), target: name.clone() };
        let principal = call.principal.clone();
        let done = self
            .mutate(call, about, move |tx| {
                Box::pin(async move {
                    let mut cluster = require(&mut tx.conn, &name).await?;
                    cluster.meta.check_etag(&etag, &name)?;
                    change(&mut cluster)?;
                    check_tenants(&mut tx.conn, &cluster).await?;
                    let before = cluster.credential_digest.clone();
                    if let Some(new) = credential {
                        check_same(&mut tx.conn, &cluster, &new).await?;
                        check_single(&mut tx.conn, &principal, &cluster, &new.status).await?;
                        write_credential(tx, &mut cluster, new.kubeconfig).await?;
                        super::told::turn(tx, &cluster, &new.status);
                        cluster.status = new.status;
                    }
                    cluster.meta.generation += 1;
                    cluster.meta.update_time = tx.now;
                    write(tx, &cluster).await?;
                    forget_credential(&mut tx.conn, &before).await?;
                    Ok(cluster)
                })
            })
            .await?;
        self.cluster_now(done).await
    }

    /// Refused while an instance is, or is to be, a node of it. Its credential goes with it.
    pub async fn cluster_delete(&self, call: &Call, tenant: Option<&TenantId>, id: &str, etag: &str) -> Result<()> {
        let (name, etag) = (name(tenant, id), etag.to_owned());
        let about = About { tenant: tenant.cloned(), target: name.clone() };
        self.mutate(call, about, move |tx| {
            Box::pin(async move {
                let cluster = require(&mut tx.conn, &name).await?;
                cluster.meta.check_etag(&etag, &name)?;
                if let Some(users) = users(&mut tx.conn, &cluster).await? {
                    let message = format!("{users} are nodes of {name}, or are to be; delete these instances first");
                    return Err(Error::precondition(Reason::ClusterInUse, name, message));
                }
                sql("DELETE FROM clusters WHERE uid = $1").bind(&cluster.meta.uid).run(&mut tx.conn).await?;
                forget_credential(&mut tx.conn, &cluster.credential_digest).await
            })
        })
        .await?;
        Ok(())
    }
}

async fn write(tx: &mut Tx, cluster: &Cluster) -> Result<()> {
    sql("UPDATE clusters
         SET description = $2, credential_digest = $3, node_server = $4, cluster_dns = $5, status = $6, generation = $7,
             labels = $8, annotations = $9, update_time = $10
         WHERE uid = $1")
    .bind(&cluster.meta.uid)
    .bind(&cluster.description)
    .bind(&cluster.credential_digest)
    .bind(&cluster.node_server)
    .bind(to_json(&cluster.cluster_dns)?)
    .bind(to_json(&cluster.status)?)
    .bind(cluster.meta.generation)
    .bind(to_json(&cluster.meta.labels)?)
    .bind(to_json(&cluster.meta.annotations)?)
    .bind(cluster.meta.update_time)
    .run(&mut tx.conn)
    .await?;
    write_tenants(tx, cluster).await
}
