//! Two tenants on one cluster: what the shipped policies, NodeRestriction and the scheduler keep apart.
//!
//! Each attack first succeeds without the policies, as a dry run: what is denied later is denied by them.

use croft_core::id::InstanceUid;
use croft_core::join::cluster::Change;
use croft_core::join::node::{Effect, TENANT_LABEL, TENANT_TAINT, Taint, UNINITIALISED_TAINT, name};
use croft_core::join::ports::Cluster;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, eventually};
use crate::joiner::join;
use crate::lives::{croft, node_object, provider_id, report_ready};
use crate::manifest::{api, apply, put};

/// Of the form that `core::join::node::name` gives; [`run`] checks it.
const ANNS_NODE: &str = "ann-1-0000000a";
const BOBS_NODE: &str = "bob-1-0000000b";

pub async fn run(plane: &ControlPlane) {
    let uid = InstanceUid::parse("01890000-0000-7000-8000-00000000000a").unwrap();
    assert_eq!(name("ann-1", uid), ANNS_NODE);
    let admin = plane.admin().await;
    apply(&admin, croft_kube::manifest::NAMESPACE).await;
    apply(&admin, croft_kube::manifest::RBAC).await;
    for tenant in ["ann", "bob"] {
        own_namespace(&admin, tenant).await;
    }
    let (ann, bob) = (plane.client(&plane.user(None, "ann")).await, plane.client(&plane.user(None, "bob")).await);
    let attacks = attacks();
    for (what, attack) in &attacks {
        let taken = async || dry_run(&bob, attack).await;
        eventually(&format!("without the policies the API server takes {what}"), taken).await;
    }
    apply(&admin, croft_kube::manifest::NODE_POLICIES).await;
    apply(&admin, croft_kube::manifest::TENANT_POLICIES).await;
    for (what, attack) in &attacks {
        let denied = async || policy_denies(dry_run(&bob, attack).await);
        eventually(what, denied).await;
    }
    let croft = croft(plane).await;
    let croft = croft.as_ref();
    let anns_kubelet = plane.client(&join(plane, croft, "ann001", ANNS_NODE).await).await;
    let bobs_kubelet = plane.client(&join(plane, croft, "bob001", BOBS_NODE).await).await;
    assert_eq!(croft.probe().await.unwrap().certificates_are_short_lived(), Some(false));
    nodes_are_listed_or_not_created(&admin, croft, &anns_kubelet, &bobs_kubelet).await;
    kubelets_stay_what_they_are(&bobs_kubelet).await;
    pods_stay_at_home(croft, &ann, &bob).await;
    a_deleted_node_stays_deleted(croft, &bobs_kubelet).await;
    without_its_list_no_node_is_created(&admin, croft, &anns_kubelet).await;
}

/// A tenant may do whatever a namespace has, bindings and the namespace itself included.
async fn own_namespace(admin: &Client, tenant: &str) {
    let namespace = format!("home-{tenant}");
    put(
        admin,
        &json!({ "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": namespace, "labels": { "croft.dev/tenant": tenant } } }),
    )
    .await;
    let rbac = "rbac.authorization.k8s.io";
    put(
        admin,
        &json!({ "apiVersion": format!("{rbac}/v1"), "kind": "Role",
        "metadata": { "name": "all", "namespace": namespace },
        "rules": [{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }] }),
    )
    .await;
    put(
        admin,
        &json!({ "apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding",
        "metadata": { "name": "all", "namespace": namespace },
        "roleRef": { "apiGroup": rbac, "kind": "Role", "name": "all" },
        "subjects": [{ "apiGroup": rbac, "kind": "User", "name": tenant }] }),
    )
    .await;
    put(
        admin,
        &json!({ "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": { "name": "namespaces" },
        "rules": [{ "apiGroups": [""], "resources": ["namespaces", "namespaces/status", "namespaces/finalize"],
            "verbs": ["create", "update", "patch", "get"] }] }),
    )
    .await;
    put(
        admin,
        &json!({ "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding",
        "metadata": { "name": format!("namespaces-{tenant}") },
        "roleRef": { "apiGroup": rbac, "kind": "ClusterRole", "name": "namespaces" },
        "subjects": [{ "apiGroup": rbac, "kind": "User", "name": tenant }] }),
    )
    .await;
    // What the bindings of the attacks are about.
    put(admin, &pod(tenant, "victim", &json!({ "nodeSelector": { TENANT_LABEL: tenant } }))).await;
}

fn pod(tenant: &str, name: &str, spec: &Value) -> Value {
    let mut pod = json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": format!("home-{tenant}") },
        "spec": { "containers": [{ "name": "a", "image": "none" }] } });
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    pod
}

