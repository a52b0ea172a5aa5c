//! The janitor: history is bounded, so that the database is.
//!
//! How old something is, is judged by the wall clock, and a wrong one would make all of history old at once. So by age
//! nothing goes until the clock has run steadily for [`SETTLED`]: after the start, and after each step that it made.
//! Until then only what exceeds the bound on rows goes. And the newest rows stay however old a clock makes them.

use std::sync::Arc;
use std::time::Duration;

use croft_core::{Clock, Result};
use croft_store::{Store, Trimmed};

use crate::wall::WallWatch;

const EVERY: Duration = Duration::from_secs(600);
/// Between two passes no clock that is only being corrected moves as far.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);
/// Time for whoever set the clock wrongly to notice.
const SETTLED: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub struct Janitor {
    store: Store,
    watch: WallWatch,
    /// Since when, by the steady clock, the wall clock has run as it should.
    steady_since: Duration,
}

impl Janitor {
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        let steady_since = clock.steady();
        Self { store, watch: WallWatch::new(clock), steady_since }
    }

    pub async fn run(mut self) {
        let mut timer = tokio::time::interval(EVERY);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            match self.pass().await {
                Ok(trimmed) => tracing::debug!(?trimmed, "history trimmed"),
                Err(error) => tracing::warn!(%error, "history is not trimmed now; trying again"),
            }
        }
    }

    async fn pass(&mut self) -> Result<Trimmed> {
        let look = self.watch.look();
        if look.step.exceeds(TOLERANCE) {
            tracing::warn!(
                "the clock was set {}: nothing is trimmed for its age until it has run steadily for {} min",
                look.step,
                SETTLED.as_secs() / 60
            );
            self.steady_since = look.steady;
        }
        let settled = look.steady.saturating_sub(self.steady_since) >= SETTLED;
        self.store.janitor(settled.then_some(look.wall)).await
    }
}

#[cfg(test)]
#[path = "janitor_tests.rs"]
mod tests;
