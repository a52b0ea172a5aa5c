//! The prober: looks at every cluster once a minute, and at once at one that was registered or changed.
//!
//! Each cluster has a task of its own, so that one that hangs holds up nobody. What a look comes to is core's to say
//! ([`health`]); here is only who is looked at, and when.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use croft_core::cluster::{Cluster, Status, health};
use croft_core::join::cluster::Ready;
use croft_core::join::ports;
use croft_core::{Reason, Result, Timestamp};
use croft_store::Store;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Handles, Unusable};

const EVERY: Duration = Duration::from_secs(60);
/// How soon a cluster that another replica registered is found.
const LIST_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct Prober {
    store: Store,
    handles: Arc<Handles>,
    changed: Arc<Notify>,
}

/// The task that looks at one cluster.
struct Watched {
    generation: i64,
    /// Look again now.
    again: Arc<Notify>,
}

impl Prober {
    pub fn new(store: Store, handles: Arc<Handles>) -> Self {
        Self { store, handles, changed: Arc::default() }
    }

    /// A cluster was registered, changed or deleted.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    pub async fn run(self) {
        let mut timer = tokio::time::interval(LIST_EVERY);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut watched = HashMap::new();
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                _ = timer.tick() => {}
                () = self.changed.notified() => {}
                Some(ended) = tasks.join_next() => {
                    match ended {
                        Ok(uid) => drop(watched.remove::<String>(&uid)),
                        Err(error) => {
                            tracing::error!(%error, "a look at a cluster broke off; all of them begin anew");
                            watched.clear();
                            tasks.shutdown().await;
                        }
                    }
                    continue;
                }
            }
            if let Err(error) = self.assign(&mut watched, &mut tasks).await {
                tracing::warn!(%error, "the clusters cannot be listed now; trying again");
            }
        }
    }

    /// A task for each cluster; the task of one that is gone ends by itself.
    async fn assign(&self, watched: &mut HashMap<String, Watched>, tasks: &mut JoinSet<String>) -> Result<()> {
        let clusters = self.store.cluster_all().await?;
        let uids: BTreeSet<&str> = clusters.iter().map(|cluster| cluster.meta.uid.as_str()).collect();
        self.handles.keep(&uids);
        for (uid, watched) in watched.iter() {
            if !uids.contains(uid.as_str()) {
                watched.again.notify_one();
            }
        }
        for cluster in &clusters {
            let (uid, generation) = (&cluster.meta.uid, cluster.meta.generation);
            match watched.get_mut(uid) {
                Some(watched) if watched.generation != generation => {
                    watched.generation = generation;
                    watched.again.notify_one();
                }
                Some(_) => {}
                None => {
                    let again = Arc::new(Notify::new());
                    watched.insert(uid.clone(), Watched { generation, again: again.clone() });
                    tasks.spawn(self.clone().watch(uid.clone(), again));
                }
            }
        }
        Ok(())
    }

    /// Until it is gone.
    async fn watch(self, uid: String, again: Arc<Notify>) -> String {
        loop {
            match self.store.cluster_by_uid(&uid).await {
                Ok(None) => return uid,
                Ok(Some(cluster)) => {
                    if let Err(error) = self.look(&cluster).await {
                        tracing::warn!(cluster = cluster.name(), %error, "what was seen is not written now; trying again");
                    }
                }
                Err(error) => tracing::warn!(%error, "a cluster cannot be read now; trying again"),
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = again.notified() => {}
            }
        }
    }

    /// At all of them, at the same time; returns when each was looked at.
    pub async fn look_at_all(&self) -> Result<()> {
        let clusters = self.store.cluster_all().await?;
        let looks = clusters.iter().map(|cluster| self.look(cluster));
        futures::future::join_all(looks).await.into_iter().collect()
    }

    async fn look(&self, cluster: &Cluster) -> Result<()> {
        let handle = match self.handles.open(&self.store, cluster).await {
            Ok(handle) => handle,
            // Our database's trouble says nothing of the cluster.
            Err(Unusable { reason: Reason::Unavailable, .. }) => return Ok(()),
            Err(Unusable { reason, message }) => {
                return self.tell(cluster, |before, now| health::unusable(before, reason, message, now)).await;
            }
        };
        let seen = handle.probe().await;
        let counts = if seen.is_ok() { count(handle.as_ref()).await } else { None };
        let status = |before: &Status, now| {
            let mut status = health::observed(before, handle.anchor(), seen.as_ref(), now);
            if let Some((nodes, nodes_ready)) = counts {
                (status.nodes, status.nodes_ready) = (nodes, nodes_ready);
            }
            status
        };
        self.tell(cluster, status).await
    }

    async fn tell(&self, cluster: &Cluster, status: impl FnOnce(&Status, Timestamp) -> Status) -> Result<()> {
        let uid = &cluster.meta.uid;
        // As it is by now: a look may take a minute, and what it saw by an old credential is of no use.
        let Some(now) = self.store.cluster_by_uid(uid).await? else { return Ok(()) };
        if now.credential_digest != cluster.credential_digest {
            return Ok(());
        }
        self.store.cluster_told(uid, status(&now.status, self.store.now())).await
    }
}

/// Of its nodes, and of those that are ready; `None`: not seen, which leaves what was known.
async fn count(handle: &dyn ports::Cluster) -> Option<(i64, i64)> {
    let nodes = handle.nodes().await.ok()?;
    let ready = nodes.iter().filter(|node| node.ready == Ready::Yes).count();
    Some((i64::try_from(nodes.len()).ok()?, i64::try_from(ready).ok()?))
}
