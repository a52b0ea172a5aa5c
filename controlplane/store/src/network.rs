//! Networks that operators define, and to whom they are granted.

use std::collections::HashMap;

use croft_core::audit::Call;
use croft_core::id::{NetworkId, TenantId};
use croft_core::network::Network;
use croft_core::validate::Violations;
use croft_core::{Error, Reason, Result};
use sqlx::AnyConnection;

use crate::call::{About, Done};
use crate::column::to_json;
use crate::meta::MetaRow;
use crate::open::Store;
use crate::page::Page;
use crate::sql::{insert, sql};
use crate::tenant;
use crate::tx::Tx;

#[derive(sqlx::FromRow)]
struct Row {
    #[sqlx(flatten)]
    meta: MetaRow,
    id: String,
    description: String,
    bridge: String,
    vlan: i64,
}

impl Row {
    fn network(self, granted_tenants: Vec<TenantId>) -> Result<Network> {
        Ok(Network {
            id: NetworkId(self.id),
            meta: self.meta.read("networks")?,
            description: self.description,
            bridge: self.bridge,
            vlan: i32::try_from(self.vlan)
                .map_err(|_| crate::column::wrong("networks.vlan", &self.vlan.to_string()))?,
            granted_tenants,
        })
    }
}

async fn with_grants(conn: &mut AnyConnection, rows: Vec<Row>) -> Result<Vec<Network>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<NetworkId> = rows.iter().map(|row| NetworkId(row.id.clone())).collect();
    let pairs: Vec<(String, String)> = sql("SELECT network, tenant
                                            FROM network_grants
                                            WHERE network IN ")
    .list(&ids)
    .push(" ORDER BY tenant")
    .all(conn)
    .await?;
    let mut grants: HashMap<String, Vec<TenantId>> = HashMap::new();
    for (network, tenant) in pairs {
        grants.entry(network).or_default().push(TenantId(tenant));
    }
    rows.into_iter()
        .map(|row| {
            let granted = grants.remove(&row.id).unwrap_or_default();
            row.network(granted)
        })
        .collect()
}

/// Those of these that exist.
pub(crate) async fn by_ids(conn: &mut AnyConnection, ids: &[NetworkId]) -> Result<Vec<Network>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows =
        sql("SELECT id, uid, description, bridge, vlan, generation, labels, annotations, create_time, update_time
                    FROM networks
                    WHERE id IN ")
        .list(ids)
        .all(conn)
        .await?;
    with_grants(conn, rows).await
}

async fn require(conn: &mut AnyConnection, id: &NetworkId) -> Result<Network> {
    by_ids(conn, std::slice::from_ref(id)).await?.pop().ok_or_else(|| Error::not_found(format!("networks/{id}")))
}

async fn check_grants(conn: &mut AnyConnection, network: &Network) -> Result<()> {
    let mut violations = Violations::new();
    for (at, tenant) in network.granted_tenants.iter().enumerate() {
        let field = format!("network.granted_tenants[{at}]");
        violations.check(
            tenant::get(conn, tenant).await?.is_some(),
            &field,
            format!("tenants/{tenant} does not exist"),
        );
        violations.check(
            !network.granted_tenants[..at].contains(tenant),
            &field,
            format!("tenants/{tenant} is there twice"),
        );
    }
    violations.finish()
}

async fn write_grants(tx: &mut Tx, network: &Network) -> Result<()> {
    sql("DELETE FROM network_grants WHERE network = $1").bind(&network.id).run(&mut tx.conn).await?;
    insert(&mut tx.conn, "INSERT INTO network_grants (network, tenant)", "", &network.granted_tenants, |row, tenant| {
        row.cell(&network.id).cell(tenant)
    })
    .await
}

async fn now(store: &Store, done: Done<Network>) -> Result<Done<Network>> {
    if let Done::Replayed(then) = &done
        && let Some(now) = store.network_get(&then.id).await?.filter(|now| now.meta.uid == then.meta.uid)
    {
        return Ok(Done::Replayed(now));
    }
    Ok(done)
}

