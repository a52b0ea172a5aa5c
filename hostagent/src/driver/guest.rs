//! Asks a running guest for its addresses and whether its agent answers: often until it does, then now and then.
//!
//! Its own task: a guest agent that hangs must not hold up a stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Shared;
use crate::hypervisor::Guest;
use crate::journal::Entry;

const WHILE_BOOTING: Duration = Duration::from_secs(2);
/// A guest that has not answered for so long has no agent, most likely.
const BOOTS_WITHIN: Duration = Duration::from_secs(600);
const LATER: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct GuestWatch {
    entry: Arc<Entry>,
    shared: Shared,
    latest: watch::Sender<Option<Guest>>,
    running: Option<DropGuard>,
}

impl GuestWatch {
    pub(super) fn new(entry: Arc<Entry>, shared: Shared) -> Self {
        Self { entry, shared, latest: watch::Sender::new(None), running: None }
    }

    /// What the guest last said in this run; `None`: nothing yet, or it does not run.
    pub(super) fn latest(&self) -> Option<Guest> {
        self.latest.borrow().clone()
    }

    pub(super) fn start(&mut self) {
        if self.running.is_some() {
            return;
        }
        let token = CancellationToken::new();
        self.running = Some(token.clone().drop_guard());
        let poll = poll(Arc::clone(&self.entry), self.shared.clone(), self.latest.clone());
        self.shared.tasks.spawn(async move {
            token.run_until_cancelled(poll).await;
        });
    }

    pub(super) fn stop(&mut self) {
        self.running = None;
        self.latest.send_replace(None);
    }
}

async fn poll(entry: Arc<Entry>, shared: Shared, latest: watch::Sender<Option<Guest>>) {
    let hurry_until = shared.clock.steady().plus(BOOTS_WITHIN);
    loop {
        // A guest that cannot be asked now is as silent as one that does not answer.
        let asked = tokio::time::timeout(PATIENCE, shared.hypervisor.guest(entry.uid)).await;
        let guest = asked.ok().and_then(Result::ok).unwrap_or_default();
        let ready = guest.agent;
        let changed = latest.send_if_modified(|known| {
            let differs = known.as_ref() != Some(&guest);
            *known = Some(guest);
            differs
        });
        if changed {
            entry.wake();
        }
        let hurry = !ready && hurry_until.left(shared.clock.steady()).is_some();
        shared.clock.sleep(if hurry { WHILE_BOOTING } else { LATER }).await;
    }
}
