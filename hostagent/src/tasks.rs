//! Every task of one agent, so that it can be stopped as a whole, or dropped as a kill -9 would drop it.

use std::sync::{Arc, RwLock, RwLockReadGuard};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    end: CancellationToken,
    killed: Arc<RwLock<bool>>,
}

impl Tasks {
    /// Runs until it is done or the agent ends, whichever is first.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(self.end.clone().run_until_cancelled_owned(task));
    }

    /// Ends every task where it next waits, and waits for all of them.
    pub async fn stop(&self) {
        self.end.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// From the moment this returns, nothing of the agent is written any more.
    pub fn kill(&self) {
        *self.killed.write().unwrap_or_else(std::sync::PoisonError::into_inner) = true;
        self.end.cancel();
    }

    /// Held around a durable write; `None` once the agent was killed.
    pub fn alive(&self) -> Option<RwLockReadGuard<'_, bool>> {
        let killed = self.killed.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        (!*killed).then_some(killed)
    }
}
