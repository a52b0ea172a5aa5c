//! What the engine tells the rest of the plane.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use croft_core::id::HostId;
use croft_core::instance::{Instance, State};
use croft_core::ports::BoxFuture;

/// Where the engine knocks after a commit.
#[derive(Clone)]
pub struct Hooks {
    /// What this host should run may have changed.
    pub host_changed: Arc<dyn Fn(&HostId) + Send + Sync>,
    /// Some operation may be done.
    pub operations_changed: Arc<dyn Fn() + Send + Sync>,
    /// The end of what a guest wrote to its console; empty where its host cannot be asked now.
    pub console: Console,
    pub meter: Arc<dyn Meter>,
}

/// Asks an instance's host.
pub type Console = Arc<dyn Fn(Instance) -> BoxFuture<'static, String> + Send + Sync>;

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooks")
    }
}

impl Hooks {
    /// Tells nobody: for tests of the engine alone.
    #[must_use]
    pub fn silent() -> Self {
        Self {
            host_changed: Arc::new(|_| {}),
            operations_changed: Arc::new(|| {}),
            console: Arc::new(|_| Box::pin(async { String::new() })),
            meter: Arc::new(NoMeter),
        }
    }
}

/// Durations and sizes worth a metric.
pub trait Meter: Send + Sync + 'static {
    /// From the request's arrival to its answer, and how many shared the commit.
    fn claimed(&self, took: Duration, batch: usize);
    /// One pass over `instances` of them.
    fn reconciled(&self, took: Duration, instances: usize);
    /// An instance left `state` after `spent` in it.
    fn left(&self, state: State, spent: Duration);
}

/// Measures nothing.
#[derive(Debug, Clone, Copy)]
pub struct NoMeter;

impl Meter for NoMeter {
    fn claimed(&self, _: Duration, _: usize) {}
    fn reconciled(&self, _: Duration, _: usize) {}
    fn left(&self, _: State, _: Duration) {}
}
