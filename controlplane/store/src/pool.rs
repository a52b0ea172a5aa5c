//! Pools that operators define. Who may have something of one is quota's to say.

pub(crate) mod claimed;

use croft_core::audit::Call;
use croft_core::device::Pool;
use croft_core::id::{PoolId, TenantId};
use croft_core::{Error, Reason, Result};
use sqlx::AnyConnection;

use crate::call::{About, Done};
use crate::column::{from_json, to_json};
use crate::meta::MetaRow;
use crate::open::Store;
use crate::page::Page;
use crate::sql::{Sql, sql};

#[derive(sqlx::FromRow)]
struct Row {
    #[sqlx(flatten)]
    meta: MetaRow,
    id: String,
    description: String,
    matches: String,
}

/// All of a pool's row, and the rest of the statement.
macro_rules! select_pools {
    ($tail:literal) => {
        concat!(
            "SELECT id, uid, description, matches, generation, labels, annotations, create_time, update_time
             FROM pools ",
            $tail
        )
    };
}

impl TryFrom<Row> for Pool {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: PoolId(row.id),
            meta: row.meta.read("pools")?,
            description: row.description,
            matches: from_json(&row.matches, "pools.matches")?,
        })
    }
}

pub(crate) async fn get(conn: &mut AnyConnection, id: &PoolId) -> Result<Option<Pool>> {
    let row: Option<Row> = sql(select_pools!("WHERE id = $1")).bind(id).optional(conn).await?;
    row.map(TryInto::try_into).transpose()
}

async fn require(conn: &mut AnyConnection, id: &PoolId) -> Result<Pool> {
    get(conn, id).await?.ok_or_else(|| Error::not_found(format!("pools/{id}")))
}

/// Only those of which `tenant`, or one below it, has a limit above 0.
fn granted(pools: Sql, tenant: Option<&TenantId>) -> Sql {
    let Some(tenant) = tenant else { return pools };
    pools
        .push(
            " AND id IN (SELECT SUBSTR(quotas.resource, 9)
                         FROM tenants above
                         JOIN tenant_ancestors a ON a.ancestor_uid = above.uid
                         JOIN tenants t ON t.uid = a.tenant_uid
                         JOIN quotas ON quotas.tenant = t.id
                         WHERE SUBSTR(quotas.resource, 1, 8) = 'devices/' AND quotas.quota_limit > 0
                           AND above.id = ",
        )
        .push_bind(tenant)
        .push(")")
}

fn in_use(pool: &Pool, holders: &[(String, String)]) -> Error {
    const NAMED: usize = 3;
    let named: Vec<String> =
        holders.iter().take(NAMED).map(|(tenant, id)| format!("tenants/{tenant}/instances/{id}")).collect();
    let more = holders.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let message = format!(
        "devices of {} are held by {}{more}; detach those devices or delete the instances first",
        pool.name(),
        named.join(", ")
    );
    Error::precondition(Reason::PoolInUse, pool.name(), message)
}

async fn now(store: &Store, done: Done<Pool>) -> Result<Done<Pool>> {
    if let Done::Replayed(then) = &done
        && let Some(now) = store.pool_get(&then.id).await?.filter(|now| now.meta.uid == then.meta.uid)
    {
        return Ok(Done::Replayed(now));
    }
    Ok(done)
}

impl Store {
    /// `matches` was checked ([`croft_core::device::PoolMatch::check`]); what it names need not exist yet.
    pub async fn pool_create(&self, call: &Call, pool: Pool) -> Result<Done<Pool>> {
        let done = self
            .mutate(call, About::platform(pool.name()), move |tx| {
                Box::pin(async move {
                    if get(&mut tx.conn, &pool.id).await?.is_some() {
                        return Err(Error::AlreadyExists { name: pool.name() });
                    }
                    sql("INSERT INTO pools (id, uid, description, matches, generation, labels, annotations, create_time,
                                            update_time)
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
                    .bind(&pool.id)
                    .bind(&pool.meta.uid)
                    .bind(&pool.description)
                    .bind(to_json(&pool.matches)?)
                    .bind(pool.meta.generation)
                    .bind(to_json(&pool.meta.labels)?)
                    .bind(to_json(&pool.meta.annotations)?)
                    .bind(pool.meta.create_time)
                    .bind(pool.meta.update_time)
                    .run(&mut tx.conn)
                    .await?;
                    Ok(pool)
                })
            })
            .await?;
        now(self, done).await
    }

