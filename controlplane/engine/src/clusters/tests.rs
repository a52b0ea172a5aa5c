//! Handles and the prober, over a store on files and clusters in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use croft_core::Clock;
use croft_core::access::Principal;
use croft_core::audit::Call;
use croft_core::cluster::Status;
use croft_core::cluster::health::Kind;
use croft_core::condition::ConditionStatus;
use croft_core::id::ImageUid;
use croft_core::join::cluster::{
    Access, Anchor, Answer, BadAccess, BootstrapToken, Change, Eviction, Fault, Node, NodeEvent, Pod, Policies, Probe,
    Ready, Signing,
};
use croft_core::join::ports::Asked;
use croft_core::meta::{Labels, Meta};
use croft_store::{NewCredential, Page};
use tokio::sync::Notify;

use super::prober::Prober;
use super::*;
use crate::bed::Bed;

const PATIENCE: Duration = Duration::from_secs(180);

/// By the text of the kubeconfig, which is the server too.
#[derive(Debug, Default)]
struct Memory {
    faults: Mutex<HashMap<String, Fault>>,
    /// Servers that do not answer until they are told to.
    hanging: Mutex<HashMap<String, Arc<Notify>>>,
    opened: AtomicUsize,
    probed: Mutex<HashMap<String, usize>>,
    asked: Notify,
}

#[derive(Debug)]
struct Shared(Arc<Memory>);

impl ports::Clusters for Shared {
    fn open(&self, access: &Access) -> Result<Arc<dyn ports::Cluster>, BadAccess> {
        let Access::Kubeconfig(server) = access else { panic!("{access:?}") };
        if server == "bad" {
            return Err(BadAccess { field: "users".to_owned(), problem: "is none of ours any more".to_owned() });
        }
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(One { memory: self.0.clone(), anchor: anchor(server) }))
    }
}

fn anchor(server: &str) -> Anchor {
    Anchor { server: server.to_owned(), ca: String::new(), ca_pins: vec!["sha256:1".to_owned()] }
}

#[derive(Debug)]
struct One {
    memory: Arc<Memory>,
    anchor: Anchor,
}

fn never<'a, T>() -> Asked<'a, T> {
    unreachable!("the prober only looks")
}

fn node(name: &str, ready: Ready) -> Node {
    Node {
        name: name.to_owned(),
        uid: String::new(),
        provider_id: None,
        ready,
        cordoned: false,
        labels: Labels::new(),
        annotations: Labels::new(),
        taints: Vec::new(),
        addresses: BTreeSet::new(),
        capacity: Default::default(),
        allocatable: Default::default(),
    }
}

impl ports::Cluster for One {
    fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    fn probe(&self) -> Asked<'_, Probe> {
        let server = self.anchor.server.clone();
        *self.memory.probed.lock().unwrap().entry(server.clone()).or_default() += 1;
        self.memory.asked.notify_one();
        let gate = self.memory.hanging.lock().unwrap().get(&server).cloned();
        let fault = self.memory.faults.lock().unwrap().get(&server).cloned();
        let probe = Probe {
            version: "v1.36.3".to_owned(),
            serving_expires: None,
            ca_expires: None,
            credential_expires: None,
            missing: Vec::new(),
            policies: Policies::Installed,
            certificate_life: None,
            identity: None,
        };
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.notified().await;
            }
            fault.map_or(Ok(probe), Err)
        })
    }

    fn nodes(&self) -> Asked<'_, Vec<Node>> {
        let nodes = [("a", Ready::Yes), ("b", Ready::No(String::new())), ("c", Ready::Silent)];
        Box::pin(std::future::ready(Ok(nodes.map(|(name, ready)| node(name, ready)).into())))
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

fn call() -> Call {
    Call {
        principal: Principal::Local,
        method: "/test/Cluster",
        request_id: String::new(),
        body_digest: [0; 32],
        peer: String::new(),
        validate_only: false,
    }
}

struct Scene {
    bed: Bed,
    memory: Arc<Memory>,
    handles: Arc<Handles>,
    prober: Prober,
}

impl Scene {
    async fn new() -> Self {
        let bed = Bed::new().await;
        let memory = Arc::<Memory>::default();
        let handles = Arc::new(Handles::new(Arc::new(Shared(memory.clone()))));
        let prober = Prober::new(bed.store.clone(), handles.clone());
        Self { bed, memory, handles, prober }
    }

    async fn register(&self, id: &str, kubeconfig: &str) -> Cluster {
        let now = self.bed.clock.now();
        let cluster = Cluster {
            meta: Meta::new(ImageUid::new(now).to_string(), Labels::new(), Labels::new(), now),
            tenant: None,
            id: id.to_owned(),
            description: String::new(),
            tenants: Vec::new(),
            credential_digest: String::new(),
            node_server: String::new(),
            cluster_dns: Vec::new(),
            status: Status::default(),
        };
        self.bed.store.cluster_create(&call(), cluster, Some(kubeconfig.to_owned())).await.unwrap().into_inner()
    }

    async fn replace(&self, id: &str, kubeconfig: &str) -> Cluster {
        let credential = NewCredential { kubeconfig: Some(kubeconfig.to_owned()), status: Status::default() };
        let done = self.bed.store.cluster_update(&call(), None, id, "", Some(credential), |_| Ok(())).await;
        done.unwrap().into_inner()
    }

    async fn get(&self, id: &str) -> Cluster {
        self.bed.store.cluster_get(None, id).await.unwrap().unwrap()
    }

    async fn is(&self, id: &str, kind: Kind) -> ConditionStatus {
        self.get(id).await.status.condition(kind).unwrap().status
    }

