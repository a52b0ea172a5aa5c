//! Instances that join: what their hosts are told meanwhile, and steps that are bound to what they were decided on.

use std::time::Duration;

use croft_core::Clock;
use croft_core::cluster::{Cluster, Status};
use croft_core::id::InstanceUid;
use croft_core::instance::{Instance, Phase, Power, State};
use croft_core::join::machine::{Held, Node, Phase as NodePhase, Token, held, told};
use croft_core::join::node::Wish;
use croft_core::meta::{Labels, Meta};
use croft_core::ports::NewInstance;
use croft_store::{Command, Denied, NodeStep, Page, Stepped};
use sqlx::Connection as _;

use crate::bed::{Bed, call, h, refused, seen, small, t};

mod power;
mod repair;

const CLUSTER: &str = "tenants/acme/clusters/prod";

async fn bed() -> Bed {
    let bed = Bed::furnished().await;
    bed.registered(Some("acme"), "prod", &[]).await;
    bed
}

fn joining(tenant: &str, id: &str, cluster: &str) -> NewInstance {
    let mut new = small(tenant, id);
    new.spec.node = Some(Wish {
        cluster: cluster.to_owned(),
        cluster_uid: String::new(),
        recipe: "kubelet".to_owned(),
        labels: Labels::new(),
        taints: Vec::new(),
        repair: croft_core::join::keep::Repair::None,
    });
    new
}

impl Bed {
    /// Of a tenant, or the platform's for `shared`.
    async fn registered(&self, owner: Option<&str>, id: &str, shared: &[&str]) {
        let now = self.clock.now();
        let cluster = Cluster {
            meta: Meta::new(InstanceUid::new(now).to_string(), Labels::new(), Labels::new(), now),
            tenant: owner.map(t),
            id: id.to_owned(),
            description: String::new(),
            tenants: shared.iter().map(|tenant| t(tenant)).collect(),
            credential_digest: String::new(),
            node_server: String::new(),
            cluster_dns: Vec::new(),
            status: Status::default(),
        };
        self.store.cluster_create(&call(), cluster, None).await.unwrap();
    }

    async fn joins(&self, id: &str) -> Instance {
        self.claim(call(), joining("acme", id, CLUSTER)).await.unwrap().1
    }

    async fn step(&self, instance: &Instance, change: impl FnOnce(&mut Node)) -> Instance {
        let before = instance.node.clone().unwrap();
        let mut after = before.clone();
        change(&mut after);
        let step = NodeStep { uid: instance.uid, before, after, seed: None, news: None };
        match self.store.instance_node_step(step).await.unwrap() {
            Stepped::Done(instance) => instance,
            Stepped::Stale => panic!("nobody else was here"),
        }
    }

    async fn enters(&self, instance: &Instance, phase: NodePhase) -> Instance {
        let now = self.clock.now();
        self.step(&self.get(instance.uid).await, |node| node.enter(phase, now)).await
    }

    /// What its host is told: power and its counter, or that it is to be removed.
    async fn told(&self, instance: &Instance) -> Option<(Power, i64)> {
        let desired = self.store.host_desired(&h("h1")).await.unwrap();
        if desired.tombstones.iter().any(|tombstone| tombstone.uid == instance.uid) {
            return None;
        }
        let (told, ..) = desired.instances.into_iter().find(|(one, ..)| one.uid == instance.uid).expect("it is told");
        Some((told.intent.power, told.intent.power_generation))
    }
}

#[tokio::test]
async fn an_instance_joins_a_cluster_that_its_tenant_may_join_and_no_other() {
    let bed = bed().await;
    bed.tenant("acme-ml", Some("acme")).await;
    bed.tenant("other", None).await;
    bed.registered(None, "shared", &["acme"]).await;
    let one = bed.joins("one").await;
    let node = one.node.clone().unwrap();
    assert_eq!((node.phase, node.token), (NodePhase::Waiting, None));
    assert!(node.name.starts_with("one-") && node.name.ends_with(&one.uid.to_string()[28..]), "{}", node.name);
    assert_eq!(bed.get(one.uid).await, one);
    let below = bed.claim(call(), joining("acme-ml", "two", "clusters/shared")).await.unwrap().1;
    let uid = below.spec.node.unwrap().cluster_uid;
    assert_eq!(bed.store.instance_nodes(&uid).await.unwrap()[0].uid, below.uid);
    let why = async |tenant, cluster| refused(bed.claim(call(), joining(tenant, "x", cluster)).await).to_string();
    let foreign = why("other", CLUSTER).await;
    let nowhere = why("other", "tenants/acme/clusters/nowhere").await;
    assert_eq!(foreign.replace("prod", "nowhere"), nowhere, "whether it exists is not told");
    assert!(foreign.starts_with("instance.spec.node.cluster: "), "{foreign}");
    assert!(why("other", "clusters/shared").await.contains("does not exist"));
    bed.consistent().await;
}

