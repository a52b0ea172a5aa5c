//! The janitor: what is kept for a time goes when its time is over. In small commits, so that nobody waits for it.

use std::time::Duration;

use croft_core::event::{HISTORY, HISTORY_ROWS};
use croft_core::{Result, Timestamp};

use crate::open::Store;
use crate::sql::{Sql, sql};

/// Rows a commit.
const CHUNK: i64 = 5000;
const DAY: Duration = Duration::from_secs(24 * 3600);
const IDEMPOTENCY: Duration = DAY;
const OPERATIONS: Duration = Duration::from_secs(7 * 24 * 3600);
const AUDIT: Duration = Duration::from_secs(400 * 24 * 3600);

/// How many rows went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trimmed {
    pub idempotency: u64,
    pub changes: u64,
    pub operations: u64,
    pub audit: u64,
    pub enrolments: u64,
}

impl Store {
    pub async fn janitor(&self, now: Timestamp) -> Result<Trimmed> {
        self.janitor_keeping(now, HISTORY_ROWS).await
    }

    /// As [`Store::janitor`], with another bound on the rows of history.
    #[doc(hidden)]
    pub async fn janitor_keeping(&self, now: Timestamp, history_rows: i64) -> Result<Trimmed> {
        Ok(Trimmed {
            idempotency: self
                .trim(move || {
                    sql("DELETE FROM idempotency
                         WHERE (actor, method, request_id) IN (
                             SELECT actor, method, request_id FROM idempotency WHERE create_time < $1 LIMIT $2)")
                    .bind(now.minus(IDEMPOTENCY))
                    .bind(CHUNK)
                })
                .await?,
            changes: self.trim_changes(now, history_rows).await?,
            operations: self
                .trim(move || {
                    sql("DELETE FROM operations
                         WHERE uid IN (SELECT uid FROM operations WHERE done = 1 AND end_time < $1 LIMIT $2)")
                    .bind(now.minus(OPERATIONS))
                    .bind(CHUNK)
                })
                .await?,
            audit: self
                .trim(move || {
                    sql("DELETE FROM audit
                         WHERE uid IN (SELECT uid FROM audit WHERE time < $1 LIMIT $2)")
                    .bind(now.minus(AUDIT))
                    .bind(CHUNK)
                })
                .await?,
            // A day longer than it is good for: a repeat of the call that spent it is answered again.
            enrolments: self
                .trim(move || {
                    sql("DELETE FROM enrolment_tokens
                         WHERE token_sha256 IN (
                             SELECT token_sha256 FROM enrolment_tokens WHERE expire_time < $1 LIMIT $2)")
                    .bind(now.minus(DAY))
                    .bind(CHUNK)
                })
                .await?,
        })
    }

    /// Until a commit finds fewer than it may take.
    async fn trim(&self, statement: impl Fn() -> Sql) -> Result<u64> {
        let mut trimmed = 0;
        loop {
            let delete = statement();
            let rows = self.transaction(move |tx| Box::pin(async move { delete.run(&mut tx.conn).await })).await?;
            trimmed += rows;
            if rows < CHUNK.unsigned_abs() {
                return Ok(trimmed);
            }
        }
    }

    /// Whichever bound ends first. What was trimmed is written down, so that a token from before it is refused.
    async fn trim_changes(&self, now: Timestamp, rows: i64) -> Result<u64> {
        let mut tx = self.snapshot().await?;
        let by_age: Option<(i64,)> = sql("SELECT revision
                                          FROM changes
                                          WHERE time < $1
                                          ORDER BY time DESC, revision DESC
                                          LIMIT 1")
        .bind(now.minus(HISTORY))
        .optional(&mut tx)
        .await?;
        let by_count: Option<(i64,)> = sql("SELECT revision FROM changes ORDER BY revision DESC LIMIT 1 OFFSET $1")
            .bind(rows)
            .optional(&mut tx)
            .await?;
        drop(tx);
        let Some((cutoff,)) = by_count.max(by_age) else { return Ok(0) };
        let mut trimmed = 0;
        loop {
            let rows = self
                .transaction(move |tx| {
                    Box::pin(async move {
                        let gone: Vec<(i64,)> = sql("DELETE FROM changes
                                                     WHERE revision IN (
                                                         SELECT revision
                                                         FROM changes
                                                         WHERE revision <= $1
                                                         ORDER BY revision
                                                         LIMIT $2)
                                                     RETURNING revision")
                        .bind(cutoff)
                        .bind(CHUNK)
                        .all(&mut tx.conn)
                        .await?;
                        if let Some((newest,)) = gone.iter().max() {
                            sql("UPDATE revision SET oldest = $1 WHERE oldest < $1")
                                .bind(*newest)
                                .run(&mut tx.conn)
                                .await?;
                        }
                        Ok(gone.len())
                    })
                })
                .await?;
            trimmed += rows as u64;
            if rows < usize::try_from(CHUNK).unwrap_or(usize::MAX) {
                break;
            }
        }
        Ok(trimmed)
    }
}
