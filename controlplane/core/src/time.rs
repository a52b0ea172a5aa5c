//! Time as data. The clocks are read in one place, so that stories can move them.
//!
//! The wall clock says when something was, and may be set forward or back under a running process. The steady one says
//! how long something took: whatever is judged within one process, such as whether a host was heard lately, goes by it.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Microseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Zero when `earlier` is later: a clock that jumped back is not an error.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Where the time comes from.
pub trait Clock: Send + Sync + std::fmt::Debug + 'static {
    fn now(&self) -> Timestamp;

    /// Since some moment of this process; nothing sets it forward or back, and it may stand still while the machine
    /// sleeps. Means nothing to another process, so it is never stored.
    fn steady(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one home of the wall clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    }

    fn steady(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }
}

/// A clock that tests move.
#[derive(Debug)]
pub struct ManualClock {
    /// What the wall clock shows is this and the steady time: time passes for both in one step.
    start: AtomicI64,
    steady: AtomicI64,
}

impl ManualClock {
    #[must_use]
    pub fn at(start: Timestamp) -> Self {
        Self { start: AtomicI64::new(start.0), steady: AtomicI64::new(0) }
    }

    /// Time passes.
    pub fn advance(&self, span: Duration) {
        self.steady.fetch_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Somebody sets the wall clock: no time passes.
    pub fn set(&self, to: Timestamp) {
        self.start.store(to.0 - self.steady.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.start.load(Ordering::SeqCst) + self.steady.load(Ordering::SeqCst))
    }

    fn steady(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.steady.load(Ordering::SeqCst)).unwrap_or(0))
    }
}
