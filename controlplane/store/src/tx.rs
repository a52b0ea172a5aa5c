//! Writing: one transaction at a time, on one connection, whole or not at all.
//!
//! A transaction runs in a task of its own, so that a caller who goes away cannot end it between two statements.
//! Nothing but SQL is awaited in it. The one revision counter is raised as its last act; watchers and waiters hear of
//! it after the commit.

use croft_core::event::{Event, Severity};
use croft_core::id::TenantId;
use croft_core::instance::{Instance, State};
use croft_core::ports::BoxFuture;
use croft_core::{Error, Result, Timestamp};
use sqlx::{AnyConnection, Connection as _, Executor as _};
use std::collections::HashSet;
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
    /// Where a process may die at this commit: before it, and after it.
    passes: Vec<&'static [&'static str]>,
}

impl Tx {
    pub fn announce(&mut self) {
        self.announce = true;
    }

    pub fn discard(&mut self) {
        self.discard = true;
    }

    pub fn enters(&mut self, state: State) {
        self.passes(state.row().crash_points);
    }

    pub fn passes(&mut self, points: &'static [&'static str]) {
        self.passes.push(points);
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

    /// Of an instance that this commit writes several times only the last counts: what it was in between, nobody could
    /// have read, and a watcher must not hear of it either.
    fn leave_out_what_nobody_could_read(&mut self) {
        let mut later = HashSet::new();
        let mut kept: Vec<Pending> = std::mem::take(&mut self.changes);
        kept.reverse();
        kept.retain(|change| match change {
            Pending::Event(_) => true,
            // That it is new is told in any case.
            Pending::Instance { instance, created } => later.insert(instance.uid) || *created,
            Pending::Removed { instance } => later.insert(instance.uid),
        });
        kept.reverse();
        self.changes = kept;
    }

    /// `None`: nothing was written that anybody would look at.
    async fn raise_revision(&mut self) -> Result<Option<i64>> {
        self.leave_out_what_nobody_could_read();
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
        for name in self.passes.iter().filter_map(|points| points.get(side)) {
            crash::point(name);
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
        passes: Vec::new(),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use croft_core::Reason;
    use croft_core::time::ManualClock;

    use super::*;
    use crate::Options;

    async fn store(dir: &tempfile::TempDir) -> Store {
        let clock = Arc::new(ManualClock::at(Timestamp(1)));
        Store::open(Options::in_dir(dir.path(), clock)).await.unwrap()
    }

    async fn events(store: &Store) -> usize {
        store.events_list(None, None, &crate::Page::first(1000)).await.unwrap().0.len()
    }

    fn event(message: String) -> Event {
        Event {
            revision: 0,
            time: Timestamp(0),
            tenant: None,
            target: "hosts/h1".to_owned(),
            reason: "Tried".to_owned(),
            message,
            severity: Severity::Info,
        }
    }

    async fn limit_pages(store: &Store, pragma: &'static str) {
        store.transaction(move |tx| Box::pin(async move { sql(pragma).number(&mut tx.conn).await })).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_refuses_a_write_whole_and_the_next_one_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        store.event_append(event("first".to_owned())).await.unwrap();
        // As small as it is now.
        limit_pages(&store, "PRAGMA max_page_count = 1").await;
        let error = store.event_append(event("x".repeat(300_000))).await.unwrap_err();
        assert_eq!(error.reason(), Reason::Unavailable);
        assert!(error.to_string().contains("is full; nothing was written"), "{error}");
        assert_eq!((events(&store).await, store.revision().await.unwrap()), (1, 1));
        limit_pages(&store, "PRAGMA max_page_count = 100000").await;
        store.event_append(event("x".repeat(300_000))).await.unwrap();
        assert_eq!((events(&store).await, store.revision().await.unwrap()), (2, 2));
    }

    #[tokio::test]
    async fn a_transaction_that_panics_is_rolled_back_and_the_next_one_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let broken = store.transaction::<(), _>(|tx| {
            Box::pin(async move {
                sql("UPDATE revision SET revision = 77").run(&mut tx.conn).await?;
                panic!("in the middle");
            })
        });
        let error = broken.await.unwrap_err();
        assert_eq!(error.reason(), Reason::Internal);
        assert_eq!(store.revision().await.unwrap(), 0);
        store.event_append(event("after".to_owned())).await.unwrap();
        assert_eq!(store.revision().await.unwrap(), 1);
    }

    #[tokio::test]
    async fn an_error_writes_nothing_not_even_what_came_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let fails = store.transaction::<(), _>(|tx| {
            Box::pin(async move {
                tx.append(event("never".to_owned()));
                sql("UPDATE revision SET revision = 5").run(&mut tx.conn).await?;
                Err(Error::not_found("hosts/x"))
            })
        });
        assert_eq!(fails.await, Err(Error::not_found("hosts/x")));
        assert_eq!((events(&store).await, store.revision().await.unwrap()), (0, 0));
    }

    #[tokio::test]
    async fn another_process_that_writes_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let second = self::store(&dir).await;
        let (one, two) =
            tokio::join!(store.event_append(event("1".to_owned())), second.event_append(event("2".to_owned())));
        one.unwrap();
        two.unwrap();
        assert_eq!(events(&store).await, 2);
    }
}
