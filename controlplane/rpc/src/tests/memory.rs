//! Clusters in memory: one for each server that a test put up, seen as the test says.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use croft_core::Timestamp;
use croft_core::join::cluster::{
    Access, Anchor, Answer, BadAccess, BootstrapToken, Change, Eviction, Fault, Node, NodeEvent, Pod, Policies, Probe,
    Right, Signing,
};
use croft_core::join::ports::{Asked, Cluster, Clusters};

/// Knows kubeconfigs of the form `server token`.
#[derive(Debug, Default)]
pub struct Memory {
    seen: Mutex<HashMap<String, Seen>>,
    /// How often each server was asked.
    pub probes: Mutex<Vec<String>>,
    /// As what each credential was opened.
    pub opened: Mutex<Vec<String>>,
}

/// What a probe comes to.
pub type Seen = Result<Probe, Fault>;

pub fn good() -> Probe {
    Probe {
        version: "v1.36.3".to_owned(),
        serving_expires: Some(Timestamp(1_800_000_000_000_000)),
        ca_expires: Some(Timestamp(1_900_000_000_000_000)),
        credential_expires: Some(Timestamp(1_750_000_000_000_000)),
        missing: Vec::new(),
        policies: Policies::Installed,
        certificate_life: None,
        identity: None,
    }
}

pub fn right(verb: &'static str, resource: &'static str) -> Right {
    Right { verb, group: "", resource, namespace: Some("kube-system".to_owned()), name: None }
}

impl Memory {
    /// From now on `server` is seen so.
    pub fn put(&self, server: &str, seen: Seen) {
        self.seen.lock().unwrap().insert(server.to_owned(), seen);
    }
}

/// The port's side of it.
#[derive(Debug)]
pub struct Shared(pub Arc<Memory>);

impl Clusters for Shared {
    fn open(&self, access: &Access) -> Result<Arc<dyn Cluster>, BadAccess> {
        self.0.opened.lock().unwrap().push(format!("{access:?}"));
        let server = match access {
            Access::Kubeconfig(text) | Access::TenantsKubeconfig(text) => match text.split_once(' ') {
                Some((server, _)) => server.to_owned(),
                None => {
                    let (field, problem) = ("users[x].user.exec".to_owned(), "runs a command".to_owned());
                    return Err(BadAccess { field, problem });
                }
            },
            Access::InCluster => "https://inside".to_owned(),
        };
        // One CA for each first letter of a server's host.
        let ca_pins = vec![format!("sha256:{}", server.trim_start_matches("https://").get(..1).unwrap_or_default())];
        Ok(Arc::new(One { memory: self.0.clone(), anchor: Anchor { server, ca: String::new(), ca_pins } }))
    }
}

#[derive(Debug)]
struct One {
    memory: Arc<Memory>,
    anchor: Anchor,
}

fn never<'a, T>() -> Asked<'a, T> {
    unreachable!("clusters are only registered here")
}

impl Cluster for One {
    fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    fn probe(&self) -> Asked<'_, Probe> {
        let server = self.anchor.server.clone();
        self.memory.probes.lock().unwrap().push(server.clone());
        let seen = self.memory.seen.lock().unwrap().get(&server).cloned();
        let nobody = || Err(Fault::Unreachable { server, why: "connection refused".to_owned() });
        Box::pin(std::future::ready(seen.unwrap_or_else(nobody)))
    }

    fn token_ensure<'a>(&'a self, _: &'a BootstrapToken) -> Asked<'a, ()> {
        never()
    }

    fn token_exists<'a>(&'a self, _: &'a str) -> Asked<'a, bool> {
        never()
    }

    fn token_delete<'a>(&'a self, _: &'a str) -> Asked<'a, ()> {
        never()
    }

    fn signings(&self) -> Asked<'_, Vec<Signing>> {
        never()
    }

    fn signing_answer<'a>(&'a self, _: &'a Signing, _: &'a Answer) -> Asked<'a, ()> {
        never()
    }

    fn signing_delete<'a>(&'a self, _: &'a Signing) -> Asked<'a, ()> {
        never()
    }

    fn nodes(&self) -> Asked<'_, Vec<Node>> {
        never()
    }

    fn node<'a>(&'a self, _: &'a str) -> Asked<'a, Option<Node>> {
        never()
    }

    fn node_change<'a>(&'a self, _: &'a str, _: &'a str, _: &'a Change) -> Asked<'a, ()> {
        never()
    }

    fn node_delete<'a>(&'a self, _: &'a str, _: &'a str) -> Asked<'a, ()> {
        never()
    }

    fn node_event<'a>(&'a self, _: &'a NodeEvent) -> Asked<'a, ()> {
        never()
    }

    fn pods<'a>(&'a self, _: &'a str) -> Asked<'a, Vec<Pod>> {
        never()
    }

    fn evict<'a>(&'a self, _: &'a Pod) -> Asked<'a, Eviction> {
        never()
    }

    fn roster_publish<'a>(&'a self, _: &'a BTreeMap<String, String>) -> Asked<'a, ()> {
        never()
    }

    fn policies_install(&self) -> Asked<'_, ()> {
        never()
    }
}
