//! Steps of the wall clock: noticed by holding it against the steady one, look by look.
//!
//! Whoever compares the wall clock with what a database says (leases, the age of history) would take a clock that
//! somebody set for time that passed. A machine that slept looks the same, and is to be treated the same.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use croft_core::{Clock, Timestamp};

/// Reading two clocks takes no time; when it did, the process was held up in between and reads again.
const AT_ONCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct WallWatch {
    clock: Arc<dyn Clock>,
    last: (Timestamp, Duration),
}

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub wall: Timestamp,
    pub steady: Duration,
    /// Of the wall clock since the look before.
    pub step: Step,
}

/// How much further the wall clock moved than the steady one; negative: back. In microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step(i64);

impl WallWatch {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let last = read(&*clock);
        Self { clock, last }
    }

    pub fn look(&mut self) -> Look {
        let (wall, steady) = read(&*self.clock);
        let (last_wall, last_steady) = std::mem::replace(&mut self.last, (wall, steady));
        let passed = i64::try_from(steady.saturating_sub(last_steady).as_micros()).unwrap_or(i64::MAX);
        Look { wall, steady, step: Step(wall.0.saturating_sub(last_wall.0).saturating_sub(passed)) }
    }
}

fn read(clock: &dyn Clock) -> (Timestamp, Duration) {
    loop {
        let before = clock.steady();
        let wall = clock.now();
        let steady = clock.steady();
        if steady.saturating_sub(before) < AT_ONCE {
            return (wall, steady);
        }
    }
}

impl Step {
    pub fn exceeds(self, tolerance: Duration) -> bool {
        Duration::from_micros(self.0.unsigned_abs()) > tolerance
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Duration::from_micros(self.0.unsigned_abs()).as_secs();
        write!(f, "{seconds} s {}", if self.0 < 0 { "back" } else { "forward" })
    }
}

#[cfg(test)]
mod tests {
    use croft_core::time::ManualClock;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn time_that_passes_is_no_step_and_a_step_is_seen_once() {
        let clock = Arc::new(ManualClock::at(Timestamp(1_800_000_000_000_000)));
        let mut watch = WallWatch::new(clock.clone());
        clock.advance(100 * HOUR);
        assert_eq!(watch.look().step, Step(0));

        clock.set(clock.now().plus(2 * HOUR));
        clock.advance(HOUR);
        let look = watch.look();
        assert_eq!(look.step.to_string(), "7200 s forward");
        assert!(look.step.exceeds(HOUR) && !look.step.exceeds(2 * HOUR));
        assert_eq!((look.wall, look.steady), (clock.now(), 101 * HOUR));
        assert_eq!(watch.look().step, Step(0));

        clock.set(clock.now().minus(2 * HOUR));
        let step = watch.look().step;
        assert_eq!(step.to_string(), "7200 s back");
        assert!(step.exceeds(HOUR));
    }
}
