//! The connection to libvirtd: opened when needed, given up when it is dead, never waited for without a deadline.
//!
//! ```text
//! call ──► permit ──► live connection? ──yes──► blocking thread ──► answer
//!                          │ no                     └ deadline passed: Unavailable; the thread is left to itself,
//!                          └─► one opener at a time     and the keepalive ends it
//! ```
//! libvirt's client blocks, so every call runs on a blocking thread, and at most [`THREADS`] of them. A libvirtd that
//! hangs costs each caller its deadline and then an [`Error::Unavailable`]; a keepalive closes the connection under the
//! threads that hang. Events and reconnects are told on one broadcast channel.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, Semaphore, broadcast};
use uuid::Uuid;
use virt::connect::Connect;

use super::events::{self, Restarts, Session};
use crate::hypervisor::Error;

/// Blocking threads for libvirt; a survey of a large host needs one.
const THREADS: usize = 16;
/// Blocking threads that wait for guests: a guest that does not answer must not keep others from libvirt.
const PATIENT_THREADS: usize = 64;
/// For opening, and for calls that only ask.
pub const QUICK: Duration = Duration::from_secs(15);
/// For calls that start or stop something.
pub const SLOW: Duration = Duration::from_secs(120);
/// How often a lost connection is tried again, so that events flow without anybody asking.
const RETRY: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    uri: String,
    live: Mutex<Option<Arc<Session>>>,
    /// Held by the one thread that opens, also when its caller has given up.
    opening: Arc<tokio::sync::Mutex<()>>,
    threads: Arc<Semaphore>,
    patient_threads: Arc<Semaphore>,
    events: broadcast::Sender<Option<Uuid>>,
    restarts: Restarts,
}

impl Connection {
    /// Must be called inside a tokio runtime. Does not wait for libvirtd: it may come later.
    pub fn new(uri: &str) -> Self {
        let (events, _) = broadcast::channel(1024);
        let inner = Arc::new(Inner {
            uri: uri.to_owned(),
            live: Mutex::default(),
            opening: Arc::default(),
            threads: Arc::new(Semaphore::new(THREADS)),
            patient_threads: Arc::new(Semaphore::new(PATIENT_THREADS)),
            events,
            restarts: Restarts::default(),
        });
        tokio::spawn(keep_open(Arc::downgrade(&inner)));
        Self(inner)
    }

    pub fn events(&self) -> broadcast::Receiver<Option<Uuid>> {
        self.0.events.subscribe()
    }

    /// How often this guest restarted while we watched.
    pub fn restarts(&self, uid: Uuid) -> u64 {
        self.0.restarts.of(uid)
    }

    /// Runs `work` with a live connection. `what` completes "libvirt did not …".
    pub async fn call<T: Send + 'static>(
        &self,
        deadline: Duration,
        what: &'static str,
        work: impl FnOnce(&Connect) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        within(deadline, what, self.0.call(&self.0.threads, what, work)).await
    }

    /// For calls that wait for a guest.
    pub async fn call_patiently<T: Send + 'static>(
        &self,
        deadline: Duration,
        what: &'static str,
        work: impl FnOnce(&Connect) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        within(deadline, what, self.0.call(&self.0.patient_threads, what, work)).await
    }
}

async fn within<T>(deadline: Duration, what: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = |_| Error::Unavailable(format!("libvirt did not {what} in {} s", deadline.as_secs()));
    tokio::time::timeout(deadline, work).await.map_err(late)?
}

impl Inner {
    async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        threads: &Arc<Semaphore>,
        what: &'static str,
        work: impl FnOnce(&Connect) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let session = self.session().await?;
        let permit = Arc::clone(threads).acquire_owned().await;
        let inner = Arc::clone(self);
        let blocking = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let result = work(session.connect());
            // Whatever the error says: on a dead connection it says nothing about the domain.
            if result.is_err() && !session.is_alive() {
                inner.give_up(&session);
                return Err(Error::Unavailable(format!("libvirtd went away while asked to {what}")));
            }
            result
        });
        blocking.await.unwrap_or_else(|e| Err(Error::Unavailable(format!("libvirt did not {what}: {e}"))))
    }

    /// The live connection, opened if need be.
    async fn session(self: &Arc<Self>) -> Result<Arc<Session>, Error> {
        if let Some(session) = self.current() {
            return Ok(session);
        }
        let opening: OwnedMutexGuard<()> = Arc::clone(&self.opening).lock_owned().await;
        if let Some(session) = self.current() {
            return Ok(session);
        }
        let inner = Arc::clone(self);
        let opened = tokio::task::spawn_blocking(move || {
            let _opening = opening;
            let session = Session::open(&inner.uri, &inner.events, &inner.restarts)
                .map(Arc::new)
                .map_err(|e| Error::Unavailable(format!("cannot reach libvirtd at {}: {}", inner.uri, e.message())))?;
            *inner.slot() = Some(Arc::clone(&session));
            // Whatever happened before was not seen.
            let _ = inner.events.send(None);
            tracing::info!(uri = inner.uri, "connected to libvirtd");
            Ok(session)
        });
        opened.await.unwrap_or_else(|e| Err(Error::Unavailable(format!("cannot reach libvirtd: {e}"))))
    }

    fn current(&self) -> Option<Arc<Session>> {
        self.slot().clone().filter(|session| !session.is_closed())
    }

    fn give_up(&self, dead: &Arc<Session>) {
        let mut slot = self.slot();
        if slot.as_ref().is_some_and(|live| Arc::ptr_eq(live, dead)) {
            *slot = None;
            tracing::warn!(uri = self.uri, "the connection to libvirtd is dead");
        }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Session>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the connection again whenever it was lost, for as long as somebody holds it.
async fn keep_open(inner: std::sync::Weak<Inner>) {
    events::start_loop();
    let mut last_error = String::new();
    loop {
        let Some(inner) = inner.upgrade() else { return };
        match tokio::time::timeout(QUICK, inner.session()).await {
            Ok(Ok(session)) => {
                last_error.clear();
                drop(inner);
                session.closed().await;
                tracing::warn!("libvirtd closed the connection");
                // Dropping talks to libvirtd a last time: not on this thread.
                tokio::task::spawn_blocking(move || drop(session));
            }
            Ok(Err(error)) if error.to_string() != last_error => {
                tracing::warn!(%error, "no connection to libvirtd; trying again");
                last_error = error.to_string();
            }
            Ok(Err(_)) | Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}
