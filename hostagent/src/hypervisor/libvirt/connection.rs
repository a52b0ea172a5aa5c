//! The connections to libvirtd: opened when needed, given up when dead, never waited for without a deadline.
//!
//! ```text
//! call ────► asking  (one line, with the events)  ─┐
//! act ─────► acting  (one line)                    ├─► permit ─► live? ─yes─► blocking thread ─► answer
//! ask_guest► guests  (two lines, one call a guest) ┘              │ no          └ deadline passed: Unavailable; the
//!                                                                 └► one opener   thread is left to itself, and the
//!                                                                    at a time    keepalive ends it
//! ```
//! libvirtd serves five requests of one client at a time and then stops reading from it, keepalives too. So no line
//! carries more than [`ABREAST`] calls, and what may take long has lines of its own: a guest whose agent hangs, or a start
//! that fills a terabyte of memory, must not keep anybody from seeing what runs.
//!
//! libvirt's client blocks, so every call runs on a blocking thread. A libvirtd that hangs costs each caller its deadline
//! and then an [`Error::Unavailable`]. Events and reconnects are told on one broadcast channel.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, broadcast};
use uuid::Uuid;
use virt::connect::Connect;

use super::events::{self, Ear, Restarts, Session};
use crate::hypervisor::Error;

/// Calls on one line at a time: one less than libvirtd's `max_client_requests`, by default 5.
const ABREAST: usize = 4;
/// Lines to guests' agents. All lines together stay below libvirtd's `max_workers`, by default 20.
const GUEST_LINES: usize = 2;
/// For opening, and for calls that only ask.
pub const QUICK: Duration = Duration::from_secs(15);
/// For calls that start or stop something.
pub const SLOW: Duration = Duration::from_secs(120);
/// For a line to a guest to be free; whoever does not get one does without the guest's agent.
const QUEUE: Duration = Duration::from_secs(2);
/// How often a lost connection is tried again, so that events flow without anybody asking.
const RETRY: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub struct Connection {
    asking: Arc<Line>,
    acting: Arc<Line>,
    guests: Arc<[Arc<Line>]>,
    turns: Guests,
    events: broadcast::Sender<Option<Uuid>>,
    restarts: Restarts,
}

/// One client of libvirtd.
#[derive(Debug)]
struct Line {
    uri: String,
    live: Mutex<Option<Arc<Session>>>,
    /// Held by the one thread that opens, also when its caller has given up.
    opening: Arc<tokio::sync::Mutex<()>>,
    threads: Arc<Semaphore>,
    /// Who hears the events of this line; one line's are enough.
    ear: Option<Ear>,
}

impl Connection {
    /// Must be called inside a tokio runtime. Does not wait for libvirtd: it may come later.
    pub fn new(uri: &str) -> Self {
        let (events, _) = broadcast::channel(1024);
        let restarts = Restarts::default();
        let asking = Line::new(uri, Some(Ear { events: events.clone(), restarts: restarts.clone() }));
        tokio::spawn(keep_open(Arc::downgrade(&asking)));
        let guests = (0..GUEST_LINES).map(|_| Line::new(uri, None)).collect();
        Self { asking, acting: Line::new(uri, None), guests, turns: Guests::default(), events, restarts }
    }

    pub fn events(&self) -> broadcast::Receiver<Option<Uuid>> {
        self.events.subscribe()
    }

    /// How often this guest restarted while we watched.
    pub fn restarts(&self, uid: Uuid) -> u64 {
        self.restarts.of(uid)
    }

