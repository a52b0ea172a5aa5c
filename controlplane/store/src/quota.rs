//! Limit and use per (tenant, resource). A row comes with the first limit or the first charge.
//!
//! `used` is raised by [`charge`] and lowered by [`give_back`], for the tenant and each ancestor, in the transaction
//! that writes or deletes the charges themselves; rows are always touched in the order (tenant, resource).

use std::collections::BTreeMap;

use croft_core::audit::Call;
use croft_core::id::TenantId;
use croft_core::meta::Labels;
use croft_core::quota::{Labelled, PLAIN, Quota};
use croft_core::{Error, Result};
use sqlx::AnyConnection;

use crate::call::{About, Done};
use crate::column::{from_json, to_json};
use crate::open::Store;
use crate::sql::{insert, sql};
use crate::tenant;

#[derive(sqlx::FromRow)]
pub(crate) struct Row {
    tenant: String,
    resource: String,
    quota_limit: Option<i64>,
    used: i64,
    generation: i64,
}

impl From<Row> for Quota {
    fn from(row: Row) -> Self {
        Self {
            tenant: TenantId(row.tenant),
            resource: row.resource,
            limit: row.quota_limit,
            used: row.used,
            generation: row.generation,
        }
    }
}

#[derive(sqlx::FromRow)]
struct LabelledRow {
    #[sqlx(flatten)]
    quota: Row,
    labels: String,
    annotations: String,
}

/// A quota's row with what is written on it, and the rest of the statement.
macro_rules! select_labelled {
    ($tail:literal) => {
        concat!(
            "SELECT tenant, resource, quota_limit, used, generation, labels, annotations
             FROM quotas ",
            $tail
        )
    };
}

impl TryFrom<LabelledRow> for Labelled {
    type Error = Error;

    fn try_from(row: LabelledRow) -> Result<Self> {
        Ok(Self {
            quota: row.quota.into(),
            labels: from_json(&row.labels, "quotas.labels")?,
            annotations: from_json(&row.annotations, "quotas.annotations")?,
        })
    }
}

/// Amounts by (tenant, resource), in the order in which rows are touched.
pub(crate) type Amounts = BTreeMap<(TenantId, String), i64>;

fn unset(tenant: &TenantId, resource: &str) -> Labelled {
    Labelled {
        quota: Quota { tenant: tenant.clone(), resource: resource.to_owned(), limit: None, used: 0, generation: 0 },
        labels: Labels::new(),
        annotations: Labels::new(),
    }
}

async fn get(conn: &mut AnyConnection, id: &TenantId, resource: &str) -> Result<Labelled> {
    let row: Option<LabelledRow> =
        sql(select_labelled!("WHERE tenant = $1 AND resource = $2")).bind(id).bind(resource).optional(conn).await?;
    match row {
        Some(row) => row.try_into(),
        None => {
            tenant::require(conn, id).await?;
            Ok(unset(id, resource))
        }
    }
}

