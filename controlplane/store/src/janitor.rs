//! The janitor: what is kept for a time goes when its time is over. In small commits, so that nobody waits for it.
//!
//! The newest rows of what people read, changes and audit, stay whatever their age: on a quiet plane they are the last
//! that is known, and no clock that was set wrongly takes all of it. Whether the clock can be believed, the caller knows.

use std::time::Duration;

use croft_core::event::{HISTORY, HISTORY_ROWS};
use croft_core::{Result, Timestamp};
use sqlx::AnyConnection;

use crate::open::Store;
use crate::sql::{Sql, sql};

/// Rows a commit.
const CHUNK: i64 = 5000;
const DAY: Duration = Duration::from_secs(24 * 3600);
const IDEMPOTENCY: Duration = DAY;
const OPERATIONS: Duration = Duration::from_secs(7 * 24 * 3600);
const AUDIT: Duration = Duration::from_secs(400 * 24 * 3600);

/// How many rows are kept.
#[derive(Debug, Clone, Copy)]
#[doc(hidden)]
pub struct HistoryRows {
    /// Of changes at most, however young.
    pub changes_most: i64,
    /// Of changes at least, however old.
    pub changes_least: i64,
    /// As `changes_least`.
    pub audit_least: i64,
}

impl Default for HistoryRows {
    fn default() -> Self {
        Self { changes_most: HISTORY_ROWS, changes_least: 1_000, audit_least: 10_000 }
    }
}

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
    /// Without a time, because the clock is not to be believed, nothing is too old; what is too many goes all the same.
    pub async fn janitor(&self, now: Option<Timestamp>) -> Result<Trimmed> {
        self.janitor_keeping(now, HistoryRows::default()).await
    }

    /// As [`Store::janitor`], with other bounds.
    #[doc(hidden)]
    pub async fn janitor_keeping(&self, now: Option<Timestamp>, rows: HistoryRows) -> Result<Trimmed> {
        // Nothing is from before the first of all times.
        let before = |span| now.map_or(Timestamp(i64::MIN), |now| now.minus(span));
        let audit_before = self.audit_cutoff(before(AUDIT), rows.audit_least).await?;
        Ok(Trimmed {
            idempotency: self
                .trim(move || {
                    sql("DELETE FROM idempotency
                         WHERE (actor, method, request_id) IN (
                             SELECT actor, method, request_id FROM idempotency WHERE create_time < $1 LIMIT $2)")
                    .bind(before(IDEMPOTENCY))
                    .bind(CHUNK)
                })
                .await?,
            changes: self.trim_changes(before(HISTORY), rows).await?,
            operations: self
                .trim(move || {
                    sql("DELETE FROM operations
                         WHERE uid IN (SELECT uid FROM operations WHERE done = 1 AND end_time < $1 LIMIT $2)")
                    .bind(before(OPERATIONS))
                    .bind(CHUNK)
                })
                .await?,
            audit: self
                .trim(move || {
                    sql("DELETE FROM audit
                         WHERE uid IN (SELECT uid FROM audit WHERE time < $1 LIMIT $2)")
                    .bind(audit_before)
                    .bind(CHUNK)
                })
                .await?,
            // A day longer than it is good for: a repeat of the call that spent it is answered again.
            enrolments: self
                .trim(move || {
                    sql("DELETE FROM enrolment_tokens
                         WHERE token_sha256 IN (
                             SELECT token_sha256 FROM enrolment_tokens WHERE expire_time < $1 LIMIT $2)")
                    .bind(before(DAY))
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

    /// Audit of before this may go: before `cutoff`, and not of the newest rows.
    async fn audit_cutoff(&self, cutoff: Timestamp, least: i64) -> Result<Timestamp> {
        let spare: Option<(i64,)> = sql("SELECT time FROM audit ORDER BY time DESC, uid DESC LIMIT 1 OFFSET $1")
            .bind(least)
            .optional(&mut *self.reader().await?)
            .await?;
        let spare = spare.map_or(Timestamp(i64::MIN), |(time,)| Timestamp(time).plus(Duration::from_micros(1)));
        Ok(cutoff.min(spare))
    }

    /// Too many, or too old and not of the newest. What was trimmed is written down, so that a token from before it is
    /// refused.
    async fn trim_changes(&self, before: Timestamp, rows: HistoryRows) -> Result<u64> {
        let mut tx = self.snapshot().await?;
        let too_many = change_at(&mut tx, rows.changes_most).await?;
        let spare = change_at(&mut tx, rows.changes_least).await?;
        let too_old: Option<(i64,)> = sql("SELECT revision
                                           FROM changes
                                           WHERE time < $1
                                           ORDER BY time DESC, revision DESC
                                           LIMIT 1")
        .bind(before)
        .optional(&mut tx)
        .await?;
        let too_old = too_old.zip(spare).map(|((old,), spare)| old.min(spare));
        drop(tx);
        let Some(cutoff) = too_many.max(too_old) else { return Ok(0) };
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

/// The newest change but so many.
async fn change_at(conn: &mut AnyConnection, newer: i64) -> Result<Option<i64>> {
    let found: Option<(i64,)> =
        sql("SELECT revision FROM changes ORDER BY revision DESC LIMIT 1 OFFSET $1").bind(newer).optional(conn).await?;
    Ok(found.map(|(revision,)| revision))
}
