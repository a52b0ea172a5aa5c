//! Writing: one transaction at a time, on one connection, whole or not at all.
//!
//! A transaction runs in a task of its own, so that a caller who goes away cannot end it between two statements. Nothing
//! but SQL is awaited in it. The one revision counter is raised as its last act; watchers and waiters hear of it after
//! the commit.

use croft_core::event::{Event, Severity};
use croft_core::id::TenantId;
use croft_core::instance::{Instance, State};
use croft_core::ports::BoxFuture;
use croft_core::{Error, Result, Timestamp};
use sqlx::{AnyConnection, Connection as _, Executor as _};
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;
use tracing::Instrument as _;

use crate::call::About;
use crate::change::Pending;
use crate::crash;
use crate::error::{closed, database};
use crate::open::{Inner, Store, connect};
use crate::sql::sql;

/// The connection that writes; `None` while it is in use, or after it broke.
#[derive(Debug)]
pub(crate) struct Writer {
    conn: Option<AnyConnection>,
    closed: bool,
}

impl Writer {
    pub fn new(conn: AnyConnection) -> Self {
        Self { conn: Some(conn), closed: false }
    }

    pub fn close(&mut self) -> Option<AnyConnection> {
        self.closed = true;
        self.conn.take()
    }

    async fn take(&mut self, inner: &Inner) -> Result<AnyConnection> {
        if self.closed {
            return Err(closed());
        }
        match self.conn.take() {
            Some(conn) => Ok(conn),
            None => connect(&inner.dialect.writer_url(&inner.url), inner.dialect.writer_setup()).await,
        }
    }
}

/// Under way.
pub(crate) struct Tx {
    pub conn: AnyConnection,
    pub now: Timestamp,
    pub inner: Arc<Inner>,
    /// What the audit row shall say, when only the work itself finds out.
    pub about: Option<About>,
    changes: Vec<Pending>,
    /// Raise the revision even without a change that watchers see.
    announce: bool,
    /// Everything was checked; nothing is to be written.
    discard: bool,
    /// States entered by this commit, for the crash points.
    entered: Vec<State>,
}

impl Tx {
    pub fn announce(&mut self) {
        self.announce = true;
    }

    pub fn discard(&mut self) {
        self.discard = true;
    }

    pub fn enters(&mut self, state: State) {
        if !self.entered.contains(&state) {
            self.entered.push(state);
        }
    }

    pub fn event(&mut self, tenant: Option<&TenantId>, target: &str, reason: &str, message: &str, severity: Severity) {
        self.changes.push(Pending::Event(Event {
            revision: 0,
            time: self.now,
            tenant: tenant.cloned(),
            target: target.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            severity,
        }));
    }

    pub fn append(&mut self, event: Event) {
        self.changes.push(Pending::Event(event));
    }

    /// As it is after this change.
    pub fn instance_written(&mut self, instance: &Instance, created: bool) {
        self.changes.push(Pending::Instance { instance: Box::new(instance.clone()), created });
    }

    pub fn instance_removed(&mut self, instance: &Instance) {
        self.changes.push(Pending::Removed { instance: Box::new(instance.clone()) });
    }

    /// `None`: nothing was written that anybody would look at.
    async fn raise_revision(&mut self) -> Result<Option<i64>> {
        let steps = i64::try_from(self.changes.len()).unwrap_or(i64::MAX).max(i64::from(self.announce));
        if steps == 0 {
            return Ok(None);
        }
        let revision = sql("UPDATE revision
                            SET revision = revision + $1
                            WHERE singleton = 1
                            RETURNING revision")
        .bind(steps)
        .number(&mut self.conn)
        .await?;
        crate::change::write(&mut self.conn, &self.changes, revision - steps + 1, self.now).await?;
        Ok(Some(revision))
    }

    fn crash_points(&self, side: usize) {
        for state in &self.entered {
            if let Some(name) = state.row().crash_points.get(side) {
                crash::point(name);
            }
        }
    }
}

impl Store {
    pub(crate) async fn transaction<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T>> + Send + 'static,
    {
        // Whoever gives up while waiting has changed nothing.
        let writer = self.inner.writer.clone().lock_owned().await;
        let task = run(self.inner.clone(), writer, work).in_current_span();
        match tokio::spawn(task).await {
            Ok(answer) => answer,
            Err(join) => Err(Error::internal(format!("a transaction broke off: {join}"))),
        }
    }
}

async fn run<T, F>(inner: Arc<Inner>, mut writer: OwnedMutexGuard<Writer>, work: F) -> Result<T>
where
    F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T>> + Send,
{
    // Out of the writer while in use: should this task panic, the connection closes, and with it the transaction.
    let mut conn = writer.take(&inner).await?;
    conn.execute(sqlx::raw_sql(inner.dialect.begin())).await.map_err(database)?;
    let mut tx = Tx {
        conn,
        now: inner.clock.now(),
        inner: inner.clone(),
        about: None,
        changes: Vec::new(),
        announce: false,
        discard: false,
        entered: Vec::new(),
    };
    let outcome = match work(&mut tx).await {
        Ok(value) if tx.discard => Err(Ok(value)),
        Ok(value) => tx.raise_revision().await.map(|revision| (value, revision)).map_err(Err),
        Err(error) => Err(Err(error)),
    };
    match outcome {
        Ok((value, revision)) => {
            tx.crash_points(0);
            // Should it fail, the connection is dropped, and what it did not write goes with it.
            tx.conn.execute(sqlx::raw_sql("COMMIT")).await.map_err(database)?;
            tx.crash_points(1);
            writer.conn = Some(tx.conn);
            if let Some(revision) = revision {
                inner.changed.send_if_modified(|newest| revision > std::mem::replace(newest, revision.max(*newest)));
            }
            Ok(value)
        }
        Err(answer) => {
            match tx.conn.execute(sqlx::raw_sql("ROLLBACK")).await {
                Ok(_) => writer.conn = Some(tx.conn),
                // SQLite has rolled back by itself (a full disk), or worse: a new connection knows for certain.
                Err(error) => {
                    tracing::debug!(%error, "the writing connection is replaced");
                    drop(tx.conn.close().await);
                }
            }
            answer
        }
    }
}
