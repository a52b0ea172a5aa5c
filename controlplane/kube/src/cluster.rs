//! The port of `croft_core::join::ports`, verb by verb; each is in the module of its noun.

use std::collections::BTreeMap;
use std::sync::Arc;

use croft_core::join::cluster::{
    Access, Anchor, Answer, BadAccess, BootstrapToken, Change, Eviction, Node, NodeEvent, Pod, Probe, Signing,
};
use croft_core::join::ports::{Asked, Cluster, Clusters};

use crate::Prefix;
use crate::connection::Connection;
use crate::{access, drain, event, node, policy, probe, signing, token};

/// Who owns the fields that Croft writes, for the API server.
pub(crate) const MANAGER: &str = "croft";

/// Clusters over the network.
#[derive(Debug, Clone, Default)]
pub struct KubeClusters {
    /// What tenants' clusters may be at, besides what is open to them anyhow.
    tenants: Arc<[Prefix]>,
}

impl KubeClusters {
    #[must_use]
    pub fn allowing(tenants: Vec<Prefix>) -> Self {
        Self { tenants: tenants.into() }
    }
}

impl Clusters for KubeClusters {
    fn open(&self, access: &Access) -> Result<Arc<dyn Cluster>, BadAccess> {
        Ok(Arc::new(access::open(access, &self.tenants)?))
    }
}

impl Cluster for Connection {
    fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    fn probe(&self) -> Asked<'_, Probe> {
        Box::pin(self.whole("probe the cluster", probe::probe(self)))
    }

    fn token_ensure<'a>(&'a self, token: &'a BootstrapToken) -> Asked<'a, ()> {
        Box::pin(token::ensure(self, token))
    }

    fn token_exists<'a>(&'a self, id: &'a str) -> Asked<'a, bool> {
        Box::pin(token::exists(self, id))
    }

    fn token_delete<'a>(&'a self, id: &'a str) -> Asked<'a, ()> {
        Box::pin(token::delete(self, id))
    }

    fn signings(&self) -> Asked<'_, Vec<Signing>> {
        Box::pin(self.whole("list certificate requests", signing::list(self)))
    }

    fn signing_answer<'a>(&'a self, signing: &'a Signing, answer: &'a Answer) -> Asked<'a, ()> {
        Box::pin(signing::answer(self, signing, answer))
    }

    fn signing_delete<'a>(&'a self, signing: &'a Signing) -> Asked<'a, ()> {
        Box::pin(signing::delete(self, signing))
    }

    fn nodes(&self) -> Asked<'_, Vec<Node>> {
        Box::pin(self.whole("list nodes", node::list(self)))
    }

    fn node<'a>(&'a self, name: &'a str) -> Asked<'a, Option<Node>> {
        Box::pin(node::get(self, name))
    }

    fn node_change<'a>(&'a self, name: &'a str, uid: &'a str, change: &'a Change) -> Asked<'a, ()> {
        Box::pin(self.whole("change a node", node::change(self, name, uid, change)))
    }

    fn node_delete<'a>(&'a self, name: &'a str, uid: &'a str) -> Asked<'a, ()> {
        Box::pin(node::delete(self, name, uid))
    }

    fn node_event<'a>(&'a self, event: &'a NodeEvent) -> Asked<'a, ()> {
        Box::pin(event::create(self, event))
    }

    fn pods<'a>(&'a self, node: &'a str) -> Asked<'a, Vec<Pod>> {
        Box::pin(self.whole("list pods", drain::pods(self, node)))
    }

    fn evict<'a>(&'a self, pod: &'a Pod) -> Asked<'a, Eviction> {
        Box::pin(drain::evict(self, pod))
    }

    fn roster_publish<'a>(&'a self, nodes: &'a BTreeMap<String, String>) -> Asked<'a, ()> {
        Box::pin(policy::publish(self, nodes))
    }

    fn policies_install(&self) -> Asked<'_, ()> {
        Box::pin(self.whole("install the policies", policy::install(self)))
    }
}