    /// Runs `work` with a live connection: for what is over in a moment. `what` completes "libvirt did not …".
    pub async fn call<T: Send + 'static>(
        &self,
        deadline: Duration,
        what: &'static str,
        work: impl FnOnce(&Connect) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        within(deadline, what, self.asking.call(what, work)).await
    }

    /// For what may take long: definitions, starts, networks.
    pub async fn act<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Connect) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        within(SLOW, what, self.acting.call(what, work)).await
    }

    /// For calls that wait for the agent in a guest: one at a time for each guest. [`Error::Unavailable`] soon, when that
    /// guest has not answered the last one or too many guests are waited for.
    pub async fn ask_guest<T: Send + 'static>(
        &self,
        uid: Uuid,
        deadline: Duration,
        what: &'static str,
        work: impl FnOnce(&Connect) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let silent =
            || Error::Unavailable(format!("the agent of instance {uid} has not answered the last question yet"));
        let turn = soon(self.turns.turn(uid)).await.ok_or_else(silent)?;
        let free = self.guests.iter().max_by_key(|line| line.threads.available_permits()).unwrap_or(&self.asking);
        let many = || Error::Unavailable("too many guests' agents are waited for".to_owned());
        let permit = soon(Arc::clone(&free.threads)).await.ok_or_else(many)?;
        // With the work, not with its caller: a thread that hangs still holds libvirtd's time.
        let work = move |connect: &Connect| {
            let _held = (turn, permit);
            work(connect)
        };
        within(deadline, what, free.run(what, work)).await
    }
}

/// One question at a time for each guest. Held by the thread that asks, also when its caller has given up.
#[derive(Debug, Clone, Default)]
struct Guests(Arc<Mutex<HashMap<Uuid, Weak<Semaphore>>>>);

impl Guests {
    fn turn(&self, uid: Uuid) -> Arc<Semaphore> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(&uid).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Semaphore::new(1));
        turns.insert(uid, Arc::downgrade(&turn));
        turn
    }
}

/// `None`: not soon.
async fn soon(semaphore: Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    tokio::time::timeout(QUEUE, semaphore.acquire_owned()).await.ok()?.ok()
}

async fn within<T>(deadline: Duration, what: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = |_| Error::Unavailable(format!("libvirt did not {what} in {} s", deadline.as_secs()));
    tokio::time::timeout(deadline, work).await.map_err(late)?
}

impl Line {
    fn new(uri: &str, ear: Option<Ear>) -> Arc<Self> {
        let threads = Arc::new(Semaphore::new(ABREAST));
        Arc::new(Self { uri: uri.to_owned(), live: Mutex::default(), opening: Arc::default(), threads, ear })
    }

    async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        work: impl FnOnce(&Connect) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.threads).acquire_owned().await;
        let work = move |connect: &Connect| {
            let _permit = permit;
            work(connect)
        };
        self.run(what, work).await
    }

    /// Whoever runs something has a permit, and leaves it to the thread.
    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        work: impl FnOnce(&Connect) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let session = self.session().await?;
        let line = Arc::clone(self);
        let blocking = tokio::task::spawn_blocking(move || {
            let result = work(session.connect());
            // Whatever the error says: on a dead connection it says nothing about the domain.
            if result.is_err() && !session.is_alive() {
                line.give_up(&session);
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
        let line = Arc::clone(self);
        let opened = tokio::task::spawn_blocking(move || {
            let _opening = opening;
            let session = Session::open(&line.uri, line.ear.as_ref())
                .map(Arc::new)
                .map_err(|e| Error::Unavailable(format!("cannot reach libvirtd at {}: {}", line.uri, e.message())))?;
            *line.slot() = Some(Arc::clone(&session));
            if let Some(ear) = &line.ear {
                // Whatever happened before was not seen.
                let _ = ear.events.send(None);
                tracing::info!(uri = line.uri, "connected to libvirtd");
            }
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
            tracing::warn!(uri = self.uri, "a connection to libvirtd is dead");
        }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Session>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the connection again whenever it was lost, for as long as somebody holds it.
async fn keep_open(line: Weak<Line>) {
    events::start_loop();
    let mut last_error = String::new();
    loop {
        let Some(line) = line.upgrade() else { return };
        match tokio::time::timeout(QUICK, line.session()).await {
            Ok(Ok(session)) => {
                last_error.clear();
                drop(line);
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
