//! Images on this host: one fetch for each at a time, however many instances wait for it, and none kept for ever.
//!
//! A fetch goes on while at least one instance waits. An image that nothing has wanted for a while is dropped from the
//! cache; the hypervisor keeps those that a disk is an overlay of.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use croft_proto::agent::v1::{DesiredImage, ImageObservation};
use croft_proto::v1::image::host_copy::State;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use uuid::Uuid;

use crate::board::Board;
use crate::clock::Wall;
use crate::hypervisor::{Error, Hypervisor};
use crate::metrics::Metrics;

/// An image that no instance has wanted for this long is dropped.
pub const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

type Outcome = Result<(), Arc<Error>>;
type Fetch = BoxFuture<'static, Outcome>;

/// Cheap to clone.
#[derive(Clone)]
pub struct Images(Arc<Inner>);

struct Inner {
    hypervisor: Arc<dyn Hypervisor>,
    board: Board,
    metrics: Metrics,
    // Weak: when the last waiter gives up, the fetch is dropped with it.
    running: Mutex<HashMap<String, WeakShared<Fetch>>>,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Images")
    }
}

impl Images {
    #[must_use]
    pub fn new(hypervisor: Arc<dyn Hypervisor>, board: Board, metrics: Metrics) -> Self {
        Self(Arc::new(Inner { hypervisor, board, metrics, running: Mutex::default() }))
    }

    /// Makes the image usable. Dropping the future lets the other waiters go on.
    pub async fn ensure(&self, image: &DesiredImage) -> Outcome {
        let fetch = self.join(image);
        fetch.await
    }

    fn join(&self, image: &DesiredImage) -> Shared<Fetch> {
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, fetch| fetch.upgrade().is_some_and(|fetch| fetch.peek().is_none()));
        if let Some(fetch) = running.get(&image.uid).and_then(WeakShared::upgrade) {
            return fetch;
        }
        let fetch = fetch(Arc::downgrade(&self.0), image.clone()).boxed().shared();
        if let Some(weak) = fetch.downgrade() {
            running.insert(image.uid.clone(), weak);
        }
        fetch
    }

    /// Drops what is neither wanted now nor was lately. `last_wanted` is brought up to date.
    pub async fn prune(&self, wanted: &HashSet<Uuid>, last_wanted: &mut BTreeMap<Uuid, i64>, now: Wall) {
        let seconds = now.0 / 1_000_000;
        for uid in wanted {
            last_wanted.insert(*uid, seconds);
        }
        let kept_for = i64::try_from(KEPT_FOR.as_secs()).unwrap_or(i64::MAX);
        // A clock that jumped back makes an image look wanted in the future; it is then kept a day more.
        for last in last_wanted.values_mut() {
            *last = (*last).min(seconds);
        }
        let expired: Vec<Uuid> =
            last_wanted.iter().filter(|(_, last)| seconds - **last > kept_for).map(|(uid, _)| *uid).collect();
        for uid in &expired {
            last_wanted.remove(uid);
        }
        let keep: Vec<Uuid> = last_wanted.keys().copied().collect();
        match self.0.hypervisor.prune_images(&keep).await {
            // Also those whose fetch failed: nobody waits for them any more.
            Ok(()) => self.0.board.keep_images(|uid| keep.iter().any(|kept| kept.to_string() == uid)),
            Err(error) => {
                self.0.metrics.hypervisor_error("prune_images");
                tracing::warn!("old images can not be dropped: {error}");
            }
        }
    }
}

async fn fetch(inner: Weak<Inner>, image: DesiredImage) -> Outcome {
    let Some(inner) = inner.upgrade() else { return Ok(()) };
    let done = AtomicU64::new(0);
    let report = |state: State, bytes_done: u64, bytes_total: u64, error: Option<&Error>| {
        inner.board.set_image(ImageObservation {
            uid: image.uid.clone(),
            state: state.into(),
            bytes_done: i64::try_from(bytes_done).unwrap_or(i64::MAX),
            bytes_total: i64::try_from(bytes_total).unwrap_or(i64::MAX),
            reason: error.map(Error::reason).unwrap_or_default().to_owned(),
            message: error.map(Error::message).unwrap_or_default(),
        });
    };
    let progress = |bytes_done: u64, bytes_total: u64| {
        let before = done.swap(bytes_done, Ordering::Relaxed);
        inner.metrics.image_fetched(bytes_done.saturating_sub(before));
        // The plane is told every percent, not every packet.
        let step = (bytes_total / 100).max(1);
        if bytes_done / step != before / step {
            report(State::Fetching, bytes_done, bytes_total, None);
        }
    };
    let outcome = inner.hypervisor.ensure_image(&image, &progress).await;
    let bytes = done.load(Ordering::Relaxed);
    match outcome {
        Ok(()) => {
            report(State::Ready, bytes, bytes, None);
            Ok(())
        }
        Err(error) => {
            inner.metrics.hypervisor_error("ensure_image");
            report(State::Failed, bytes, 0, Some(&error));
            Err(Arc::new(error))
        }
    }
}
