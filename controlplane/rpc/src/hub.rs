//! Who is connected right now, and who waits for what: memory of this process alone, lost without harm.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use croft_core::id::HostId;
use croft_core::{Clock, Error, Reason, Result, host};
use croft_proto::agent::v1::OpenTunnel;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::tunnel::Tunnels;

/// Requests to one agent that it has not taken yet; more mean that it does not read.
const TUNNELS_WAITING: usize = 64;

/// Where the engine's hints come in, and where handlers find the hosts.
#[derive(Debug)]
pub struct Hub {
    sessions: Arc<Sessions>,
    operations: watch::Sender<u64>,
    pub(crate) tunnels: Tunnels,
}

impl Hub {
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let sessions = Arc::new(Sessions { clock, live: Mutex::default(), next: AtomicI64::new(0) });
        Arc::new(Self { sessions, operations: watch::Sender::new(0), tunnels: Tunnels::default() })
    }

    /// What this host should run may have changed.
    pub fn wake_host(&self, id: &HostId) {
        if let Some(live) = self.sessions.lock().get(id) {
            live.wake.notify_one();
        }
    }

    /// Some operation may be done.
    pub fn wake_operations(&self) {
        self.operations.send_modify(|count| *count = count.wrapping_add(1));
    }

    #[must_use]
    pub fn sessions(&self) -> Arc<Sessions> {
        self.sessions.clone()
    }

    pub(crate) fn operations(&self) -> watch::Receiver<u64> {
        self.operations.subscribe()
    }
}

/// The hosts whose agents talk to this process.
#[derive(Debug)]
pub struct Sessions {
    clock: Arc<dyn Clock>,
    live: Mutex<HashMap<HostId, Live>>,
    next: AtomicI64,
}

#[derive(Debug)]
struct Live {
    number: i64,
    wake: Arc<Notify>,
    tunnels: mpsc::Sender<OpenTunnel>,
    heard: Arc<Heard>,
    replaced: CancellationToken,
}

/// When a host was last heard, in microseconds of the steady clock: setting the wall clock makes no host silent.
#[derive(Debug, Default)]
struct Heard(AtomicU64);

impl Heard {
    fn at(&self, steady: Duration) {
        self.0.store(u64::try_from(steady.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn before(&self, steady: Duration) -> Duration {
        steady.saturating_sub(Duration::from_micros(self.0.load(Ordering::Relaxed)))
    }
}

impl Sessions {
    /// The hosts that were heard from within the lease, by the plane's steady clock: theirs are the leases to renew.
    #[must_use]
    pub fn live(&self) -> Vec<HostId> {
        let now = self.clock.steady();
        let live = self.lock();
        let heard = live.iter().filter(|(_, live)| live.heard.before(now) <= host::LEASE);
        heard.map(|(id, _)| id.clone()).collect()
    }

    /// A new session of a host takes over from an older one, which ends: a connection that the network has long lost
    /// would otherwise keep the agent out until it is noticed.
    pub(crate) fn open(self: &Arc<Self>, host: &HostId) -> Session {
        let (tunnels, open_tunnels) = mpsc::channel(TUNNELS_WAITING);
        let live = Live {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            wake: Arc::default(),
            tunnels,
            heard: Arc::default(),
            replaced: CancellationToken::new(),
        };
        let session = Session {
            sessions: self.clone(),
            host: host.clone(),
            number: live.number,
            wake: live.wake.clone(),
            heard: live.heard.clone(),
            replaced: live.replaced.clone(),
            open_tunnels: tokio::sync::Mutex::new(open_tunnels),
        };
        session.heard();
        if let Some(older) = self.lock().insert(host.clone(), live) {
            older.replaced.cancel();
        }
        session
    }

    /// Asks the host's agent to dial a tunnel.
    pub(crate) fn ask(&self, host: &HostId, tunnel: OpenTunnel) -> Result<()> {
        let unavailable = |message| Error::Unavailable { reason: Reason::HostUnreachable, message };
        let live = self.lock();
        let live = live.get(host).ok_or_else(|| unavailable(format!("the agent of hosts/{host} is not connected")))?;
        live.tunnels
            .try_send(tunnel)
            .map_err(|_| unavailable(format!("the agent of hosts/{host} does not take what it is sent")))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HostId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One host's session, for as long as it is held.
#[derive(Debug)]
pub(crate) struct Session {
    sessions: Arc<Sessions>,
    host: HostId,
    number: i64,
    pub wake: Arc<Notify>,
    heard: Arc<Heard>,
    pub replaced: CancellationToken,
    pub open_tunnels: tokio::sync::Mutex<mpsc::Receiver<OpenTunnel>>,
}

impl Session {
    pub fn heard(&self) {
        self.heard.at(self.sessions.clock.steady());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut live = self.sessions.lock();
        // Not the one that took over.
        if live.get(&self.host).is_some_and(|live| live.number == self.number) {
            live.remove(&self.host);
        }
    }
}

#[cfg(test)]
mod tests {
    use croft_core::Timestamp;
    use croft_core::time::ManualClock;

    use super::*;

    #[test]
    fn a_newer_session_takes_over_and_the_older_ones_end_does_not_end_it() {
        let hub = Hub::new(Arc::new(ManualClock::at(Timestamp(0))));
        let (host, sessions) = (HostId::from("h1"), hub.sessions());
        let first = sessions.open(&host);
        let second = sessions.open(&host);
        assert!(first.replaced.is_cancelled() && !second.replaced.is_cancelled());
        drop(first);
        assert_eq!(sessions.live(), vec![host.clone()]);
        drop(second);
        assert_eq!(sessions.live(), []);
    }

    #[test]
    fn who_was_not_heard_within_the_lease_is_not_live() {
        let clock = Arc::new(ManualClock::at(Timestamp(1_000_000_000)));
        let hub = Hub::new(clock.clone());
        let (host, sessions) = (HostId::from("h1"), hub.sessions());
        let session = sessions.open(&host);
        clock.advance(host::LEASE);
        assert_eq!(sessions.live(), vec![host.clone()]);
        clock.advance(Duration::from_micros(1));
        assert_eq!(sessions.live(), []);
        session.heard();
        assert_eq!(sessions.live(), [host]);
    }

    #[test]
    fn setting_the_clock_makes_no_host_silent_and_no_silent_one_live() {
        let clock = Arc::new(ManualClock::at(Timestamp(1_000_000_000)));
        let hub = Hub::new(clock.clone());
        let (host, sessions) = (HostId::from("h1"), hub.sessions());
        let _session = sessions.open(&host);
        clock.set(Timestamp(900_000_000_000));
        assert_eq!(sessions.live(), [host]);
        clock.set(Timestamp(0));
        clock.advance(host::LEASE + Duration::from_micros(1));
        assert_eq!(sessions.live(), []);
    }

    #[test]
    fn an_agent_that_is_away_or_does_not_read_is_told_apart() {
        let hub = Hub::new(Arc::new(ManualClock::at(Timestamp(0))));
        let (host, sessions) = (HostId::from("h1"), hub.sessions());
        let away = sessions.ask(&host, OpenTunnel::default()).unwrap_err().to_string();
        assert!(away.contains("not connected"), "{away}");
        let _session = sessions.open(&host);
        for _ in 0..TUNNELS_WAITING {
            sessions.ask(&host, OpenTunnel::default()).unwrap();
        }
        let full = sessions.ask(&host, OpenTunnel::default()).unwrap_err().to_string();
        assert!(full.contains("does not take"), "{full}");
    }
}