enum Attack {
    Create(Value),
    /// A merge patch of an object, of its subresource where one is named.
    Patch(Value, &'static str, Value),
    /// Of a pod to a node, by the pod's own subresource.
    Bind(&'static str),
}

/// What Bob tries; he has every right in his namespace, and may make and change namespaces.
fn attacks() -> Vec<(&'static str, Attack)> {
    let home = || json!({ TENANT_LABEL: "bob" });
    let bobs = |spec: Value| Attack::Create(pod("bob", "attack", &spec));
    let tolerating = |tolerations: Value| bobs(json!({ "nodeSelector": home(), "tolerations": tolerations }));
    let namespace = || json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "home-bob" } });
    let anns = || json!({ "metadata": { "labels": { "croft.dev/tenant": "ann" } } });
    let victim = pod("bob", "victim", &json!({}));
    let everything = json!([{ "operator": "Exists" }]);
    // Beside the two that every pod has: none of a pod's tolerations can be taken away.
    let short = |key: &str| {
        json!({ "key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": 300 })
    };
    let added = json!([short("not-ready"), short("unreachable"), { "operator": "Exists" }]);
    vec![
        ("a pod for any node", bobs(json!({}))),
        ("a pod for Ann's nodes", bobs(json!({ "nodeSelector": { TENANT_LABEL: "ann" } }))),
        ("a pod that names its node", bobs(json!({ "nodeSelector": home(), "nodeName": ANNS_NODE }))),
        ("a pod that tolerates everything", tolerating(everything)),
        (
            "a pod that tolerates every NoSchedule",
            tolerating(json!([{ "operator": "Exists", "effect": "NoSchedule" }])),
        ),
        ("a pod that tolerates Ann's taint", tolerating(json!([{ "key": TENANT_TAINT, "value": "ann" }]))),
        ("a pod that tolerates every tenant", tolerating(json!([{ "key": TENANT_TAINT, "operator": "Exists" }]))),
        ("a toleration added later", Attack::Patch(victim.clone(), "", json!({ "spec": { "tolerations": added } }))),
        ("a binding of his pod", Attack::Bind("victim")),
        (
            "a binding of the older kind",
            Attack::Create(json!({ "apiVersion": "v1", "kind": "Binding",
                "metadata": { "name": "victim", "namespace": "home-bob" },
                "target": { "apiVersion": "v1", "kind": "Node", "name": ANNS_NODE } })),
        ),
        ("his namespace made Ann's", Attack::Patch(namespace(), "", anns())),
        (
            "his namespace made nobody's",
            Attack::Patch(namespace(), "", json!({ "metadata": { "labels": { "croft.dev/tenant": null } } })),
        ),
        ("his namespace made Ann's by its status", Attack::Patch(namespace(), "status", anns())),
        (
            "a new namespace of Ann's",
            Attack::Create(json!({ "apiVersion": "v1", "kind": "Namespace",
                "metadata": { "name": "fresh", "labels": { "croft.dev/tenant": "ann" } } })),
        ),
    ]
}

async fn dry_run(by: &Client, attack: &Attack) -> Result<(), kube::Error> {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    match attack {
        Attack::Create(object) => create(by, object, &dry).await,
        Attack::Patch(object, subresource, patch) => {
            let params = PatchParams { dry_run: true, ..PatchParams::default() };
            let (api, patch) = (api(by, object), Patch::Merge(patch));
            let name = object["metadata"]["name"].as_str().unwrap();
            match *subresource {
                "" => api.patch(name, &params, &patch).await.map(drop),
                subresource => api.patch_subresource(subresource, name, &params, &patch).await.map(drop),
            }
        }
        Attack::Bind(pod) => bind(by, "home-bob", pod, &dry).await,
    }
}

async fn bind(by: &Client, namespace: &str, pod: &str, params: &PostParams) -> Result<(), kube::Error> {
    let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": pod },
        "target": { "apiVersion": "v1", "kind": "Node", "name": ANNS_NODE } });
    let pods: Api<Pod> = Api::namespaced(by.clone(), namespace);
    pods.create_subresource::<_, Value>("binding", pod, params, &binding).await.map(drop)
}

async fn create(by: &Client, object: &Value, params: &PostParams) -> Result<(), kube::Error> {
    let typed: DynamicObject = serde_json::from_value(object.clone()).expect("an object");
    api(by, object).create(params, &typed).await.map(drop)
}

/// `Err` with what came instead.
fn policy_denies(outcome: Result<(), kube::Error>) -> Result<(), String> {
    match outcome {
        Err(kube::Error::Api(status))
            if matches!(status.code, 403 | 422) && status.message.contains("ValidatingAdmissionPolicy 'croft-") =>
        {
            Ok(())
        }
        other => Err(format!("{other:?}")),
    }
}

