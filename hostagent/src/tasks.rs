//! Every task of one agent, so that it can be stopped as a whole, or dropped as a kill -9 would drop it.
//!
//! A panic ends the task it happened in, and is never silent: a task that everything else waits for takes the agent along
//! ([`Tasks::spawn_vital`]), because a process that is started again is better than one that only looks alive.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    end: CancellationToken,
    broken: CancellationToken,
    killed: Arc<RwLock<bool>>,
}

impl Tasks {
    /// Runs until it is done or the agent ends, whichever is first. A panic ends this task alone.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.track(async move {
            let _ = unless_it_panics("a task", task).await;
        });
    }

    /// The same for a task without which the agent is none: when it panics, [`Tasks::broken`] says so.
    pub fn spawn_vital(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let broken = self.broken.clone();
        self.track(async move {
            if unless_it_panics(name, task).await.is_none() {
                broken.cancel();
            }
        });
    }

    /// Returns when a vital task is no more.
    pub async fn broken(&self) {
        self.broken.cancelled().await;
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

    fn track(&self, task: impl Future<Output = ()> + Send + 'static) {
        let end = self.end.clone();
        self.tracker.spawn(async move {
            let _ = end.run_until_cancelled(task).await;
        });
    }
}

/// `None`: it did. Whatever it held is dropped; the panic's words are logged, and its place by the process's panic hook.
pub(crate) async fn unless_it_panics<T>(name: &str, task: impl Future<Output = T>) -> Option<T> {
    match AssertUnwindSafe(task).catch_unwind().await {
        Ok(done) => Some(done),
        Err(panic) => {
            let words = panic.downcast_ref::<&str>().copied();
            let words =
                words.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word");
            tracing::error!("{name} panicked: {words}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_breaks_the_agent_where_it_is_vital_and_the_task_elsewhere() {
        let tasks = Tasks::default();
        tasks.spawn(async { panic!("a tunnel") });
        tasks.spawn_vital("the link", async {});
        tokio::task::yield_now().await;
        assert!(tasks.broken().now_or_never().is_none());
        tasks.spawn_vital("the surveyor", async { panic!("nobody looks any more") });
        tasks.broken().await;
        tasks.stop().await;
    }
}
