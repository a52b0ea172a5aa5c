//! API tokens. Only the SHA-256 of a secret is here.

use std::time::Duration;

use croft_core::access::Role;
use croft_core::audit::Call;
use croft_core::id::{TenantId, TokenId};
use croft_core::token::Token;
use croft_core::{Error, Reason, Result, Timestamp};
use sqlx::AnyConnection;

use crate::call::{About, Done};
use crate::column::{from_word, to_word};
use crate::open::Store;
use crate::page::Page;
use crate::sql::sql;
use crate::tenant;
use crate::tx::Tx;

/// The token that the first start makes, and that can be made again by whoever has the data directory.
pub const ADMIN: &str = "admin";
/// How exact "last used" is.
const USED_EVERY: Duration = Duration::from_secs(60);

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    secret_sha256: String,
    tenant: Option<String>,
    role: String,
    description: String,
    disabled: i64,
    create_time: i64,
    expire_time: Option<i64>,
    last_used_time: Option<i64>,
}

impl TryFrom<Row> for Token {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: TokenId(row.id),
            tenant: row.tenant.map(TenantId),
            role: from_word(&row.role, "tokens.role")?,
            description: row.description,
            disabled: row.disabled != 0,
            create_time: Timestamp(row.create_time),
            expire_time: row.expire_time.map(Timestamp),
            last_used_time: row.last_used_time.map(Timestamp),
        })
    }
}