#[tokio::test]
async fn a_host_starts_nothing_before_its_token_and_stops_nothing_before_its_node_has_left() {
    let bed = bed().await;
    let vm = bed.joins("vm").await;
    assert_eq!(bed.told(&vm).await, Some((Power::Stopped, 0)), "made ready, and not started");
    bed.see(vm.uid, Phase::Off).await;
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Pending));
    bed.enters(&vm, NodePhase::Booting).await;
    assert_eq!(bed.told(&vm).await, Some((Power::Running, 1)));
    bed.see(vm.uid, Phase::Running).await;
    bed.enters(&vm, NodePhase::Joined).await;
    bed.settle(vm.uid).await;

    let (stop, _) = bed.command(&vm, Command::Stop { timeout: None }).await.unwrap();
    assert_eq!(bed.told(&vm).await, Some((Power::Running, 1)), "its pods are drained first");
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Stopping));
    bed.enters(&vm, NodePhase::Leaving).await;
    // An agent answers to what it was told.
    let mut truth = seen(&bed.get(vm.uid).await, Phase::Running);
    truth.power_generation = 1;
    bed.store.instance_observe(&h("h1"), 1, vec![(vm.uid, truth)], false).await.unwrap();
    bed.settle(vm.uid).await;
    assert!(!bed.operation(&stop).await.done);
    bed.enters(&vm, NodePhase::Left).await;
    assert_eq!(bed.told(&vm).await, Some((Power::Stopped, 2)));
    bed.see(vm.uid, Phase::Off).await;
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Stopped));
    assert!(bed.operation(&stop).await.done);
    bed.command(&vm, Command::Start).await.unwrap();
    assert_eq!(bed.told(&vm).await, Some((Power::Stopped, 2)), "no token yet");
}

#[tokio::test]
async fn what_is_created_stopped_has_left_before_it_came() {
    let bed = bed().await;
    let new = NewInstance { power: Power::Stopped, ..joining("acme", "vm", CLUSTER) };
    let vm = bed.claim(call(), new).await.unwrap().1;
    assert_eq!(vm.node.clone().unwrap().phase, NodePhase::Left);
    assert_eq!(bed.told(&vm).await, Some((Power::Stopped, 1)));
    bed.delete(&vm).await;
    bed.consistent().await;
}

#[tokio::test]
async fn a_delete_is_told_to_the_host_when_the_node_has_left_and_only_then_its_absence_counts() {
    let bed = bed().await;
    let vm = bed.joins("vm").await;
    bed.enters(&vm, NodePhase::Booting).await;
    bed.see(vm.uid, Phase::Running).await;
    bed.enters(&vm, NodePhase::Joined).await;
    bed.command(&vm, Command::Delete { force: false }).await.unwrap();
    assert_eq!(bed.told(&vm).await, Some((Power::Running, 1)));
    // Somebody removed its domain by hand: that is no answer to a tombstone that nobody has seen.
    bed.see(vm.uid, Phase::Absent).await;
    bed.store.instance_observe(&h("h1"), 1, Vec::new(), true).await.unwrap();
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Deleting));
    bed.enters(&vm, NodePhase::Leaving).await;
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Deleting));
    let before = bed.get(vm.uid).await;
    let stale = seen(&before, Phase::Absent);
    let left = bed.enters(&vm, NodePhase::Left).await;
    assert_eq!((left.status.observed.clone(), bed.told(&vm).await), (None, None));
    bed.store.instance_observe(&h("h1"), 1, vec![(vm.uid, stale)], false).await.unwrap();
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Deleting), "said before the host knew");
    bed.see(vm.uid, Phase::Absent).await;
    assert_eq!(bed.settle(vm.uid).await.after, None);
    bed.consistent().await;
}

