//! What every mutating call has in common: a retry replays the first answer, a dry run changes nothing, and what was
//! done leaves one audit row in the same commit.

use croft_core::audit::{AuditEntry, Call};
use croft_core::id::{AuditUid, TenantId};
use croft_core::ports::BoxFuture;
use croft_core::{Error, Reason, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::AnyConnection;

use crate::audit;
use crate::column::{from_json, to_json};
use crate::open::Store;
use crate::sql::sql;
use crate::tx::Tx;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done<T> {
    New(T),
    /// A retry of a call that was done before; as it is now, or as it was then when it is gone.
    Replayed(T),
}

impl<T> Done<T> {
    pub fn into_inner(self) -> T {
        match self {
            Self::New(value) | Self::Replayed(value) => value,
        }
    }

    pub fn is_replayed(&self) -> bool {
        matches!(self, Self::Replayed(_))
    }
}

/// What the audit row says a call was about.
#[derive(Debug, Clone)]
pub(crate) struct About {
    /// Whose admins may read it; `None`: the platform's alone.
    pub tenant: Option<TenantId>,
    pub target: String,
}

impl About {
    pub fn tenant(tenant: &TenantId, target: String) -> Self {
        Self { tenant: Some(tenant.clone()), target }
    }

    pub fn platform(target: String) -> Self {
        Self { tenant: None, target }
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    body_digest: String,
    answer: String,
}

impl Store {
    /// Whether this call was made before, and done: what it was about may be gone by now.
    pub async fn call_answered(&self, call: &Call) -> Result<bool> {
        Ok(replay(&mut *self.reader().await?, call).await?.is_some())
    }

    pub(crate) async fn mutate<T, F>(&self, call: &Call, about: About, work: F) -> Result<Done<T>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T>> + Send + 'static,
    {
        let call = call.clone();
        self.transaction(move |tx| {
            Box::pin(async move {
                if let Some(answer) = replayed(&mut tx.conn, &call).await? {
                    return Ok(Done::Replayed(answer));
                }
                let value = work(tx).await?;
                if call.validate_only {
                    tx.discard();
                } else {
                    remember(tx, &call, &to_json(&value)?).await?;
                    let about = tx.about.take().unwrap_or(about);
                    audit::write(&mut tx.conn, &[done(&call, tx.now, &about)]).await?;
                    tx.announce();
                }
                Ok(Done::New(value))
            })
        })
        .await
    }
}

/// The row of a call that went well.
pub(crate) fn done(call: &Call, now: croft_core::Timestamp, about: &About) -> AuditEntry {
    AuditEntry {
        uid: AuditUid::new(now),
        time: now,
        actor: call.principal.actor(),
        method: call.method.to_owned(),
        tenant: about.tenant.clone(),
        target: about.target.clone(),
        request_id: call.request_id.clone(),
        result: "OK".to_owned(),
        message: String::new(),
        peer: call.peer.clone(),
    }
}

/// The first answer, when this call was made before.
pub(crate) async fn replayed<T: DeserializeOwned>(conn: &mut AnyConnection, call: &Call) -> Result<Option<T>> {
    let answer = replay(conn, call).await?;
    answer.map(|answer| from_json(&answer, "idempotency.answer")).transpose()
}

async fn replay(conn: &mut AnyConnection, call: &Call) -> Result<Option<String>> {
    if call.request_id.is_empty() {
        return Ok(None);
    }
    let row: Option<Row> = sql("SELECT body_digest, answer
                                FROM idempotency
                                WHERE actor = $1 AND method = $2 AND request_id = $3")
    .bind(call.principal.actor())
    .bind(call.method)
    .bind(&call.request_id)
    .optional(conn)
    .await?;
    row.map(|row| same(call, &row.body_digest).map(|()| row.answer)).transpose()
}

pub(crate) fn same(call: &Call, digest: &str) -> Result<()> {
    if digest == hex::encode(call.body_digest) {
        return Ok(());
    }
    Err(Error::Conflict {
        reason: Reason::RequestIdReused,
        message: format!("request_id `{}` was used before with another request; use a new one", call.request_id),
    })
}

async fn remember(tx: &mut Tx, call: &Call, answer: &str) -> Result<()> {
    if call.request_id.is_empty() {
        return Ok(());
    }
    sql("INSERT INTO idempotency (actor, method, request_id, body_digest, answer, create_time)
         VALUES ($1, $2, $3, $4, $5, $6)")
    .bind(call.principal.actor())
    .bind(call.method)
    .bind(&call.request_id)
    .bind(hex::encode(call.body_digest))
    .bind(answer)
    .bind(tx.now)
    .run(&mut tx.conn)
    .await?;
    Ok(())
}