async fn publish(croft: &dyn Cluster, nodes: &[&str]) {
    let nodes = nodes.iter().map(|name| ((*name).to_owned(), provider_id(name))).collect();
    croft.roster_publish(&nodes).await.expect("published");
}

async fn nodes_are_listed_or_not_created(admin: &Client, croft: &dyn Cluster, ann: &Client, bob: &Client) {
    let (real, dry) = (PostParams::default(), PostParams { dry_run: true, ..PostParams::default() });
    policy_denies(create(ann, &node_object(ANNS_NODE), &real).await).expect("not listed yet");
    publish(croft, &[ANNS_NODE, BOBS_NODE]).await;
    for (kubelet, name, tenant) in [(ann, ANNS_NODE, "ann"), (bob, BOBS_NODE, "bob")] {
        eventually("a listed node registers", async || create(kubelet, &node_object(name), &dry).await).await;
        // Each spoils one thing of what is taken.
        for (what, field, value) in [
            ("without the taint that keeps pods away", "taints", json!([])),
            ("with more taints than Croft reads", "taints", many_taints(name)),
            ("without a providerID: nobody would delete it", "providerID", Value::Null),
            ("with another machine's providerID", "providerID", json!(provider_id("other-1-0badcafe"))),
        ] {
            let mut spoiled = node_object(name);
            spoiled["spec"][field] = value;
            policy_denies(create(kubelet, &spoiled, &real).await).expect(what);
        }
        create(kubelet, &node_object(name), &real).await.expect("a listed node");
        report_ready(kubelet, name).await;
        let uid = croft.node(name).await.unwrap().unwrap().uid;
        let dress = Change {
            labels: [(TENANT_LABEL.to_owned(), tenant.to_owned())].into(),
            taints: vec![Taint { key: TENANT_TAINT.to_owned(), value: tenant.to_owned(), effect: Effect::NoSchedule }],
            // The second is the part of the controller of nodes' life, which does not run here.
            shed: [UNINITIALISED_TAINT.to_owned(), "node.kubernetes.io/not-ready".to_owned()].into(),
            ..Change::default()
        };
        croft.node_change(name, &uid, &dress).await.expect("dressed");
    }
    // Others' nodes are none of Croft's business, whatever they are called.
    put(admin, &node_object("by-hand-0badcafe")).await;
}

fn many_taints(name: &str) -> Value {
    let more = (0..100).map(|n| json!({ "key": format!("a-{n}"), "effect": "NoSchedule" }));
    node_object(name)["spec"]["taints"].as_array().into_iter().flatten().cloned().chain(more).collect()
}

async fn kubelets_stay_what_they_are(bob: &Client) {
    let patch = async |name: &str, patch: Value| {
        let object = node_object(name);
        api(bob, &object).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    };
    let refused = |what: &str, outcome: Result<(), kube::Error>| {
        assert!(matches!(&outcome, Err(kube::Error::Api(status)) if status.code == 403), "{what}: {outcome:?}");
    };
    let relabel = json!({ "metadata": { "labels": { TENANT_LABEL: "ann" } } });
    for (what, name, change) in [
        ("it labels itself into Ann's", BOBS_NODE, relabel.clone()),
        ("it takes its own label off", BOBS_NODE, json!({ "metadata": { "labels": { TENANT_LABEL: null } } })),
        ("it takes its taint off", BOBS_NODE, json!({ "spec": { "taints": null } })),
        ("it changes Ann's node", ANNS_NODE, relabel),
    ] {
        refused(what, patch(name, change).await);
    }
    let secrets: Api<Secret> = Api::namespaced(bob.clone(), "home-ann");
    refused("it reads Ann's secrets", secrets.get("any").await.map(drop));
    let pods: Api<Pod> = Api::namespaced(bob.clone(), "home-ann");
    refused("it deletes Ann's pod", pods.delete("victim", &DeleteParams::default()).await.map(drop));
    let nodes: Api<Node> = Api::all(bob.clone());
    refused("it deletes its own node", nodes.delete(BOBS_NODE, &DeleteParams::default()).await.map(drop));
    // A static pod's mirror in Ann's namespace would get her Services' traffic.
    let mut mirror = json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "mirror", "namespace": "home-ann", "labels": { "app": "web" },
            "annotations": { "kubernetes.io/config.mirror": "x" } },
        "spec": { "nodeName": BOBS_NODE, "containers": [{ "name": "a", "image": "none" }] } });
    let uid = nodes.get(BOBS_NODE).await.unwrap().metadata.uid;
    mirror["metadata"]["ownerReferences"] =
        json!([{ "apiVersion": "v1", "kind": "Node", "name": BOBS_NODE, "uid": uid, "controller": true }]);
    for namespace in ["home-ann", "kube-system"] {
        mirror["metadata"]["namespace"] = json!(namespace);
        let made = create(bob, &mirror, &PostParams::default()).await;
        policy_denies(made).unwrap_or_else(|other| panic!("{namespace}: {other}"));
    }
}