#[tokio::test]
async fn a_host_that_is_told_to_remove_it_before_its_node_left_leaves_the_row() {
    let bed = bed().await;
    let vm = bed.joins("vm").await;
    bed.enters(&vm, NodePhase::Booting).await;
    bed.see(vm.uid, Phase::Running).await;
    bed.enters(&vm, NodePhase::Joined).await;
    bed.command(&vm, Command::Delete { force: false }).await.unwrap();
    bed.enters(&vm, NodePhase::Leaving).await;
    // Its cluster does not answer.
    bed.step(&bed.get(vm.uid).await, |node| node.released = true).await;
    assert_eq!(bed.told(&vm).await, None);
    bed.see(vm.uid, Phase::Absent).await;
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Deleting), "its Node is still there");
    bed.enters(&vm, NodePhase::Left).await;
    assert_eq!(bed.settle(vm.uid).await.after, None, "what the host said stands");
}

#[tokio::test]
async fn a_start_fails_when_somebody_deletes_the_node_before_it_was_ready() {
    let bed = bed().await;
    let (create, vm) = bed.claim(call(), joining("acme", "vm", CLUSTER)).await.unwrap();
    bed.enters(&vm, NodePhase::Booting).await;
    bed.see(vm.uid, Phase::Running).await;
    bed.enters(&vm, NodePhase::Joined).await;
    bed.step(&bed.get(vm.uid).await, |node| node.reason = told::NODE_MISSING.to_owned()).await;
    bed.settle(vm.uid).await;
    let failure = bed.operation(&create).await.failure.expect("nobody makes it again");
    assert!(failure.message.contains("NodeMissing"), "{}", failure.message);
}

#[tokio::test]
async fn a_seed_that_cannot_be_opened_is_the_trouble_of_its_instance_alone() {
    let bed = bed().await;
    let (one, other) = (bed.joins("one").await, bed.joins("other").await);
    let file = bed.dir.path().join("croft.db");
    let mut conn = sqlx::AnyConnection::connect(&format!("sqlite:{}?mode=rw", file.display())).await.unwrap();
    let lose = sqlx::query("UPDATE secrets SET key_id = 'lost' WHERE digest = $1");
    lose.bind(one.intent.seed_digest.clone()).execute(&mut conn).await.unwrap();
    assert_eq!(bed.store.instance_seed(&one).await.unwrap(), None);
    assert!(bed.store.instance_seed(&other).await.unwrap().is_some());
}

#[tokio::test]
async fn a_fenced_machine_begins_anew_elsewhere_and_not_before_it_has_a_token() {
    let bed = bed().await;
    let vm = bed.joins("vm").await;
    bed.enters(&vm, NodePhase::Booting).await;
    bed.see(vm.uid, Phase::Running).await;
    bed.enters(&vm, NodePhase::Joined).await;
    bed.settle(vm.uid).await;
    bed.store.host_fence(&call(), &h("h1")).await.unwrap();
    let lost = bed.get(vm.uid).await;
    let node = lost.node.clone().unwrap();
    assert_eq!((node.phase, node.lost, lost.status.state), (NodePhase::Waiting, true, State::Placing));
    assert_eq!(held(&lost), Held::Off);
    // Deleted meanwhile: gone only when its Node is.
    bed.command(&lost, Command::Delete { force: false }).await.unwrap();
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Deleting));
    bed.enters(&vm, NodePhase::Left).await;
    assert_eq!(bed.settle(vm.uid).await.after, None);
    bed.consistent().await;
}

#[tokio::test]
async fn a_start_is_done_when_the_node_is_ready_and_failed_when_it_was_missed() {
    let bed = bed().await;
    let (create, vm) = bed.claim(call(), joining("acme", "vm", CLUSTER)).await.unwrap();
    bed.enters(&vm, NodePhase::Booting).await;
    bed.see(vm.uid, Phase::Running).await;
    bed.settle(vm.uid).await;
    let waits = bed.operation(&create).await;
    assert!(!waits.done && waits.progress.contains("its node is not ready yet: Booting"), "{}", waits.progress);
    bed.enters(&vm, NodePhase::Joined).await;
    bed.settle(vm.uid).await;
    assert!(!bed.operation(&create).await.done);
    let now = bed.clock.now();
    bed.step(&bed.get(vm.uid).await, |node| node.is_ready(true, now)).await;
    bed.settle(vm.uid).await;
    let done = bed.operation(&create).await;
    assert_eq!((done.done, done.failure), (true, None));

    let (create, vm) = bed.claim(call(), joining("acme", "late", CLUSTER)).await.unwrap();
    bed.see(vm.uid, Phase::Running).await;
    bed.enters(&vm, NodePhase::Missed).await;
    bed.settle(vm.uid).await;
    let failure = bed.operation(&create).await.failure.expect("it failed");
    assert_eq!(failure.reason, "NODE_NOT_JOINED");
}

