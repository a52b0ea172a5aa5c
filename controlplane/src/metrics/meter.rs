//! What the engine measures.

use std::sync::Arc;
use std::time::Duration;

use croft_core::instance::State;
use croft_engine::Meter;

use super::Metrics;

/// [`Metrics`] as the engine sees them.
#[derive(Debug)]
pub struct EngineMeter(pub Arc<Metrics>);

impl Meter for EngineMeter {
    fn claimed(&self, took: Duration, batch: usize) {
        self.0.placement_seconds.observe(took.as_secs_f64());
        self.0.claim_batch_size.observe(count(batch));
    }

    fn reconciled(&self, took: Duration, instances: usize) {
        self.0.reconcile_seconds.observe(took.as_secs_f64());
        self.0.reconcile_batch_size.observe(count(instances));
    }

    fn left(&self, state: State, spent: Duration) {
        self.0.left(state, spent);
    }
}

fn count(n: usize) -> f64 {
    u32::try_from(n).unwrap_or(u32::MAX).into()
}