async fn pods_stay_at_home(croft: &dyn Cluster, ann: &Client, bob: &Client) {
    for (client, tenant, node) in [(ann, "ann", ANNS_NODE), (bob, "bob", BOBS_NODE)] {
        let good = pod(
            tenant,
            "good",
            &json!({
            "nodeSelector": { TENANT_LABEL: tenant }, "tolerations": [{ "key": TENANT_TAINT, "value": tenant }] }),
        );
        create(client, &good, &PostParams::default()).await.expect("a pod at home");
        let pods: Api<Pod> = Api::namespaced(client.clone(), &format!("home-{tenant}"));
        let placed = async || {
            let pod = pods.get("good").await.map_err(|error| error.to_string())?;
            let at = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            if at.as_deref() == Some(node) { Ok(()) } else { Err(format!("{at:?} {:?}", pod.status)) }
        };
        eventually("the real scheduler places it at home", placed).await;
    }
    // With Bob's only node out of the way, his next pod waits; it does not go to Ann.
    let uid = croft.node(BOBS_NODE).await.unwrap().unwrap().uid;
    croft.node_change(BOBS_NODE, &uid, &Change::cordon()).await.unwrap();
    let waiting = pod(
        "bob",
        "waiting",
        &json!({
        "nodeSelector": { TENANT_LABEL: "bob" }, "tolerations": [{ "key": TENANT_TAINT, "value": "bob" }] }),
    );
    create(bob, &waiting, &PostParams::default()).await.expect("a pod at home");
    let pods: Api<Pod> = Api::namespaced(bob.clone(), "home-bob");
    let refused = async || {
        let pod = pods.get("waiting").await.map_err(|error| error.to_string())?;
        assert_eq!(pod.spec.as_ref().and_then(|spec| spec.node_name.clone()), None);
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let reasons: Vec<_> = conditions.filter_map(|condition| condition.reason.clone()).collect();
        if reasons.iter().any(|reason| reason == "Unschedulable") { Ok(()) } else { Err(format!("{reasons:?}")) }
    };
    eventually("the scheduler finds no node for it", refused).await;
    policy_denies(bind(bob, "home-bob", "waiting", &PostParams::default()).await).expect("nor can Bob bind it himself");
    let names = async |node| croft.pods(node).await.unwrap().into_iter().map(|pod| pod.namespace).collect::<Vec<_>>();
    assert_eq!(names(ANNS_NODE).await, ["home-ann"]);
    // A pod of its own labels and annotations may still change, and end.
    let label = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
    pods.patch("waiting", &PatchParams::default(), &label).await.expect("labels");
    for name in ["waiting", "good"] {
        pods.delete(name, &DeleteParams::default().grace_period(0)).await.expect("deleted");
    }
}

async fn a_deleted_node_stays_deleted(croft: &dyn Cluster, kubelet: &Client) {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    publish(croft, &[ANNS_NODE]).await;
    let off_the_list = async || policy_denies(create(kubelet, &node_object(BOBS_NODE), &dry).await);
    eventually("off the list, even before its Node is deleted", off_the_list).await;
    let uid = croft.node(BOBS_NODE).await.unwrap().unwrap().uid;
    croft.node_delete(BOBS_NODE, &uid).await.unwrap();
    let outcome = create(kubelet, &node_object(BOBS_NODE), &PostParams::default()).await;
    policy_denies(outcome).expect("its certificate is good, and makes no Node");
    assert_eq!(croft.node(BOBS_NODE).await.unwrap(), None);
}

async fn without_its_list_no_node_is_created(admin: &Client, croft: &dyn Cluster, kubelet: &Client) {
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "croft-nodes", "namespace": "croft-system" } });
    let uid = croft.node(ANNS_NODE).await.unwrap().unwrap().uid;
    croft.node_delete(ANNS_NODE, &uid).await.unwrap();
    api(admin, &map).delete("croft-nodes", &DeleteParams::default()).await.unwrap();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let denied = async || policy_denies(create(kubelet, &node_object(ANNS_NODE), &dry).await);
    eventually("no list, no node", denied).await;
    // Whoever's: the API server asks for the list before it looks at the name.
    let outcome = create(admin, &node_object("by-hand"), &dry).await;
    policy_denies(outcome).expect("nor anybody else's");
    publish(croft, &[ANNS_NODE]).await;
    let back = async || create(kubelet, &node_object(ANNS_NODE), &PostParams::default()).await;
    eventually("with the list it registers again", back).await;
}