impl Store {
    pub async fn network_create(&self, call: &Call, network: Network) -> Result<Done<Network>> {
        let done = self
            .mutate(call, About::platform(network.name()), move |tx| {
                Box::pin(async move {
                    if !by_ids(&mut tx.conn, std::slice::from_ref(&network.id)).await?.is_empty() {
                        return Err(Error::AlreadyExists { name: network.name() });
                    }
                    check_grants(&mut tx.conn, &network).await?;
                    sql("INSERT INTO networks (id, uid, description, bridge, vlan, generation, labels, annotations,
                                               create_time, update_time)
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
                    .bind(&network.id)
                    .bind(&network.meta.uid)
                    .bind(&network.description)
                    .bind(&network.bridge)
                    .bind(i64::from(network.vlan))
                    .bind(network.meta.generation)
                    .bind(to_json(&network.meta.labels)?)
                    .bind(to_json(&network.meta.annotations)?)
                    .bind(network.meta.create_time)
                    .bind(network.meta.update_time)
                    .run(&mut tx.conn)
                    .await?;
                    write_grants(tx, &network).await?;
                    Ok(network)
                })
            })
            .await?;
        now(self, done).await
    }

    pub async fn network_get(&self, id: &NetworkId) -> Result<Option<Network>> {
        Ok(by_ids(&mut *self.snapshot().await?, std::slice::from_ref(id)).await?.pop())
    }

    /// By id.
    pub async fn network_list(&self, page: &Page) -> Result<(Vec<Network>, Option<String>)> {
        let after = page.after::<1>("networks")?.map(|[id]| id).unwrap_or_default();
        let mut tx = self.snapshot().await?;
        let mut rows: Vec<Row> = sql("SELECT id, uid, description, bridge, vlan, generation, labels, annotations,
                                             create_time, update_time
                                      FROM networks
                                      WHERE id > $1
                                      ORDER BY id
                                      LIMIT $2")
        .bind(after)
        .bind(page.fetch())
        .all(&mut tx)
        .await?;
        let next = page.cut("networks", &mut rows, |row| [row.id.clone()]);
        Ok((with_grants(&mut tx, rows).await?, next))
    }

    /// Of what `change` does, description, labels, annotations and grants count. A grant that is taken away stops new
    /// instances; those that are attached stay.
    pub async fn network_update(
        &self,
        call: &Call,
        id: &NetworkId,
        etag: &str,
        change: impl FnOnce(&mut Network) -> Result<()> + Send + 'static,
    ) -> Result<Done<Network>> {
        let (id, etag) = (id.clone(), etag.to_owned());
        let done = self
            .mutate(call, About::platform(format!("networks/{id}")), move |tx| {
                Box::pin(async move {
                    let mut network = require(&mut tx.conn, &id).await?;
                    network.meta.check_etag(&etag, &network.name())?;
                    change(&mut network)?;
                    check_grants(&mut tx.conn, &network).await?;
                    network.meta.generation += 1;
                    network.meta.update_time = tx.now;
                    sql("UPDATE networks
                         SET description = $2, generation = $3, labels = $4, annotations = $5, update_time = $6
                         WHERE id = $1")
                    .bind(&id)
                    .bind(&network.description)
                    .bind(network.meta.generation)
                    .bind(to_json(&network.meta.labels)?)
                    .bind(to_json(&network.meta.annotations)?)
                    .bind(network.meta.update_time)
                    .run(&mut tx.conn)
                    .await?;
                    write_grants(tx, &network).await?;
                    Ok(network)
                })
            })
            .await?;
        now(self, done).await
    }

    /// Refused while an instance is attached.
    pub async fn network_delete(&self, call: &Call, id: &NetworkId, etag: &str) -> Result<()> {
        let (id, etag) = (id.clone(), etag.to_owned());
        self.mutate(call, About::platform(format!("networks/{id}")), move |tx| {
            Box::pin(async move {
                let network = require(&mut tx.conn, &id).await?;
                network.meta.check_etag(&etag, &network.name())?;
                let users = sql("SELECT COUNT(*) FROM instance_networks WHERE network = $1")
                    .bind(&id)
                    .number(&mut tx.conn)
                    .await?;
                if users > 0 {
                    let message = format!("{users} instances are attached to {}; delete these first", network.name());
                    return Err(Error::precondition(Reason::NetworkInUse, network.name(), message));
                }
                sql("DELETE FROM networks WHERE id = $1").bind(&id).run(&mut tx.conn).await?;
                Ok(())
            })
        })
        .await?;
        Ok(())
    }

    /// Whether `tenant`, or one above it, was granted this network.
    pub async fn network_granted(&self, id: &NetworkId, tenant: &TenantId) -> Result<bool> {
        sql("SELECT 1 AS found
             FROM network_grants g
             JOIN tenants o ON o.id = g.tenant
             JOIN tenant_ancestors a ON a.ancestor_uid = o.uid
             JOIN tenants t ON t.uid = a.tenant_uid
             WHERE g.network = $1 AND t.id = $2")
        .bind(id)
        .bind(tenant)
        .any(&mut *self.reader().await?)
        .await
    }
}
