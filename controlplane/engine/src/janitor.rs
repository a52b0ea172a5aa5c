//! The janitor: history is bounded, so that the database is.

use std::sync::Arc;
use std::time::Duration;

use croft_core::Clock;
use croft_store::Store;

const EVERY: Duration = Duration::from_secs(600);

pub async fn run(store: Store, clock: Arc<dyn Clock>) {
    let mut timer = tokio::time::interval(EVERY);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        match store.janitor(clock.now()).await {
            Ok(trimmed) => tracing::debug!(?trimmed, "history trimmed"),
            Err(error) => tracing::warn!(%error, "history is not trimmed now; trying again"),
        }
    }
}