    pub async fn pool_get(&self, id: &PoolId) -> Result<Option<Pool>> {
        get(&mut *self.reader().await?, id).await
    }

    /// `None` also for one that `tenant` may not see: neither it, nor a tenant below it, was granted anything of it.
    pub async fn pool_seen(&self, id: &PoolId, tenant: &TenantId) -> Result<Option<Pool>> {
        let one = granted(sql(select_pools!("WHERE id = $1")).bind(id), Some(tenant));
        let row: Option<Row> = one.optional(&mut *self.reader().await?).await?;
        row.map(TryInto::try_into).transpose()
    }

    /// By id. `tenant`: only those that it may see, as [`Store::pool_seen`] has it.
    pub async fn pool_list(&self, tenant: Option<&TenantId>, page: &Page) -> Result<(Vec<Pool>, Option<String>)> {
        let after = page.after::<1>("pools")?.map(|[id]| id).unwrap_or_default();
        let mut rows: Vec<Row> = granted(sql(select_pools!("WHERE id > $1")).bind(after), tenant)
            .push(" ORDER BY id LIMIT ")
            .push_bind(page.fetch())
            .all(&mut *self.reader().await?)
            .await?;
        let next = page.cut("pools", &mut rows, |row| [row.id.clone()]);
        Ok((rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?, next))
    }

    /// By id.
    pub async fn pool_all(&self) -> Result<Vec<Pool>> {
        let rows: Vec<Row> = sql(select_pools!("ORDER BY id")).all(&mut *self.reader().await?).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Of what `change` does, description, labels, annotations and the match count. What is held stays held, also where the
    /// pool no longer matches it.
    pub async fn pool_update(
        &self,
        call: &Call,
        id: &PoolId,
        etag: &str,
        change: impl FnOnce(&mut Pool) -> Result<()> + Send + 'static,
    ) -> Result<Done<Pool>> {
        let (id, etag) = (id.clone(), etag.to_owned());
        let done = self
            .mutate(call, About::platform(format!("pools/{id}")), move |tx| {
                Box::pin(async move {
                    let mut pool = require(&mut tx.conn, &id).await?;
                    pool.meta.check_etag(&etag, &pool.name())?;
                    change(&mut pool)?;
                    pool.meta.generation += 1;
                    pool.meta.update_time = tx.now;
                    sql("UPDATE pools
                         SET description = $2, matches = $3, generation = $4, labels = $5, annotations = $6,
                             update_time = $7
                         WHERE id = $1")
                    .bind(&id)
                    .bind(&pool.description)
                    .bind(to_json(&pool.matches)?)
                    .bind(pool.meta.generation)
                    .bind(to_json(&pool.meta.labels)?)
                    .bind(to_json(&pool.meta.annotations)?)
                    .bind(pool.meta.update_time)
                    .run(&mut tx.conn)
                    .await?;
                    Ok(pool)
                })
            })
            .await?;
        now(self, done).await
    }

    /// Refused while an instance holds something of it.
    pub async fn pool_delete(&self, call: &Call, id: &PoolId, etag: &str) -> Result<()> {
        let (id, etag) = (id.clone(), etag.to_owned());
        self.mutate(call, About::platform(format!("pools/{id}")), move |tx| {
            Box::pin(async move {
                let pool = require(&mut tx.conn, &id).await?;
                pool.meta.check_etag(&etag, &pool.name())?;
                let holders: Vec<(String, String)> = sql("SELECT instances.tenant, instances.id
                                                          FROM charges
                                                          JOIN instances ON instances.uid = charges.holder_uid
                                                          WHERE charges.resource = $1
                                                          ORDER BY instances.tenant, instances.id")
                .bind(format!("devices/{id}"))
                .all(&mut tx.conn)
                .await?;
                if !holders.is_empty() {
                    return Err(in_use(&pool, &holders));
                }
                sql("DELETE FROM pools WHERE id = $1").bind(&id).run(&mut tx.conn).await?;
                Ok(())
            })
        })
        .await?;
        Ok(())
    }
}
