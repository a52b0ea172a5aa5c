//! Walks along the history, change by change, and says how far it came.

use std::time::Duration;

use croft_core::Result;
use croft_core::event::{Change, Topic};
use croft_core::id::TenantId;
use croft_store::{Changes, Store};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

const BATCH: usize = 256;
/// After so long without a word the reader gets a fresh token.
const BOOKMARK_EVERY: Duration = Duration::from_secs(30);
/// For what other replicas write, of which nobody tells this process.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A burst of commits is read in one go, not one by one by every watcher.
const AT_MOST_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Follower {
    store: Store,
    topic: Topic,
    within: Option<TenantId>,
    /// Everything up to and with this revision was read.
    revision: i64,
    changed: watch::Receiver<i64>,
    read_at: Instant,
    spoke_at: Instant,
}

#[derive(Debug)]
pub enum Step {
    Changes(Vec<Change>),
    /// Nothing up to and with this revision, for a while.
    Idle(i64),
}

impl Follower {
    #[must_use]
    pub fn new(store: &Store, topic: Topic, within: Option<TenantId>, revision: i64) -> Self {
        let now = Instant::now();
        let changed = store.changed();
        Self { store: store.clone(), topic, within, revision, changed, read_at: now, spoke_at: now }
    }

    /// What is there now; may be no changes at all.
    pub async fn read(&mut self) -> Result<Step> {
        self.changed.mark_unchanged();
        self.read_at = Instant::now();
        let within = self.within.as_ref();
        let Changes { changes, up_to } = self.store.changes_after(self.revision, self.topic, within, BATCH).await?;
        self.revision = up_to;
        Ok(Step::Changes(changes))
    }

    /// The reader was given a token. Until then a bookmark comes nearer, also while all that is found is not for him.
    pub fn spoke(&mut self) {
        self.spoke_at = Instant::now();
    }

    /// Waits until there is something to say. All that was read before must have been told.
    pub async fn next(&mut self) -> Result<Step> {
        loop {
            let bookmark = self.spoke_at + BOOKMARK_EVERY;
            if Instant::now() >= bookmark {
                self.spoke();
                return Ok(Step::Idle(self.revision));
            }
            match self.read().await? {
                Step::Changes(changes) if changes.is_empty() => {}
                step => return Ok(step),
            }
            tokio::select! {
                Ok(()) = self.changed.changed() => sleep_until(self.read_at + AT_MOST_EVERY).await,
                () = sleep(LOOK_EVERY) => {}
                () = sleep_until(bookmark) => {}
            }
        }
    }
}