    /// Until the answer is notified.
    fn hang(&self, server: &str) -> Arc<Notify> {
        let gate = Arc::new(Notify::new());
        self.memory.hanging.lock().unwrap().insert(server.to_owned(), gate.clone());
        gate
    }

    fn probed(&self, server: &str) -> usize {
        self.memory.probed.lock().unwrap().get(server).copied().unwrap_or_default()
    }

    /// Looked at so often, by the prober itself.
    async fn until_probed(&self, server: &str, times: usize) {
        let enough = async {
            while self.probed(server) < times {
                self.memory.asked.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, enough).await.expect("looked at in time");
    }

    async fn events(&self) -> Vec<String> {
        let (events, ..) = self.bed.store.events_list(None, None, &Page::first(100)).await.unwrap();
        events.into_iter().map(|event| format!("{} {}", event.target, event.message)).collect()
    }
}

#[tokio::test]
async fn a_handle_is_opened_once_and_anew_for_a_new_credential() {
    let scene = Scene::new().await;
    let cluster = scene.register("prod", "https://a").await;
    let open = async |cluster: &Cluster| scene.handles.open(&scene.bed.store, cluster).await;
    let first = open(&cluster).await.unwrap();
    assert!(Arc::ptr_eq(&first, &open(&cluster).await.unwrap()));
    let replaced = scene.replace("prod", "https://b").await;
    assert_eq!(open(&replaced).await.unwrap().anchor().server, "https://b");
    assert_eq!(scene.memory.opened.load(Ordering::SeqCst), 2);
    scene.handles.keep(&BTreeSet::new());
    open(&replaced).await.unwrap();
    assert_eq!(scene.memory.opened.load(Ordering::SeqCst), 3, "closed with its cluster");

    let bad = scene.replace("prod", "bad").await;
    let unusable = open(&bad).await.unwrap_err();
    assert_eq!(unusable.reason, Reason::ClusterCredentialRefused);
    assert!(unusable.message.contains("users: is none of ours any more"), "{unusable:?}");
    let lost = open(&cluster).await.unwrap_err();
    assert_eq!(lost.reason, Reason::ClusterCredentialRefused, "its secret went with its digest");
}

#[tokio::test]
async fn a_look_is_kept_and_a_turn_is_told_once() {
    let scene = Scene::new().await;
    scene.register("prod", "https://a").await;
    scene.register("other", "https://b").await;
    scene.register("odd", "bad").await;
    scene.prober.look_at_all().await.unwrap();
    let status = scene.get("prod").await.status;
    assert_eq!((status.version.as_str(), status.nodes, status.nodes_ready), ("v1.36.3", 3, 1));
    assert_eq!(scene.is("prod", Kind::Reachable).await, ConditionStatus::True);
    assert_eq!(scene.is("odd", Kind::CredentialValid).await, ConditionStatus::False);
    assert_eq!(scene.is("odd", Kind::Reachable).await, ConditionStatus::Unknown);

    let fault = Fault::Unreachable { server: "https://a".to_owned(), why: "refused".to_owned() };
    scene.memory.faults.lock().unwrap().insert("https://a".to_owned(), fault);
    for _ in 0..2 {
        scene.bed.clock.advance(Duration::from_secs(60));
        scene.prober.look_at_all().await.unwrap();
    }
    let lost = scene.get("prod").await.status;
    assert_eq!(scene.is("prod", Kind::Reachable).await, ConditionStatus::False);
    assert_eq!((lost.version.as_str(), lost.nodes), ("v1.36.3", 3), "not seen is not gone");
    assert_eq!(scene.is("other", Kind::Reachable).await, ConditionStatus::True);
    scene.memory.faults.lock().unwrap().clear();
    scene.prober.look_at_all().await.unwrap();
    let events = scene.events().await;
    let of_prod: Vec<_> = events.iter().filter(|event| event.starts_with("clusters/prod")).collect();
    assert_eq!(
        of_prod,
        [
            "clusters/prod Reachable is False: CLUSTER_UNREACHABLE: https://a cannot be reached: refused",
            "clusters/prod Reachable is True"
        ]
    );
}

#[tokio::test]
async fn one_that_hangs_holds_up_nobody_and_a_new_one_is_looked_at_at_once() {
    let scene = Scene::new().await;
    scene.register("stuck", "https://stuck").await;
    scene.hang("https://stuck");
    let running = tokio::spawn(scene.prober.clone().run());
    scene.until_probed("https://stuck", 1).await;

    scene.register("prod", "https://a").await;
    scene.prober.wake();
    scene.until_probed("https://a", 1).await;
    scene.replace("prod", "https://b").await;
    scene.prober.wake();
    scene.until_probed("https://b", 1).await;
    assert_eq!(scene.probed("https://stuck"), 1, "the look that hangs goes on");

    // One that is gone is looked at no more, and its task ends.
    scene.bed.store.cluster_delete(&call(), None, "prod", "").await.unwrap();
    scene.register("prod", "https://c").await;
    scene.prober.wake();
    scene.until_probed("https://c", 1).await;
    running.abort();
}

#[tokio::test]
async fn what_was_seen_by_an_old_credential_is_not_kept() {
    let scene = Scene::new().await;
    scene.register("prod", "https://slow").await;
    let gate = scene.hang("https://slow");
    let prober = scene.prober.clone();
    let looking = tokio::spawn(async move { prober.look_at_all().await });
    scene.until_probed("https://slow", 1).await;
    let replaced = scene.replace("prod", "https://b").await;
    gate.notify_one();
    looking.await.unwrap().unwrap();
    assert_eq!(scene.get("prod").await.status, replaced.status);
    scene.prober.look_at_all().await.unwrap();
    assert_eq!(scene.get("prod").await.status.server, "https://b");
}