async fn row(conn: &mut AnyConnection, id: &TokenId) -> Result<Option<Row>> {
    sql("SELECT id, secret_sha256, tenant, role, description, disabled, create_time, expire_time, last_used_time
         FROM tokens
         WHERE id = $1")
    .bind(id)
    .optional(conn)
    .await
}

async fn require(conn: &mut AnyConnection, id: &TokenId) -> Result<Token> {
    match row(conn, id).await? {
        Some(row) => row.try_into(),
        None => Err(Error::not_found(format!("tokens/{id}"))),
    }
}

async fn write(tx: &mut Tx, token: &Token, secret_sha256: [u8; 32]) -> Result<()> {
    sql("INSERT INTO tokens (id, secret_sha256, tenant, role, description, disabled, create_time, expire_time,
                             last_used_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
    .bind(&token.id)
    .bind(hex::encode(secret_sha256))
    .bind(&token.tenant)
    .bind(to_word(token.role)?)
    .bind(&token.description)
    .bind(token.disabled)
    .bind(token.create_time)
    .bind(token.expire_time)
    .bind(token.last_used_time)
    .run(&mut tx.conn)
    .await?;
    Ok(())
}

/// Somebody must be left who can let others in, and for good: a token that ends tomorrow is nobody by then.
async fn check_not_last_admin(tx: &mut Tx, token: &Token) -> Result<()> {
    if token.role != Role::PlatformAdmin || token.disabled {
        return Ok(());
    }
    let others = sql("SELECT COUNT(*)
                      FROM tokens
                      WHERE role = $1
                        AND disabled = 0
                        AND expire_time IS NULL
                        AND id <> $2")
    .bind(to_word(Role::PlatformAdmin)?)
    .bind(&token.id)
    .number(&mut tx.conn)
    .await?;
    if others > 0 {
        return Ok(());
    }
    let message = format!(
        "{} is the last platform-admin token that works and does not expire; create another one first",
        token.name()
    );
    Err(Error::precondition(Reason::LastAdminToken, token.name(), message))
}

/// Takes as long for a wrong secret as for the right one.
fn matches(stored: &str, given: [u8; 32]) -> bool {
    let given = hex::encode(given);
    stored.len() == given.len() && stored.bytes().zip(given.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
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
            && let Some(now) = self.token_get(&then.id).await?.filter(|now| now.create_time == then.create_time)
        {
            return Ok(Done::Replayed(now));
        }
        Ok(done)
    }

    pub async fn token_get(&self, id: &TokenId) -> Result<Option<Token>> {
        row(&mut *self.reader().await?, id).await?.map(TryInto::try_into).transpose()
    }

    /// By id.
    pub async fn token_list(&self, within: Option<&TenantId>, page: &Page) -> Result<(Vec<Token>, Option<String>)> {
        let list = format!("tokens {within:?}");
        let after = page.after::<1>(&list)?.map(|[id]| id).unwrap_or_default();
        let rows: Vec<Row> = sql("SELECT id, secret_sha256, tenant, role, description, disabled, create_time,
                                         expire_time, last_used_time
                                  FROM tokens
                                  WHERE id > $1
                                    AND ($2 IS NULL OR tenant IN (
                                        SELECT below.id
                                        FROM tenants below
                                        JOIN tenant_ancestors a ON a.tenant_uid = below.uid
                                        JOIN tenants t ON t.uid = a.ancestor_uid
                                        WHERE t.id = $2))
                                  ORDER BY id
                                  LIMIT $3")
        .bind(after)
        .bind(within)
        .bind(page.fetch())
        .all(&mut *self.reader().await?)
        .await?;
        let mut tokens: Vec<Token> = rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        let next = page.cut(&list, &mut tokens, |token| [token.id.to_string()]);
        Ok((tokens, next))
    }

    pub async fn token_disable(&self, call: &Call, id: &TokenId) -> Result<Done<Token>> {
        let id = id.clone();
        let done = self
            .mutate(call, About::platform(format!("tokens/{id}")), move |tx| {
                Box::pin(async move {
                    let mut token = require(&mut tx.conn, &id).await?;
                    tx.about = Some(About { tenant: token.tenant.clone(), target: token.name() });
                    check_not_last_admin(tx, &token).await?;
                    token.disabled = true;
                    sql("UPDATE tokens SET disabled = 1 WHERE id = $1").bind(&id).run(&mut tx.conn).await?;
                    Ok(token)
                })
            })
            .await?;
        self.token_now(done).await
    }

    pub async fn token_delete(&self, call: &Call, id: &TokenId) -> Result<()> {
        let id = id.clone();
        self.mutate(call, About::platform(format!("tokens/{id}")), move |tx| {
            Box::pin(async move {
                let token = require(&mut tx.conn, &id).await?;
                tx.about = Some(About { tenant: token.tenant.clone(), target: token.name() });
                check_not_last_admin(tx, &token).await?;
                sql("DELETE FROM tokens WHERE id = $1").bind(&id).run(&mut tx.conn).await?;
                Ok(())
            })
        })
        .await?;
        Ok(())
    }

    /// `None`: no such token, a wrong secret, disabled or expired; which of them is nobody's business.
    pub async fn token_authenticate(&self, id: &TokenId, secret_sha256: [u8; 32]) -> Result<Option<Token>> {
        let found = row(&mut *self.reader().await?, id).await?;
        let Some(row) = found.filter(|row| matches(&row.secret_sha256, secret_sha256)) else {
            return Ok(None);
        };
        let token = Token::try_from(row)?;
        let now = self.now();
        if token.disabled || token.expire_time.is_some_and(|end| end <= now) {
            return Ok(None);
        }
        self.token_used(&token, now);
        Ok(Some(token))
    }

    /// Writes it down at most once a minute, and lets nobody wait for it.
    fn token_used(&self, token: &Token, now: Timestamp) {
        let mut used = self.inner.used();
        let last = used.get(&token.id).copied().max(token.last_used_time);
        if last.is_some_and(|last| now.since(last) < USED_EVERY) {
            return;
        }
        used.insert(token.id.clone(), now);
        let (store, id) = (self.clone(), token.id.clone());
        tokio::spawn(async move {
            if let Err(error) = store.token_note_use(id, now).await {
                tracing::debug!(%error, "the use of a token was not written down");
            }
        });
    }

    async fn token_note_use(&self, id: TokenId, now: Timestamp) -> Result<()> {
        self.transaction(move |tx| {
            Box::pin(async move {
                sql("UPDATE tokens
                     SET last_used_time = $2
                     WHERE id = $1")
                .bind(&id)
                .bind(now)
                .run(&mut tx.conn)
                .await?;
                Ok(())
            })
        })
        .await
    }

    /// The token [`ADMIN`], made or mended, with a new secret. For whoever lost all others.
    pub async fn token_reset_admin(&self, call: &Call, secret_sha256: [u8; 32]) -> Result<Token> {
        let id = TokenId(ADMIN.to_owned());
        let done = self
            .mutate(call, About::platform(format!("tokens/{id}")), move |tx| {
                Box::pin(async move {
                    let token = Token {
                        id,
                        tenant: None,
                        role: Role::PlatformAdmin,
                        description: "made at the first start, or by `admin reset-token`".to_owned(),
                        disabled: false,
                        create_time: tx.now,
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
