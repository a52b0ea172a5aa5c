//! API tokens. Only the SHA-256 of a secret is here.

mod authenticate;
mod change;

use croft_core::access::Role;
use croft_core::audit::Call;
use croft_core::id::{TenantId, TokenId, TokenUid};
use croft_core::meta::{Labels, Meta};
use croft_core::token::Token;
use croft_core::{Error, Result, Timestamp};
use sqlx::AnyConnection;

use crate::call::{About, Done};
use crate::column::{from_word, to_json, to_word};
use crate::labels;
use crate::meta::MetaRow;
use crate::open::Store;
use crate::page::Page;
use crate::sql::sql;
use crate::tenant;
use crate::tx::Tx;

/// The token that the first start makes, and that can be made again by whoever has the data directory.
pub const ADMIN: &str = "admin";

#[derive(sqlx::FromRow)]
struct Row {
    #[sqlx(flatten)]
    meta: MetaRow,
    id: String,
    secret_sha256: String,
    tenant: Option<String>,
    role: String,
    description: String,
    disabled: i64,
    expire_time: Option<i64>,
    last_used_time: Option<i64>,
}

impl TryFrom<Row> for Token {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: TokenId(row.id),
            meta: row.meta.read("tokens")?,
            tenant: row.tenant.map(TenantId),
            role: from_word(&row.role, "tokens.role")?,
            description: row.description,
            disabled: row.disabled != 0,
            expire_time: row.expire_time.map(Timestamp),
            last_used_time: row.last_used_time.map(Timestamp),
        })
    }
}

macro_rules! select_tokens {
    ($tail:literal) => {
        concat!(
            "SELECT id, uid, secret_sha256, tenant, role, description, disabled, generation, labels, annotations,
                    create_time, update_time, expire_time, last_used_time
             FROM tokens ",
            $tail
        )
    };
}

async fn row(conn: &mut AnyConnection, id: &TokenId) -> Result<Option<Row>> {
    sql(select_tokens!("WHERE id = $1")).bind(id).optional(conn).await
}

async fn require(conn: &mut AnyConnection, id: &TokenId) -> Result<Token> {
    match row(conn, id).await? {
        Some(row) => row.try_into(),
        None => Err(Error::not_found(format!("tokens/{id}"))),
    }
}

async fn write(tx: &mut Tx, token: &Token, secret_sha256: [u8; 32]) -> Result<()> {
    sql("INSERT INTO tokens (id, uid, secret_sha256, tenant, role, description, disabled, generation, labels,
                             annotations, create_time, update_time, expire_time, last_used_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)")
    .bind(&token.id)
    .bind(&token.meta.uid)
    .bind(hex::encode(secret_sha256))
    .bind(&token.tenant)
    .bind(to_word(token.role)?)
    .bind(&token.description)
    .bind(token.disabled)
    .bind(token.meta.generation)
    .bind(to_json(&token.meta.labels)?)
    .bind(to_json(&token.meta.annotations)?)
    .bind(token.meta.create_time)
    .bind(token.meta.update_time)
    .bind(token.expire_time)
    .bind(token.last_used_time)
    .run(&mut tx.conn)
    .await?;
    Ok(())
}

impl Store {
    pub async fn token_create(&self, call: &Call, token: Token, secret_sha256: [u8; 32]) -> Result<Done<Token>> {
        let about = About { tenant: token.tenant.clone(), target: token.name() };
        let done = self
            .mutate(call, about, move |tx| {
                Box::pin(async move {
                    if row(&mut tx.conn, &token.id).await?.is_some() {
                        return Err(Error::AlreadyExists { name: token.name() });
                    }
                    if let Some(tenant) = &token.tenant {
                        tenant::require(&mut tx.conn, tenant).await?;
                    }
                    write(tx, &token, secret_sha256).await?;
                    Ok(token)
                })
            })
            .await?;
        self.token_now(done).await
    }

    async fn token_now(&self, done: Done<Token>) -> Result<Done<Token>> {
        if let Done::Replayed(then) = &done
            && let Some(now) = self.token_get(&then.id).await?.filter(|now| now.meta.uid == then.meta.uid)
        {
            return Ok(Done::Replayed(now));
        }
        Ok(done)
    }

    pub async fn token_get(&self, id: &TokenId) -> Result<Option<Token>> {
        row(&mut *self.reader().await?, id).await?.map(TryInto::try_into).transpose()
    }

    /// Those with all of `labels`, by id.
    pub async fn token_list(
        &self,
        within: Option<&TenantId>,
        labels: &Labels,
        page: &Page,
    ) -> Result<(Vec<Token>, Option<String>)> {
        let list = format!("tokens {within:?} {labels:?}");
        let after = page.after::<1>(&list)?.map(|[id]| id).unwrap_or_default();
        let from = sql(select_tokens!(
            "WHERE id > $1
               AND ($2 IS NULL OR tenant IN (
                   SELECT below.id
                   FROM tenants below
                   JOIN tenant_ancestors a ON a.tenant_uid = below.uid
                   JOIN tenants t ON t.uid = a.ancestor_uid
                   WHERE t.id = $2))"
        ))
        .bind(after)
        .bind(within);
        let rows: Vec<Row> = labels::select(from, labels)?
            .push(" ORDER BY id LIMIT ")
            .push_bind(page.fetch())
            .all(&mut *self.reader().await?)
            .await?;
        let mut tokens: Vec<Token> = rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        let next = page.cut(&list, &mut tokens, |token| [token.id.to_string()]);
        Ok((tokens, next))
    }

    /// The token [`ADMIN`], made or mended, with a new secret. For whoever lost all others.
    pub async fn token_reset_admin(&self, call: &Call, secret_sha256: [u8; 32]) -> Result<Token> {
        let id = TokenId(ADMIN.to_owned());
        let done = self
            .mutate(call, About::platform(format!("tokens/{id}")), move |tx| {
                Box::pin(async move {
                    let token = Token {
                        id,
                        meta: Meta::new(TokenUid::new(tx.now).to_string(), Labels::new(), Labels::new(), tx.now),
                        tenant: None,
                        role: Role::PlatformAdmin,
                        description: "made at the first start, or by `admin reset-token`".to_owned(),
                        disabled: false,
                        expire_time: None,
                        last_used_time: None,
                    };
                    sql("DELETE FROM tokens WHERE id = $1").bind(&token.id).run(&mut tx.conn).await?;
                    write(tx, &token, secret_sha256).await?;
                    Ok(token)
                })
            })
            .await?;
        Ok(done.into_inner())
    }
}
