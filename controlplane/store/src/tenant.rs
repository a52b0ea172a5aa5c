//! Tenants: a tree whose edges never change, kept a second time as the table of all (tenant, ancestor) pairs, so that
//! "within" is one join.

use croft_core::audit::Call;
use croft_core::id::TenantId;
use croft_core::tenant::{DEPTH_MAX, Tenant};
use croft_core::{Error, Reason, Result};
use sqlx::AnyConnection;

use crate::call::{About, Done};
use crate::column::to_json;
use crate::meta::MetaRow;
use crate::open::Store;
use crate::page::Page;
use crate::sql::sql;
use crate::tx::Tx;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantFilter {
    /// It and all below it.
    pub within: Option<TenantId>,
    pub parent: Option<TenantId>,
}

#[derive(sqlx::FromRow)]
struct Row {
    #[sqlx(flatten)]
    meta: MetaRow,
    id: String,
    parent: Option<String>,
    display_name: String,
}

impl TryFrom<Row> for Tenant {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: TenantId(row.id),
            meta: row.meta.read("tenants")?,
            parent: row.parent.map(TenantId),
            display_name: row.display_name,
        })
    }
}

pub(crate) async fn get(conn: &mut AnyConnection, id: &TenantId) -> Result<Option<Tenant>> {
    let row: Option<Row> = sql("SELECT id, uid, parent, display_name, generation, labels, annotations, create_time,
                                       update_time
                                FROM tenants
                                WHERE id = $1")
    .bind(id)
    .optional(conn)
    .await?;
    row.map(TryInto::try_into).transpose()
}

pub(crate) async fn require(conn: &mut AnyConnection, id: &TenantId) -> Result<Tenant> {
    get(conn, id).await?.ok_or_else(|| Error::not_found(format!("tenants/{id}")))
}

/// Itself first, then upwards to the root.
pub(crate) async fn ancestors(conn: &mut AnyConnection, id: &TenantId) -> Result<Vec<TenantId>> {
    let rows: Vec<(String,)> = sql("SELECT above.id
                                    FROM tenants t
                                    JOIN tenant_ancestors a ON a.tenant_uid = t.uid
                                    JOIN tenants above ON above.uid = a.ancestor_uid
                                    WHERE t.id = $1
                                    ORDER BY a.distance")
    .bind(id)
    .all(conn)
    .await?;
    Ok(rows.into_iter().map(|(id,)| TenantId(id)).collect())
}

async fn check_new(conn: &mut AnyConnection, tenant: &Tenant) -> Result<()> {
    if get(conn, &tenant.id).await?.is_some() {
        return Err(Error::AlreadyExists { name: tenant.name() });
    }
    let Some(parent) = &tenant.parent else { return Ok(()) };
    let above = ancestors(conn, parent).await?;
    if above.is_empty() {
        return Err(Error::not_found(format!("tenants/{parent}")));
    }
    if above.len() >= DEPTH_MAX {
        return Err(Error::invalid(
            "tenant.parent",
            format!("tenants/{parent} is at level {} already; the tree is at most {DEPTH_MAX} deep", above.len()),
        ));
    }
    Ok(())
}

async fn write_new(tx: &mut Tx, tenant: &Tenant) -> Result<()> {
    sql(
        "INSERT INTO tenants (id, uid, parent, display_name, generation, labels, annotations, create_time, update_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&tenant.id)
    .bind(&tenant.meta.uid)
    .bind(&tenant.parent)
    .bind(&tenant.display_name)
    .bind(tenant.meta.generation)
    .bind(to_json(&tenant.meta.labels)?)
    .bind(to_json(&tenant.meta.annotations)?)
    .bind(tenant.meta.create_time)
    .bind(tenant.meta.update_time)
    .run(&mut tx.conn)
    .await?;
    sql("INSERT INTO tenant_ancestors (tenant_uid, ancestor_uid, distance)
         SELECT $1, a.ancestor_uid, a.distance + 1
         FROM tenant_ancestors a
         JOIN tenants t ON t.uid = a.tenant_uid
         WHERE t.id = $2")
    .bind(&tenant.meta.uid)
    .bind(&tenant.parent)
    .run(&mut tx.conn)
    .await?;
    sql("INSERT INTO tenant_ancestors (tenant_uid, ancestor_uid, distance)
         VALUES ($1, $1, 0)")
    .bind(&tenant.meta.uid)
    .run(&mut tx.conn)
    .await?;
    Ok(())
}

/// Names what is in the way.
async fn check_empty(conn: &mut AnyConnection, id: &TenantId) -> Result<()> {
    let children = sql("SELECT COUNT(*) FROM tenants WHERE parent = $1").bind(id).number(conn).await?;
    let instances = sql("SELECT COUNT(*) FROM instances WHERE tenant = $1").bind(id).number(conn).await?;
    let images = sql("SELECT COUNT(*) FROM images WHERE tenant = $1").bind(id).number(conn).await?;
    let clusters = sql("SELECT COUNT(*) FROM clusters WHERE tenant = $1").bind(id).number(conn).await?;
    let counts = [(children, "child tenants"), (instances, "instances"), (images, "images"), (clusters, "clusters")];
    let there: Vec<String> =
        counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{what}: {count}")).collect();
    if there.is_empty() {
        return Ok(());
    }
    let name = format!("tenants/{id}");
    let message = format!("{name} is not empty ({}); delete these first", there.join(", "));
    Err(Error::precondition(Reason::TenantNotEmpty, name, message))
}

impl Store {
    /// The parent must exist. An id may come again after its tenant was deleted; its history does not.
    pub async fn tenant_create(&self, call: &Call, tenant: Tenant) -> Result<Done<Tenant>> {
        let about = About::tenant(&tenant.id, tenant.name());
        let done = self
            .mutate(call, about, move |tx| {
                Box::pin(async move {
                    check_new(&mut tx.conn, &tenant).await?;
                    write_new(tx, &tenant).await?;
                    Ok(tenant)
                })
            })
            .await?;
        self.tenant_now(done).await
    }

    async fn tenant_now(&self, done: Done<Tenant>) -> Result<Done<Tenant>> {
        if let Done::Replayed(then) = &done
            && let Some(now) = self.tenant_get(&then.id).await?.filter(|now| now.meta.uid == then.meta.uid)
        {
            return Ok(Done::Replayed(now));
        }
        Ok(done)
    }

    pub async fn tenant_get(&self, id: &TenantId) -> Result<Option<Tenant>> {
        get(&mut *self.reader().await?, id).await
    }

    /// By id.
    pub async fn tenant_list(&self, filter: &TenantFilter, page: &Page) -> Result<(Vec<Tenant>, Option<String>)> {
        let list = format!("tenants {filter:?}");
        let after = page.after::<1>(&list)?.map(|[id]| id).unwrap_or_default();
        let rows: Vec<Row> = sql("SELECT id, uid, parent, display_name, generation, labels, annotations, create_time,
                                         update_time
                                  FROM tenants
                                  WHERE id > $1
                                    AND ($2 IS NULL OR parent = $2)
                                    AND ($3 IS NULL OR uid IN (
                                        SELECT a.tenant_uid
                                        FROM tenant_ancestors a
                                        JOIN tenants t ON t.uid = a.ancestor_uid
                                        WHERE t.id = $3))
                                  ORDER BY id
                                  LIMIT $4")
        .bind(after)
        .bind(&filter.parent)
        .bind(&filter.within)
        .bind(page.fetch())
        .all(&mut *self.reader().await?)
        .await?;
        let mut tenants: Vec<Tenant> = rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        let next = page.cut(&list, &mut tenants, |tenant| [tenant.id.to_string()]);
        Ok((tenants, next))
    }

    /// Of what `change` does, display name, labels and annotations count.
    pub async fn tenant_update(
        &self,
        call: &Call,
        id: &TenantId,
        etag: &str,
        change: impl FnOnce(&mut Tenant) -> Result<()> + Send + 'static,
    ) -> Result<Done<Tenant>> {
        let (id, etag) = (id.clone(), etag.to_owned());
        let about = About::tenant(&id, format!("tenants/{id}"));
        let done = self
            .mutate(call, about, move |tx| {
                Box::pin(async move {
                    let mut tenant = require(&mut tx.conn, &id).await?;
                    tenant.meta.check_etag(&etag, &tenant.name())?;
                    change(&mut tenant)?;
                    tenant.meta.generation += 1;
                    tenant.meta.update_time = tx.now;
                    sql("UPDATE tenants
                         SET display_name = $2, generation = $3, labels = $4, annotations = $5, update_time = $6
                         WHERE id = $1")
                    .bind(&id)
                    .bind(&tenant.display_name)
                    .bind(tenant.meta.generation)
                    .bind(to_json(&tenant.meta.labels)?)
                    .bind(to_json(&tenant.meta.annotations)?)
                    .bind(tenant.meta.update_time)
                    .run(&mut tx.conn)
                    .await?;
                    Ok(tenant)
                })
            })
            .await?;
        self.tenant_now(done).await
    }

    /// Its tokens and its limits go with it.
    pub async fn tenant_delete(&self, call: &Call, id: &TenantId, etag: &str) -> Result<()> {
        let (id, etag) = (id.clone(), etag.to_owned());
        let about = About::platform(format!("tenants/{id}"));
        self.mutate(call, about, move |tx| {
            Box::pin(async move {
                let tenant = require(&mut tx.conn, &id).await?;
                tenant.meta.check_etag(&etag, &tenant.name())?;
                check_empty(&mut tx.conn, &id).await?;
                // Nobody is left in it who could read of this: those above it can.
                tx.about = Some(About { tenant: tenant.parent.clone(), target: tenant.name() });
                sql("DELETE FROM tokens WHERE tenant = $1").bind(&id).run(&mut tx.conn).await?;
                sql("DELETE FROM quotas WHERE tenant = $1").bind(&id).run(&mut tx.conn).await?;
                sql("DELETE FROM tenants WHERE id = $1").bind(&id).run(&mut tx.conn).await?;
                Ok(())
            })
        })
        .await?;
        Ok(())
    }

    /// Whether `inner` is `outer` or below it.
    pub async fn tenant_within(&self, inner: &TenantId, outer: &TenantId) -> Result<bool> {
        within(&mut *self.reader().await?, inner, outer).await
    }
}

pub(crate) async fn within(conn: &mut AnyConnection, inner: &TenantId, outer: &TenantId) -> Result<bool> {
    sql("SELECT 1 AS found
         FROM tenants i
         JOIN tenant_ancestors a ON a.tenant_uid = i.uid
         JOIN tenants o ON o.uid = a.ancestor_uid
         WHERE i.id = $1 AND o.id = $2")
    .bind(inner)
    .bind(outer)
    .any(conn)
    .await
}
