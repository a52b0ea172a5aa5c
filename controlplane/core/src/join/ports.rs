//! What the engine asks of a cluster; `croft-kube` answers from a real one, a fake from memory.
//!
//! Every verb may be repeated, ends by itself within a bounded time, and fails with a [`Fault`] that names the server.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cluster::{
    Access, Anchor, Answer, BadAccess, BootstrapToken, Change, Eviction, Fault, Node, NodeEvent, Pod, Probe, Signing,
};
use crate::ports::BoxFuture;

/// The future of a verb.
pub type Asked<'a, T> = BoxFuture<'a, Result<T, Fault>>;

/// Where clusters come from.
pub trait Clusters: Send + Sync + 'static {
    /// Reads the credential and says nothing to the server yet.
    fn open(&self, access: &Access) -> Result<Arc<dyn Cluster>, BadAccess>;
}

/// One cluster, as Croft speaks to it.
pub trait Cluster: Send + Sync + std::fmt::Debug + 'static {
    /// What is known of the cluster without a question to it.
    fn anchor(&self) -> &Anchor;

    /// Whether it answers, what Croft lacks there, and when which certificate ends.
    fn probe(&self) -> Asked<'_, Probe>;

    /// Makes the token, in the place of one of the same id: so it gets a new end. Between the two is a moment without.
    fn token_ensure<'a>(&'a self, token: &'a BootstrapToken) -> Asked<'a, ()>;
    fn token_exists<'a>(&'a self, id: &'a str) -> Asked<'a, bool>;
    /// Also when it is not there.
    fn token_delete<'a>(&'a self, id: &'a str) -> Asked<'a, ()>;

    /// The requests to the signers of kubelets that the cluster still keeps, answered or not, Croft's or not. Not all of them
    /// where somebody sends thousands: delete what is answered, and the next ones are seen.
    fn signings(&self) -> Asked<'_, Vec<Signing>>;
    /// Holds for exactly the request that was read: `Conflict` when it has changed since, or another answered it.
    fn signing_answer<'a>(&'a self, signing: &'a Signing, answer: &'a Answer) -> Asked<'a, ()>;
    /// Also when it is not there.
    fn signing_delete<'a>(&'a self, signing: &'a Signing) -> Asked<'a, ()>;

    fn nodes(&self) -> Asked<'_, Vec<Node>>;
    fn node<'a>(&'a self, name: &'a str) -> Asked<'a, Option<Node>>;
    /// Leaves alone what `change` does not name. `NotFound` when the node is gone, `Conflict` when another has its name.
    fn node_change<'a>(&'a self, name: &'a str, uid: &'a str, change: &'a Change) -> Asked<'a, ()>;
    /// Also when it is not there; `Conflict` when another node has its name.
    fn node_delete<'a>(&'a self, name: &'a str, uid: &'a str) -> Asked<'a, ()>;
    /// What happened to its machine, where people who look at the node see it. The same event twice is kept once.
    fn node_event<'a>(&'a self, event: &'a NodeEvent) -> Asked<'a, ()>;

    /// What keeps a drain from its end: every pod on the node but those of DaemonSets and of the kubelet itself.
    fn pods<'a>(&'a self, node: &'a str) -> Asked<'a, Vec<Pod>>;
    fn evict<'a>(&'a self, pod: &'a Pod) -> Asked<'a, Eviction>;

    /// The nodes that may exist, each with its providerID, for the admission policies: one of Croft's form that is not listed, or
    /// says that it is another's machine, cannot be created.
    fn roster_publish<'a>(&'a self, nodes: &'a BTreeMap<String, String>) -> Asked<'a, ()>;
    /// Needs more rights than anything else here: an administrator's, when a cluster is set up.
    fn policies_install(&self) -> Asked<'_, ()>;
}