/// All rows of these tenants.
pub(crate) async fn of_tenants(conn: &mut AnyConnection, tenants: &[TenantId]) -> Result<Vec<Quota>> {
    if tenants.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> = sql("SELECT tenant, resource, quota_limit, used, generation
                              FROM quotas
                              WHERE tenant IN ")
    .list(tenants)
    .all(conn)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

pub(crate) async fn charge(conn: &mut AnyConnection, amounts: &Amounts) -> Result<()> {
    let rows: Vec<_> = amounts.iter().collect();
    insert(
        conn,
        "INSERT INTO quotas (tenant, resource, used, generation)",
        " ON CONFLICT (tenant, resource) DO UPDATE SET used = quotas.used + excluded.used",
        &rows,
        |row, ((tenant, resource), amount)| row.cell(tenant).cell(resource).cell(**amount).cell(0),
    )
    .await
}

pub(crate) async fn give_back(conn: &mut AnyConnection, amounts: &Amounts) -> Result<()> {
    for ((tenant, resource), amount) in amounts {
        let touched = sql("UPDATE quotas
                           SET used = used - $3
                           WHERE tenant = $1 AND resource = $2")
        .bind(tenant)
        .bind(resource)
        .bind(*amount)
        .run(conn)
        .await?;
        if touched != 1 {
            return Err(Error::internal(format!("quota {resource} of tenants/{tenant} has charges and no row")));
        }
    }
    Ok(())
}

/// The least that is left on the way to the root; `None`: unlimited.
fn available(lineage: &[TenantId], rows: &[Quota], resource: &str) -> Option<i64> {
    rows.iter()
        .filter(|row| row.resource == resource && lineage.contains(&row.tenant))
        .filter_map(|row| row.limit.map(|limit| (limit - row.used).max(0)))
        .min()
}

impl Store {
    pub async fn quota_get(&self, tenant: &TenantId, resource: &str) -> Result<Labelled> {
        get(&mut *self.snapshot().await?, tenant, resource).await
    }

    /// What one more request may still take here; `None`: unlimited.
    pub async fn quota_available(&self, tenant: &TenantId, resource: &str) -> Result<Option<i64>> {
        let mut tx = self.snapshot().await?;
        tenant::require(&mut tx, tenant).await?;
        let lineage = tenant::ancestors(&mut tx, tenant).await?;
        let rows = of_tenants(&mut tx, &lineage).await?;
        Ok(available(&lineage, &rows, resource))
    }

    /// With what is available. The plain resources first, set or not, then what else has rows.
    pub async fn quota_list(&self, tenant: &TenantId) -> Result<Vec<(Labelled, Option<i64>)>> {
        let mut tx = self.snapshot().await?;
        tenant::require(&mut tx, tenant).await?;
        let lineage = tenant::ancestors(&mut tx, tenant).await?;
        let rows = of_tenants(&mut tx, &lineage).await?;
        let own: Vec<LabelledRow> =
            sql(select_labelled!("WHERE tenant = $1 ORDER BY resource")).bind(tenant).all(&mut tx).await?;
        let own: Vec<Labelled> = own.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        let (plain, others): (Vec<_>, Vec<_>) =
            own.into_iter().partition(|own| PLAIN.contains(&own.quota.resource.as_str()));
        let plain = PLAIN.into_iter().map(|resource| {
            plain.iter().find(|own| own.quota.resource == resource).cloned().unwrap_or_else(|| unset(tenant, resource))
        });
        Ok(plain
            .chain(others)
            .map(|own| {
                let available = available(&lineage, &rows, &own.quota.resource);
                (own, available)
            })
            .collect())
    }

    /// Of what `change` does, limit, labels and annotations count. No limit is unlimited; one below what is used stops
    /// growth and takes nothing.
    pub async fn quota_set(
        &self,
        call: &Call,
        tenant: &TenantId,
        resource: &str,
        etag: &str,
        change: impl FnOnce(&mut Labelled) -> Result<()> + Send + 'static,
    ) -> Result<Done<Labelled>> {
        let (id, resource, etag) = (tenant.clone(), resource.to_owned(), etag.to_owned());
        let about = About::tenant(&id, format!("tenants/{id}/quotas/{resource}"));
        let done = self
            .mutate(call, about, move |tx| {
                Box::pin(async move {
                    let mut own = get(&mut tx.conn, &id, &resource).await?;
                    own.quota.check_etag(&etag)?;
                    change(&mut own)?;
                    own.quota.generation += 1;
                    sql("INSERT INTO quotas (tenant, resource, quota_limit, used, generation, labels, annotations)
                         VALUES ($1, $2, $3, 0, $4, $5, $6)
                         ON CONFLICT (tenant, resource)
                         DO UPDATE SET quota_limit = excluded.quota_limit, generation = excluded.generation,
                                       labels = excluded.labels, annotations = excluded.annotations")
                    .bind(&id)
                    .bind(&resource)
                    .bind(own.quota.limit)
                    .bind(own.quota.generation)
                    .bind(to_json(&own.labels)?)
                    .bind(to_json(&own.annotations)?)
                    .run(&mut tx.conn)
                    .await?;
                    Ok(own)
                })
            })
            .await?;
        match done {
            Done::Replayed(then) => {
                // Its tenant may be gone; then the first answer is all there is.
                Ok(Done::Replayed(self.quota_get(&then.quota.tenant, &then.quota.resource).await.unwrap_or(then)))
            }
            new => Ok(new),
        }
    }

    /// A tenant with all above it, and all their rows: what its limits leave. Nothing of a tenant that does not exist.
    pub async fn quota_lineage(&self, tenant: &TenantId) -> Result<(Vec<TenantId>, Vec<Quota>)> {
        let mut tx = self.snapshot().await?;
        let lineage = tenant::ancestors(&mut tx, tenant).await?;
        let rows = of_tenants(&mut tx, &lineage).await?;
        Ok((lineage, rows))
    }

    /// Every row: for metrics.
    pub async fn quota_all(&self) -> Result<Vec<Quota>> {
        let rows: Vec<Row> = sql("SELECT tenant, resource, quota_limit, used, generation
                                  FROM quotas
                                  ORDER BY tenant, resource")
        .all(&mut *self.reader().await?)
        .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }
}
