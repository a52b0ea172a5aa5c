//! Clusters as the engine holds them: connections that stay open ([`Handles`]), and the look at each of them once a minute
//! ([`prober`]).

pub(crate) mod prober;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use croft_core::Reason;
use croft_core::cluster::Cluster;
use croft_core::join::ports;
use croft_store::Store;

/// Connections by cluster. Opened when first needed, anew when the credential was replaced; opening says nothing to the
/// server, so a cluster that is away has a handle too.
pub struct Handles {
    clusters: Arc<dyn ports::Clusters>,
    open: Mutex<HashMap<String, Open>>,
}

struct Open {
    credential_digest: String,
    handle: Arc<dyn ports::Cluster>,
}

/// There is no connection to be had, whatever the network does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    pub reason: Reason,
    pub message: String,
}

impl fmt::Debug for Handles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handles").field("open", &self.connections().keys()).finish_non_exhaustive()
    }
}

impl Handles {
    #[must_use]
    pub fn new(clusters: Arc<dyn ports::Clusters>) -> Self {
        Self { clusters, open: Mutex::default() }
    }

    pub async fn open(&self, store: &Store, cluster: &Cluster) -> Result<Arc<dyn ports::Cluster>, Unusable> {
        let uid = &cluster.meta.uid;
        if let Some(open) =
            self.connections().get(uid).filter(|open| open.credential_digest == cluster.credential_digest)
        {
            return Ok(open.handle.clone());
        }
        let access = store.cluster_access(cluster).await.map_err(|error| {
            // Its cause is for the log, not for a condition.
            tracing::error!(cluster = cluster.name(), ?error, "the credential of a cluster cannot be read");
            let message = "its credential cannot be read; give the cluster a new one".to_owned();
            match error.reason() {
                Reason::Unavailable => Unusable { reason: Reason::Unavailable, message: error.to_string() },
                _ => Unusable { reason: Reason::ClusterCredentialRefused, message },
            }
        })?;
        let handle = self.clusters.open(&access).map_err(|bad| Unusable {
            reason: Reason::ClusterCredentialRefused,
            message: format!("its credential is not usable: {bad}"),
        })?;
        let open = Open { credential_digest: cluster.credential_digest.clone(), handle: handle.clone() };
        self.connections().insert(uid.clone(), open);
        Ok(handle)
    }

    /// Closes those of other clusters.
    pub fn keep(&self, uids: &BTreeSet<&str>) {
        self.connections().retain(|uid, _| uids.contains(uid.as_str()));
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        // Whole entries only: whatever panicked while it was held.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