#[tokio::test]
async fn a_step_is_bound_to_the_record_that_it_was_decided_on() {
    let bed = bed().await;
    let vm = bed.joins("vm").await;
    let old = vm.node.clone().unwrap();
    bed.enters(&vm, NodePhase::Booting).await;
    let mut after = old.clone();
    after.enter(NodePhase::Left, bed.clock.now());
    let step = NodeStep { uid: vm.uid, before: old, after, seed: None, news: None };
    let revision = bed.store.revision().await.unwrap();
    assert_eq!(bed.store.instance_node_step(step.clone()).await.unwrap(), Stepped::Stale);
    assert_eq!(bed.store.revision().await.unwrap(), revision, "nothing was written");
    let nobody = NodeStep { uid: InstanceUid::new(bed.clock.now()), ..step };
    assert_eq!(bed.store.instance_node_step(nobody).await.unwrap(), Stepped::Stale);
}

#[tokio::test]
async fn a_seed_with_a_token_takes_the_place_of_the_one_without_and_the_other_way_round() {
    let bed = bed().await;
    let vm = bed.joins("vm").await;
    let plain = bed.store.instance_seed(&vm).await.unwrap().expect("a seed");
    let mut equipped = plain.clone();
    equipped.files.insert("join".to_owned(), "abcdef.0123456789abcdef".to_owned());
    let mut after = vm.node.clone().unwrap();
    let expire_time = bed.clock.now().plus(Duration::from_secs(600));
    after.token = Some(Token { id: "abcdef".to_owned(), expire_time });
    let step =
        NodeStep { uid: vm.uid, before: vm.node.clone().unwrap(), after, seed: Some(equipped.clone()), news: None };
    let Stepped::Done(with) = bed.store.instance_node_step(step).await.unwrap() else { panic!("stale") };
    assert_ne!(with.intent.seed_digest, vm.intent.seed_digest);
    assert_eq!(bed.store.instance_seed(&with).await.unwrap().as_ref(), Some(&equipped));
    assert_eq!(bed.store.blob_get(&h("h1"), &vm.intent.seed_digest).await.unwrap(), None, "the old one is gone");
    assert!(bed.store.blob_get(&h("h1"), &with.intent.seed_digest).await.unwrap().is_some());
    // A plane that died between store and cluster finds it again.
    let bed = bed.reopen().await;
    assert_eq!(bed.get(vm.uid).await, with);
    let before = with.node.clone().unwrap();
    let after = Node { token: None, ..before.clone() };
    let step = NodeStep { uid: vm.uid, before, after, seed: Some(plain), news: None };
    let Stepped::Done(without) = bed.store.instance_node_step(step).await.unwrap() else { panic!("stale") };
    assert_eq!(without.intent.seed_digest, vm.intent.seed_digest);
    let dump = format!("{:?}", bed.dump().await);
    assert!(!dump.contains("0123456789abcdef") && bed.dump().await["secrets"].len() == 1);
    bed.consistent().await;
}

#[tokio::test]
async fn a_denied_request_is_where_its_tenant_can_read_it() {
    let bed = bed().await;
    let denied = Denied {
        instance: Some((t("acme"), "vm".to_owned())),
        cluster: CLUSTER.to_owned(),
        requester: "system:bootstrap:abcdef".to_owned(),
        request: "csr-x".to_owned(),
        more: 2,
        reason: "WrongName",
        message: "it names other".to_owned(),
    };
    bed.store.join_denied(vec![denied]).await.unwrap();
    let (audit, _) = bed.store.audit_list(Some(&t("acme")), &Page::first(10)).await.unwrap();
    let row = audit.iter().find(|row| row.result == "PERMISSION_DENIED").expect("a row");
    assert_eq!((row.actor.as_str(), row.target.as_str()), ("system:bootstrap:abcdef", "tenants/acme/instances/vm"));
    assert!(row.message.contains("csr-x and 2 more") && row.message.contains("WrongName: it names other"));
    let (events, ..) = bed.store.events_list(Some(&t("acme")), Some(&row.target), &Page::first(10)).await.unwrap();
    assert_eq!(events.last().map(|event| event.reason.as_str()), Some("NodeCertificateDenied"));
}
