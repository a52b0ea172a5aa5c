//! The life of an instance as a node, end to end on a cluster in memory: created, joined, drained, left, and a plane that is
//! killed at each step of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use croft_core::join::cluster::Ready;
use croft_core::join::node::{TENANT_LABEL, TENANT_TAINT, UNINITIALISED_TAINT};
use croft_proto::v1;
use croft_proto::v1::condition::Status;
use croft_proto::v1::instance_status::State;
use croft_proto::v1::node_status::Phase;
use croft_tests::cluster::Cut;
use croft_tests::{Fleet, Wanted};

#[path = "nodes/maintenance.rs"]
mod maintenance;
#[path = "nodes/pace.rs"]
mod pace;
#[path = "nodes/refused.rs"]
mod refused;
#[path = "nodes/repair.rs"]
mod repair;

/// Two cores, and whatever runs beside.
const DEADLINE: Duration = Duration::from_secs(180);

struct Story {
    fleet: Fleet,
    cluster: String,
    certificates: BTreeMap<String, bool>,
}

impl Story {
    async fn begin() -> Self {
        let fleet = Fleet::with_host("h1").await;
        let cluster = fleet.register_cluster("prod").await;
        Self { fleet, cluster, certificates: BTreeMap::new() }
    }

    fn request(&self, id: &str) -> v1::CreateInstanceRequest {
        let mut request = Wanted::default().request("acme", id);
        let spec = request.instance.as_mut().and_then(|instance| instance.spec.as_mut()).expect("a spec");
        spec.node = Some(v1::NodeWish {
            cluster: self.cluster.clone(),
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            ..Default::default()
        });
        request
    }

