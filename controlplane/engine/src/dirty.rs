//! Who has to be looked at: the meeting place of everybody who noticed something and the reconciler, who looks.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use croft_core::id::InstanceUid;
use tokio::sync::{Notify, watch};

/// How many are looked at in one commit.
const BATCH: usize = 256;

/// Instances to look at. A set: a hundred wakes for one instance are one look.
#[derive(Debug, Default)]
pub struct Dirty {
    state: Mutex<State>,
    notify: Notify,
    /// How often something was added, for others who look at instances.
    touched: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    uids: BTreeSet<InstanceUid>,
    everything: bool,
}

impl Dirty {
    pub fn add(&self, uids: impl IntoIterator<Item = InstanceUid>) {
        self.lock().uids.extend(uids);
        self.notify.notify_one();
        self.touched.send_modify(|times| *times = times.wrapping_add(1));
    }

    /// Changes whenever something happened to an instance.
    pub fn touched(&self) -> watch::Receiver<u64> {
        self.touched.subscribe()
    }

    pub fn look_at_everything(&self) {
        self.lock().everything = true;
        self.notify.notify_one();
    }

    /// The next few, and whether everything unsettled is to be looked at.
    pub fn take(&self) -> (Vec<InstanceUid>, bool) {
        let mut state = self.lock();
        let batch: Vec<_> = state.uids.iter().copied().take(BATCH).collect();
        for uid in &batch {
            state.uids.remove(uid);
        }
        if !state.uids.is_empty() {
            self.notify.notify_one();
        }
        (batch, std::mem::take(&mut state.everything))
    }

    pub async fn woken(&self) {
        self.notify.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A set of ids is whole whatever panicked while it was held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
