//! The agent's two clocks, and the only place that reads them.
//!
//! [`Wall`] is for people: timestamps in reports. [`Steady`] is for deadlines: it counts from the machine's boot, also
//! while the agent is not running, and no step of the wall clock moves it. A steady time means nothing in another boot,
//! so what is journaled carries the boot id beside it ([`Moment`]).
//!
//! Stories hold a manual clock and move it.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Microseconds since 1970, as the machine believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wall(pub i64);

/// Microseconds since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Steady(pub i64);

/// A point in time of one boot of the machine; survives a restart of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    pub boot_id: String,
    pub at: Steady,
}

#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Manual(Arc<watch::Sender<i64>>),
}

impl Clock {
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Stands still at `micros` since 1970 until [`Clock::advance`] moves it; clones move together.
    #[must_use]
    pub fn manual(micros: i64) -> Self {
        Self(Source::Manual(Arc::new(watch::Sender::new(micros))))
    }

    /// Moves a manual clock. Nothing to do for the system's.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(now) = &self.0 {
            now.send_modify(|now| *now += micros(by));
        }
    }

    #[must_use]
    pub fn wall(&self) -> Wall {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else asks")]
            Source::System => {
                Wall(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, micros))
            }
            Source::Manual(now) => Wall(*now.borrow()),
        }
    }

    #[must_use]
    pub fn steady(&self) -> Steady {
        match &self.0 {
            Source::System => {
                let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                Steady(since_boot.tv_sec * 1_000_000 + since_boot.tv_nsec / 1_000)
            }
            Source::Manual(now) => Steady(*now.borrow()),
        }
    }

    pub async fn sleep(&self, span: Duration) {
        self.sleep_until(self.steady().plus(span)).await;
    }

    pub async fn sleep_until(&self, deadline: Steady) {
        match &self.0 {
            Source::System => {
                // A machine that was suspended wakes with the deadline passed, and a timer that has not noticed.
                while let Some(left) = deadline.left(self.steady()) {
                    tokio::time::sleep(left.min(Duration::from_secs(60))).await;
                }
            }
            Source::Manual(now) => {
                let mut moved = now.subscribe();
                // An error means that the clock was dropped: time stands still for ever.
                if moved.wait_for(|now| *now >= deadline.0).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

impl Wall {
    /// Zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    #[must_use]
    pub fn timestamp(self) -> prost_types::Timestamp {
        prost_types::Timestamp {
            seconds: self.0.div_euclid(1_000_000),
            nanos: i32::try_from(self.0.rem_euclid(1_000_000) * 1_000).unwrap_or(0),
        }
    }
}

impl Steady {
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }

    /// What is left until this; `None` when it has passed.
    #[must_use]
    pub fn left(self, now: Self) -> Option<Duration> {
        (self > now).then(|| Duration::from_micros(u64::try_from(self.0 - now.0).unwrap_or(0)))
    }
}

impl Moment {
    /// When `span` after this moment is, on the clock of `boot_id`; `None` when the moment was in another boot.
    #[must_use]
    pub fn after(&self, span: Duration, boot_id: &str) -> Option<Steady> {
        (self.boot_id == boot_id).then(|| self.at.plus(span))
    }
}

/// `span`, shortened or lengthened at random by up to a quarter, so that many agents do not knock at once.
#[must_use]
pub fn jitter(span: Duration) -> Duration {
    // The standard library's only source of randomness; nothing secret hangs on it.
    let random = RandomState::new().hash_one(0_u8) % 1_000;
    span.mul_f64(0.75 + 0.5 * (random as f64 / 1_000.0))
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_its_sleepers_when_it_passes_them() {
        let clock = Clock::manual(0);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move {
                clock.sleep(Duration::from_secs(10)).await;
                clock.steady()
            }
        });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(2));
        assert_eq!(sleeper.await.expect("sleeper"), Steady(11_000_000));
    }

    #[test]
    fn a_moment_of_another_boot_has_no_after() {
        let moment = Moment { boot_id: "a".to_owned(), at: Steady(5) };
        assert_eq!(moment.after(Duration::from_micros(2), "a"), Some(Steady(7)));
        assert_eq!(moment.after(Duration::from_micros(2), "b"), None);
    }

    #[test]
    fn a_timestamp_before_1970_is_well_formed() {
        assert_eq!(Wall(-1).timestamp(), prost_types::Timestamp { seconds: -1, nanos: 999_999_000 });
    }
}