    /// Lets kubelets live until it is so. A plane that was cut off is killed and started again.
    async fn until<T, E: std::fmt::Debug>(&mut self, what: &str, mut is: impl AsyncFnMut(&Fleet) -> Result<T, E>) -> T {
        let began = tokio::time::Instant::now();
        loop {
            if self.fleet.cluster.is_cut() {
                self.fleet.plane_kill().await;
                self.fleet.cluster.mend();
                self.fleet.revive().await;
            }
            self.fleet.kubelets(&mut self.certificates);
            match is(&self.fleet).await {
                Ok(answer) => return answer,
                Err(last) => assert!(began.elapsed() < DEADLINE, "{what}: not in time; last seen: {last:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn phase(&mut self, id: &str, wanted: Phase) -> v1::Instance {
        let is = async |fleet: &Fleet| match fleet.api.get("acme", id).await {
            Ok(instance) => {
                let node = instance.status.clone().and_then(|status| status.node).unwrap_or_default();
                if node.phase() == wanted { Ok(instance) } else { Err(format!("{node:?}")) }
            }
            Err(status) => Err(status.to_string()),
        };
        self.until(&format!("{id} is {wanted:?}"), is).await
    }

    async fn ready(&mut self, id: &str) -> v1::Instance {
        let is = async |fleet: &Fleet| match fleet.api.get("acme", id).await {
            Ok(instance) if joined(&instance).is_some_and(|condition| condition.status() == Status::True) => {
                Ok(instance)
            }
            other => Err(format!("{other:?}")),
        };
        self.until(&format!("{id} is Ready"), is).await
    }

    async fn gone(&mut self, id: &str) {
        let is = async |fleet: &Fleet| match fleet.api.state("acme", id).await {
            None => fleet.cluster.left(),
            Some(state) => Err(format!("{state:?}")),
        };
        self.until(&format!("{id} is gone, here and there"), is).await;
    }

    async fn events(&self, id: &str) -> Vec<String> {
        let target = format!("tenants/acme/instances/{id}");
        let page = croft_store::Page::first(1000);
        let (events, ..) = self.fleet.store().events_list(None, Some(&target), &page).await.expect("events");
        events.into_iter().map(|event| event.reason).filter(|reason| reason.starts_with("Node")).collect()
    }

    async fn end(self) {
        self.fleet.consistent().await;
        self.fleet.end().await;
    }
}

fn joined(instance: &v1::Instance) -> Option<&v1::Condition> {
    let conditions = instance.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().find(|condition| condition.r#type == "Joined")
}

fn node_of(instance: &v1::Instance) -> String {
    instance.status.clone().and_then(|status| status.node).expect("a node").name
}

fn uid_of(instance: &v1::Instance) -> String {
    instance.metadata.clone().expect("metadata").uid
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_create_to_a_ready_node_and_out_again() {
    let mut story = Story::begin().await;
    story.fleet.cluster.state().no_kubelets = true;
    let create = story.fleet.api.create_as(story.request("train")).await.unwrap();
    let booting = story.phase("train", Phase::Booting).await;
    let (name, uid) = (node_of(&booting), uid_of(&booting));
    let has_token = async |fleet: &Fleet| {
        let running = fleet.sim("h1").is_running(&uid).await;
        let files = fleet.sim("h1").seed_files(&uid);
        if running && files.contains_key("croft-join.env") { Ok(files) } else { Err((running, files)) }
    };
    let files = story.until("it runs, with its token", has_token).await;
    assert!(files["croft-join.env"].contains(&format!("CROFT_NODE_NAME='{name}'")));
    let secret = story.fleet.cluster.state().tokens.values().next().expect("a token").secret.clone();
    story.fleet.nothing_on_disk_says(&secret).await;

    story.fleet.cluster.state().no_kubelets = false;
    story.phase("train", Phase::Joined).await;
    story.ready("train").await;
    story.fleet.api.done(&create).await.expect("a create is done when the node is Ready");
    let stripped = async |fleet: &Fleet| {
        let files = fleet.sim("h1").seed_files(&uid);
        if files.contains_key("croft-join.env") { Err("the token is still there") } else { Ok(()) }
    };
    story.until("the seed has no token any more", stripped).await;
    let dressed = async |fleet: &Fleet| {
        let state = fleet.cluster.state();
        let node = state.nodes[&name].clone();
        let ours = node.labels.get(TENANT_LABEL).is_some_and(|tenant| tenant == "acme") && node.has_taint(TENANT_TAINT);
        let asked = node.labels.get("zone").is_some_and(|zone| zone == "a");
        if ours && asked && !node.has_taint(UNINITIALISED_TAINT) && state.tokens.is_empty() {
            Ok(())
        } else {
            Err(node)
        }
    };
    story.until("the node is dressed, and its token gone", dressed).await;

    // Stopped: drained first. A budget keeps a pod, and is named.
    {
        let mut state = story.fleet.cluster.state();
        state.run(&name, "db-0");
        state.blocked = true;
    }
    let stop = story.fleet.api.stop("acme", "train").await.unwrap();
    let blocked = async |fleet: &Fleet| {
        let node = fleet.api.get("acme", "train").await.unwrap().status.unwrap().node.unwrap();
        if node.reason == "DrainBlocked" && node.message.contains("default/db") { Ok(()) } else { Err(node) }
    };
    story.until("the budget is named", blocked).await;
    assert!(story.fleet.sim("h1").is_running(&uid).await, "its pod still runs");
    assert!(story.fleet.cluster.state().nodes[&name].cordoned);
    story.fleet.cluster.state().blocked = false;
    story.phase("train", Phase::Left).await;
    story.fleet.api.done(&stop).await.expect("stopped");
    assert!(!story.fleet.sim("h1").is_running(&uid).await);
    story.until("nothing is left in the cluster", async |fleet: &Fleet| fleet.cluster.left()).await;

    // And again: a kubelet with a certificate needs no token, but has one.
    let start = story.fleet.api.start("acme", "train").await.unwrap();
    story.ready("train").await;
    story.fleet.api.done(&start).await.expect("started");
    story.fleet.api.delete("acme", "train").await.unwrap();
    story.gone("train").await;
    assert!(story.fleet.sim("h1").is_empty().await);
    let events = story.events("train").await;
    let once = ["NodeJoining", "NodeJoined", "NodeReady", "NodeLeaving", "NodeDrainBlocked", "NodeLeft"];
    let again = ["NodeJoining", "NodeJoined", "NodeReady", "NodeLeaving", "NodeLeft"];
    assert_eq!(events, [&once[..], &again[..]].concat());
    story.end().await;
}

/// One life for each place, from the first that is `of` modulo 4 to the last that there is.
async fn killed_at_steps(of: usize) {
    let mut story = Story::begin().await;
    let mut cuts = 0;
    for nth in (1..).filter(|nth| nth % 4 == of) {
        let mut reached = false;
        for cut in [Cut::Before(nth), Cut::After(nth)] {
            let id = format!("n{nth}-{}", if matches!(cut, Cut::Before(_)) { "before" } else { "after" });
            story.fleet.cluster.cut(cut);
            let request = story.request(&id);
            story.fleet.api.create_as(request).await.unwrap();
            let instance = story.ready(&id).await;
            story.fleet.cluster.state().run(&node_of(&instance), "web-0");
            let delete = async |fleet: &Fleet| fleet.api.delete("acme", &id).await;
            story.until("the delete is taken", delete).await;
            story.gone(&id).await;
            if !story.fleet.cluster.is_pending() {
                (reached, cuts) = (true, cuts + 1);
            }
            story.fleet.cluster.mend();
        }
        if !reached {
            break;
        }
    }
    println!("killed at {cuts} places, and nothing was left at any");
    assert!(cuts >= 4, "{cuts}");
    story.end().await;
}

/// Four of them, so that they go on side by side: each mostly waits.
macro_rules! killed_at_every_step_of_join_and_leave_nothing_is_left {
    ($($name:ident: $of:literal,)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            killed_at_steps($of).await;
        })*
    };
}

killed_at_every_step_of_join_and_leave_nothing_is_left! {
    killed_at_every_fourth_step_nothing_is_left: 0,
    killed_at_the_first_step_and_every_fourth_from_there_nothing_is_left: 1,
    killed_at_the_second_step_and_every_fourth_from_there_nothing_is_left: 2,
    killed_at_the_third_step_and_every_fourth_from_there_nothing_is_left: 3,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_away_is_named_and_holds_nobody_up_for_ever() {
    let mut story = Story::begin().await;
    story.fleet.cluster.state().away = true;
    story.fleet.api.create_as(story.request("late")).await.unwrap();
    let named = async |fleet: &Fleet| {
        let status = fleet.api.get("acme", "late").await.unwrap().status.unwrap();
        let says = status.message.contains("connection refused");
        if status.state() == State::Pending && status.reason == "CLUSTER_UNREACHABLE" && says {
            Ok(())
        } else {
            Err(status)
        }
    };
    story.until("what it waits for is told", named).await;
    story.fleet.api.delete("acme", "late").await.unwrap();
    story
        .until("it never was there", async |fleet: &Fleet| match fleet.api.state("acme", "late").await {
            None => Ok(()),
            state => Err(state),
        })
        .await;

    story.fleet.cluster.state().away = false;
    story.fleet.api.create_as(story.request("web")).await.unwrap();
    let uid = uid_of(&story.ready("web").await);
    story.fleet.cluster.state().away = true;
    let stop = story.fleet.api.stop("acme", "web").await.unwrap();
    story.phase("web", Phase::Leaving).await;
    assert!(story.fleet.sim("h1").is_running(&uid).await);
    story.fleet.advance(Duration::from_secs(601)).await;
    story
        .until("it is stopped all the same", async |fleet: &Fleet| {
            if fleet.sim("h1").is_running(&uid).await { Err("it runs") } else { Ok(()) }
        })
        .await;
    story.fleet.api.done(&stop).await.expect("stopped");
    story.phase("web", Phase::Leaving).await;
    story.fleet.cluster.state().away = false;
    story.phase("web", Phase::Left).await;
    story.until("its Node went when the cluster was back", async |fleet: &Fleet| fleet.cluster.left()).await;

    // With force, nobody waits for a cluster.
    let start = story.fleet.api.start("acme", "web").await.unwrap();
    story.ready("web").await;
    story.fleet.api.done(&start).await.expect("started");
    story.fleet.cluster.state().away = true;
    let request =
        v1::DeleteInstanceRequest { name: "tenants/acme/instances/web".to_owned(), force: true, ..Default::default() };
    story.fleet.api.instances.clone().delete_instance(request).await.unwrap();
    story
        .until("it is gone", async |fleet: &Fleet| match fleet.api.state("acme", "web").await {
            None => Ok(()),
            state => Err(state),
        })
        .await;
    assert!(story.events("web").await.contains(&"NodeLeftBehind".to_owned()));
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_for_more_than_his_name_is_denied_and_written_down() {
    let mut story = Story::begin().await;
    story.fleet.cluster.state().no_kubelets = true;
    story.fleet.api.create_as(story.request("web")).await.unwrap();
    story.phase("web", Phase::Booting).await;
    let token = story.fleet.cluster.state().tokens.keys().next().expect("a token").clone();
    let group = croft_core::join::csr::BOOTSTRAP_GROUP;
    let asks = |name: &str, by: &str, groups: &[&str]| story.fleet.cluster.state().send(by, groups, name);
    let other = asks("other-0badcafe", &format!("system:bootstrap:{token}"), &[group]);
    let unknown = asks("web-0badcafe", "system:bootstrap:zzzzzz", &[group]);
    let kubeadm = asks("worker-1", "system:bootstrap:yyyyyy", &["system:bootstrappers:kubeadm:default-node-token"]);
    let answered = async |fleet: &Fleet| {
        let state = fleet.cluster.state();
        let stage = |name: &String| state.signings.get(name).map(|signing| signing.stage);
        let stages = [stage(&other), stage(&unknown), stage(&kubeadm)];
        let denied = |stage: &Option<croft_core::join::cluster::Stage>| {
            stage.is_none_or(|stage| stage == croft_core::join::cluster::Stage::Denied)
        };
        let left_alone = stages[2] == Some(croft_core::join::cluster::Stage::Open);
        if denied(&stages[0]) && denied(&stages[1]) && left_alone { Ok(()) } else { Err(stages) }
    };
    story.until("both are denied, and what is another's is left alone", answered).await;
    let page = croft_store::Page::first(1000);
    let (audit, _) = story.fleet.store().audit_list(Some(&"acme".into()), &page).await.unwrap();
    let row = audit.iter().find(|row| row.message.contains("other-0badcafe")).expect("a row for the tenant");
    assert_eq!((row.actor.as_str(), row.result.as_str()), (&*format!("system:bootstrap:{token}"), "PERMISSION_DENIED"));
    let told = async |fleet: &Fleet| {
        let status = fleet.api.get("acme", "web").await.unwrap().status.unwrap();
        let node = status.node.unwrap();
        if node.reason == "CertificateDenied" { Ok(()) } else { Err(node) }
    };
    story.until("its instance says so", told).await;

    // The honest one joins all the same.
    story.fleet.cluster.state().no_kubelets = false;
    story.ready("web").await;
    story.fleet.cluster.state().signings.remove(&kubeadm);
    story.fleet.api.delete("acme", "web").await.unwrap();
    story.gone("web").await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_that_never_comes_fails_the_create_and_says_at_which_step() {
    let mut story = Story::begin().await;
    story.fleet.cluster.state().no_kubelets = true;
    let create = story.fleet.api.create_as(story.request("web")).await.unwrap();
    story.phase("web", Phase::Booting).await;
    let runs = async |fleet: &Fleet| match fleet.api.state("acme", "web").await {
        Some(State::Running) => Ok(()),
        state => Err(state),
    };
    story.until("it runs", runs).await;
    let uid = uid_of(&story.fleet.api.get("acme", "web").await.unwrap());
    story.fleet.sim("h1").writes(&uid, "password: hunter2\r\ncroft-join: no kubelet in the PATH\r\n");
    story.fleet.advance(Duration::from_secs(1300)).await;
    let missed = story.phase("web", Phase::Missed).await;
    let condition = joined(&missed).expect("a condition").clone();
    assert_eq!((condition.status(), condition.reason.as_str()), (Status::False, "NoCertificateRequest"));
    let error = story.fleet.api.done(&create).await.expect_err("it failed");
    assert!(error.message.contains("never asked the cluster for a certificate"), "{}", error.message);
    assert!(error.message.ends_with("the guest said last: no kubelet in the PATH"), "{}", error.message);
    assert!(story.fleet.cluster.state().tokens.is_empty(), "a token lives only while it may be used");
    // It came after all, by a certificate of its own.
    let name = node_of(&missed);
    story.fleet.cluster.state().no_kubelets = false;
    let disk = story.fleet.sim("h1").disk(&uid).expect("a disk");
    story.certificates.insert(format!("{name}/{disk}"), true);
    story.ready("web").await;
    assert!(story.fleet.cluster.state().nodes[&name].ready == Ready::Yes);
    story.fleet.api.delete("acme", "web").await.unwrap();
    story.gone("web").await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_of_a_fenced_host_joins_again_from_another_one() {
    let mut story = Story::begin().await;
    story.fleet.api.create_as(story.request("web")).await.unwrap();
    let name = node_of(&story.ready("web").await);
    story.fleet.cluster.state().run(&name, "db-0");
    let first = story.fleet.cluster.state().nodes[&name].uid.clone();
    story.fleet.host("h2").await;
    story.fleet.agent_kill("h1").await;
    story.fleet.sim("h1").host_reboot().await;
    let request = v1::FenceHostRequest { name: "hosts/h1".to_owned(), confirm_powered_off: true, ..Default::default() };
    story.fleet.api.hosts.clone().fence_host(request).await.unwrap();
    // Its disk, and its kubelet's certificate, are on the other host.
    story.certificates.clear();
    let out = async |fleet: &Fleet| {
        let mut state = fleet.cluster.state();
        let tainted = state.nodes.get(&name).is_some_and(|node| node.has_taint("node.kubernetes.io/out-of-service"));
        if tainted {
            // What the cluster's own garbage collector does.
            state.pods.clear();
            return Ok(());
        }
        Err(state.nodes.get(&name).cloned())
    };
    story.until("its pods move", out).await;
    let again = async |fleet: &Fleet| {
        let state = fleet.cluster.state();
        match state.nodes.get(&name) {
            Some(node) if node.uid != first && node.ready == Ready::Yes => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    story.until("another machine has made the node anew", again).await;
    assert_eq!(story.ready("web").await.status.unwrap().host, "hosts/h2");
    story.fleet.api.delete("acme", "web").await.unwrap();
    story.gone("web").await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_powers_itself_off_is_out_of_service_until_it_is_started_again() {
    let mut story = Story::begin().await;
    story.fleet.api.create_as(story.request("web")).await.unwrap();
    let ready = story.ready("web").await;
    let (name, uid) = (node_of(&ready), uid_of(&ready));
    story.fleet.sim("h1").guest_poweroff(&uid).await;
    let out = |fleet: &Fleet| fleet.cluster.state().nodes[&name].has_taint("node.kubernetes.io/out-of-service");
    let told = async |fleet: &Fleet| {
        let node = fleet.api.get("acme", "web").await.unwrap().status.unwrap().node.unwrap();
        if out(fleet) && node.reason == "MachineOff" { Ok(()) } else { Err(node) }
    };
    story.until("its pods go elsewhere", told).await;
    let start = story.fleet.api.start("acme", "web").await.unwrap();
    let back = async |fleet: &Fleet| {
        let runs = fleet.sim("h1").is_running(&uid).await;
        if runs && !out(fleet) { Ok(()) } else { Err(runs) }
    };
    story.until("it is back in service", back).await;
    story.fleet.api.done(&start).await.expect("started");
    story.fleet.api.delete("acme", "web").await.unwrap();
    story.gone("web").await;
    story.end().await;
}
