//! What Croft does on a cluster with the rights of the shipped manifest, and what it says when it has fewer.

use std::sync::Arc;

use croft_core::join::cluster::{
    Access, Answer, Change, Eviction, Fault, NodeEvent, Pod, Policies, Probe, Ready, Severity,
};
use croft_core::join::csr::CLIENT_SIGNER;
use croft_core::join::node::{Effect, TENANT_LABEL, TENANT_TAINT, Taint};
use croft_core::join::ports::{Cluster, Clusters as _};
use croft_kube::KubeClusters;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod as RawPod, Secret, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::control_plane::{Authority, ControlPlane, Credential, eventually, kubeconfig};
use crate::joiner::{CLIENT_USAGES, seen, send, soon, token};
use crate::manifest::{api, put};
use crate::request::{node_name, signed};

pub async fn croft(plane: &ControlPlane) -> Arc<dyn Cluster> {
    plane.cluster(&service_account(plane).await)
}

/// The service account of the manifest, with a token that ends.
async fn service_account(plane: &ControlPlane) -> Credential {
    let accounts: Api<ServiceAccount> = Api::namespaced(plane.admin().await, "croft-system");
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let made = accounts.create_token_request("croft", &PostParams::default(), &request).await.expect("a token");
    Credential::Token(made.status.expect("a token").token)
}

pub async fn what_croft_does_in_its_life(plane: &ControlPlane) {
    let (admin, croft) = (plane.admin().await, croft(plane).await);
    let croft = croft.as_ref();
    probe(&admin, croft).await;
    policies(plane, &admin, croft).await;
    tokens(plane, &admin, croft).await;
    nodes(&admin, croft).await;
    drain(&admin, croft).await;
    answers(&admin, croft).await;
    roster(&admin, croft).await;
}

async fn probe(admin: &Client, croft: &dyn Cluster) {
    let asked = async || {
        let probe = croft.probe().await.map_err(|fault| fault.to_string())?;
        if probe.missing.is_empty() { Ok(probe) } else { Err(format!("{:?}", probe.missing)) }
    };
    let probe: Probe = eventually("the manifest grants everything", asked).await;
    let version = admin.apiserver_version().await.unwrap().git_version;
    assert_eq!((probe.version, probe.policies), (version, Policies::Installed));
    let namespaces: Api<Namespace> = Api::all(admin.clone());
    assert_eq!(probe.identity, namespaces.get("kube-system").await.unwrap().metadata.uid);
    assert!(probe.serving_expires.is_some() && probe.ca_expires.is_some() && probe.credential_expires.is_some());
    assert!(croft.anchor().ca_pins[0].starts_with("sha256:"));
}

/// The cluster's own check of every expression against every kind that it matches.
async fn policies_are_sound(admin: &Client) {
    for name in croft_kube::policy::NAMES {
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(admin.clone());
        let checked = async || {
            let policy = policies.get(name).await.map_err(|error| error.to_string())?;
            let status = policy.status.unwrap_or_default();
            if status.observed_generation == policy.metadata.generation {
                Ok(status)
            } else {
                Err("not yet".to_owned())
            }
        };
        let status = eventually("the policy is checked", checked).await;
        let warnings = status.type_checking.and_then(|checking| checking.expression_warnings);
        assert_eq!(warnings, None, "{name}");
    }
}

async fn policies(plane: &ControlPlane, admin: &Client, croft: &dyn Cluster) {
    policies_are_sound(admin).await;
    let weak = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": "croft-node-pods" } });
    let weaken = Patch::Merge(json!({ "spec": { "failurePolicy": "Ignore" } }));
    api(admin, &weak).patch("croft-node-pods", &PatchParams::default(), &weaken).await.unwrap();
    let binding = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": "croft-nodes" } });
    api(admin, &binding).delete("croft-nodes", &DeleteParams::default()).await.unwrap();
    let Policies::Lacking(lacking) = croft.probe().await.unwrap().policies else { panic!("not seen") };
    let expected = [
        "ValidatingAdmissionPolicyBinding croft-nodes is missing",
        "ValidatingAdmissionPolicy croft-node-pods is not as shipped",
    ];
    assert_eq!(lacking, expected);
    let fault = croft.policies_install().await.unwrap_err();
    let told = "patch namespaces croft-system";
    assert!(
        matches!(&fault, Fault::Forbidden { right, .. } if right.to_string() == told),
        "not Croft's to change: {fault}"
    );
    plane.cluster(&plane.user(Some("system:masters"), "admin")).policies_install().await.unwrap();
    assert_eq!(croft.probe().await.unwrap().policies, Policies::Installed);
}

async fn tokens(plane: &ControlPlane, admin: &Client, croft: &dyn Cluster) {
    let mut mine = token("token0");
    croft.token_ensure(&mine).await.unwrap();
    let client = plane.client(&Credential::Token(mine.text())).await;
    let works = async || {
        send(&client, "by-token0", CLIENT_SIGNER, &CLIENT_USAGES, &signed(&node_name("a-0badcafe"), &[]).0).await
    };
    eventually("a token works at once", works).await;
    mine.expires = mine.expires.plus(std::time::Duration::from_secs(600));
    croft.token_ensure(&mine).await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), "kube-system");
    let kept = secrets.get("bootstrap-token-token0").await.unwrap().data.unwrap();
    let ends = jiff::Timestamp::from_second(mine.expires.0 / 1_000_000).unwrap().to_string();
    assert_eq!(String::from_utf8(kept["expiration"].0.clone()).unwrap(), ends);
    assert!(croft.token_exists("token0").await.unwrap() && !croft.token_exists("token1").await.unwrap());
    // With what it may do there, Croft reads nothing: a service account's token could be had so.
    let raw = plane.client(&service_account(plane).await).await;
    let secrets_of_croft: Api<Secret> = Api::namespaced(raw, "kube-system");
    let name = "bootstrap-token-token0";
    let nothing = Patch::Merge(json!({}));
    for outcome in
        [secrets_of_croft.get(name).await, secrets_of_croft.patch(name, &PatchParams::default(), &nothing).await]
    {
        assert!(matches!(&outcome, Err(kube::Error::Api(status)) if status.code == 403), "{outcome:?}");
    }
    assert!(secrets_of_croft.list(&ListParams::default()).await.is_err());
    assert!(matches!(croft.token_ensure(&token("Bad id")).await, Err(Fault::Refused { .. })));
    for _ in 0..2 {
        croft.token_delete("token0").await.unwrap();
    }
    assert!(secrets.get_opt("bootstrap-token-token0").await.unwrap().is_none());
    let signing = seen(croft, "by-token0").await.unwrap();
    croft.signing_delete(&signing).await.unwrap();
}

/// Of the machine that [`node_object`] is.
pub fn provider_id(name: &str) -> String {
    format!("croft://acme/{name}")
}

pub fn node_object(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
        "spec": { "providerID": provider_id(name), "taints": [{ "key": "croft.dev/uninitialised", "effect": "NoSchedule" }] } })
}

/// As a kubelet reports itself: Ready, with room.
pub async fn report_ready(client: &Client, name: &str) {
    let now = jiff::Timestamp::now().to_string();
    let status = json!({ "status": {
        "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ok",
            "lastHeartbeatTime": now, "lastTransitionTime": now }],
        "addresses": [{ "type": "InternalIP", "address": "10.201.0.7" }, { "type": "Hostname", "address": name }],
        "capacity": { "cpu": "2", "memory": "2Gi", "pods": "10", "nvidia.com/gpu": "1" },
        "allocatable": { "cpu": "2", "memory": "2Gi", "pods": "10", "nvidia.com/gpu": "1" },
    } });
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("a node's own status");
}

async fn nodes(admin: &Client, croft: &dyn Cluster) {
    put(admin, &node_object("plain-1")).await;
    report_ready(admin, "plain-1").await;
    // The cluster's own controllers may write to it in between.
    let alike = async || {
        let (all, node) = (croft.nodes().await.unwrap(), croft.node("plain-1").await.unwrap().unwrap());
        if all.contains(&node) { Ok(node) } else { Err(format!("{node:?} {all:?}")) }
    };
    let node = eventually("a list and a look show the same", alike).await;
    assert_eq!(
        (&node.ready, node.cordoned, node.provider_id.as_deref()),
        (&Ready::Yes, false, Some("croft://acme/plain-1"))
    );
    assert_eq!(node.addresses, ["10.201.0.7".parse().unwrap()].into());
    assert_eq!(node.allocatable["nvidia.com/gpu"], "1");
    assert_eq!(croft.node("nobody").await.unwrap(), None);

    let dress = Change {
        labels: [(TENANT_LABEL.to_owned(), "acme".to_owned())].into(),
        annotations: [("croft.dev/instance".to_owned(), "train-1".to_owned())].into(),
        taints: vec![Taint { key: TENANT_TAINT.to_owned(), value: "acme".to_owned(), effect: Effect::NoSchedule }],
        shed: ["croft.dev/uninitialised".to_owned()].into(),
        cordoned: Some(true),
    };
    croft.node_change("plain-1", &node.uid, &dress).await.unwrap();
    croft.node_change("plain-1", &node.uid, &Change::out_of_service()).await.unwrap();
    let dressed = croft.node("plain-1").await.unwrap().unwrap();
    assert_eq!((dressed.labels[TENANT_LABEL].as_str(), dressed.cordoned), ("acme", true));
    assert!(dressed.has_taint(TENANT_TAINT) && dressed.has_taint("node.kubernetes.io/out-of-service"));
    // The API server's own, from the node's birth.
    assert!(dressed.has_taint("node.kubernetes.io/not-ready") && !dressed.has_taint("croft.dev/uninitialised"));
    let ready = Change { shed: ["node.kubernetes.io/not-ready".to_owned()].into(), ..Change::uncordon() };
    croft.node_change("plain-1", &node.uid, &ready).await.unwrap();
    croft.node_change("plain-1", &node.uid, &Change::back_in_service()).await.unwrap();
    let last = croft.node("plain-1").await.unwrap().unwrap();
    assert_eq!((last.taints.as_slice(), last.cordoned), (dress.taints.as_slice(), false));

    let event = NodeEvent {
        node: "plain-1".to_owned(),
        uid: node.uid.clone(),
        severity: Severity::Warning,
        reason: "VmFailed".to_owned(),
        message: "out of memory ".repeat(200),
        at: soon(),
    };
    for _ in 0..2 {
        croft.node_event(&event).await.unwrap();
    }
    let events: Api<Event> = Api::namespaced(admin.clone(), "default");
    let kept = events.list(&ListParams::default().fields("reason=VmFailed")).await.unwrap();
    assert_eq!(kept.items.len(), 1);

    let fault = croft.node_delete("plain-1", "another-uid").await.unwrap_err();
    assert!(matches!(&fault, Fault::Conflict { .. }), "{fault}");
    let fault = croft.node_change("plain-1", "another-uid", &Change::cordon()).await.unwrap_err();
    assert!(matches!(&fault, Fault::Conflict { .. }), "{fault}");
    for _ in 0..2 {
        croft.node_delete("plain-1", &node.uid).await.unwrap();
    }
    let fault = croft.node_change("plain-1", &node.uid, &Change::cordon()).await.unwrap_err();
    assert!(fault.to_string().ends_with("has no node plain-1"), "{fault}");
}

fn pod_on(node: &str, name: &str, extra: &Value) -> Value {
    let mut pod = json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": "web" } },
        "spec": { "nodeName": node, "containers": [{ "name": "a", "image": "none" }], "tolerations": [{ "operator": "Exists" }] } });
    for (key, value) in extra.as_object().into_iter().flatten() {
        pod["metadata"][key] = value.clone();
    }
    pod
}

async fn drain(admin: &Client, croft: &dyn Cluster) {
    put(admin, &node_object("plain-2")).await;
    let daemon = json!({ "ownerReferences": [
        { "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "d", "controller": true }] });
    put(admin, &pod_on("plain-2", "web-1", &json!({}))).await;
    put(admin, &pod_on("plain-2", "daemon", &daemon)).await;
    put(admin, &pod_on("plain-3", "elsewhere", &json!({}))).await;
    let pods: Api<RawPod> = Api::namespaced(admin.clone(), "default");
    let ready = json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
    pods.patch_status("web-1", &PatchParams::default(), &Patch::Merge(&ready)).await.unwrap();
    let found = croft.pods("plain-2").await.unwrap();
    assert_eq!(found.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["web-1"]);
    let budget = json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": { "name": "web", "namespace": "default" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "web" } } } });
    put(admin, &budget).await;
    // Also before its controller has looked at it, a budget lets nothing go.
    let blocked = croft.evict(&found[0]).await.unwrap();
    assert!(matches!(&blocked, Eviction::Blocked { budget, .. } if budget == "web"), "{blocked:?}");
    api(admin, &budget).delete("web", &DeleteParams::default()).await.unwrap();
    let another = Pod { uid: "another".to_owned(), ..found[0].clone() };
    assert_eq!(croft.evict(&another).await.unwrap(), Eviction::Gone);
    let evicted = async || match croft.evict(&found[0]).await {
        Ok(Eviction::Evicted) => Ok(()),
        other => Err(other),
    };
    eventually("without a budget it goes", evicted).await;
    assert!(croft.pods("plain-2").await.unwrap().iter().all(|pod| pod.ending));
    pods.delete("web-1", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert_eq!(croft.evict(&found[0]).await.unwrap(), Eviction::Gone);
    for name in ["daemon", "elsewhere"] {
        pods.delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }
    let uid = croft.node("plain-2").await.unwrap().unwrap().uid;
    croft.node_delete("plain-2", &uid).await.unwrap();
}

/// An answer holds for the request that was read, not for what stands in its place since.
async fn answers(admin: &Client, croft: &dyn Cluster) {
    let one = async |name: &str| {
        send(admin, name, CLIENT_SIGNER, &CLIENT_USAGES, &signed(&node_name("a-0badcafe"), &[]).0).await.unwrap();
        seen(croft, name).await.unwrap()
    };
    let deny = Answer::Deny { reason: "WrongName".to_owned(), message: "x".to_owned() };
    let replaced = one("replaced").await;
    croft.signing_delete(&replaced).await.unwrap();
    let second = one("replaced").await;
    let fault = croft.signing_answer(&replaced, &Answer::Approve).await.unwrap_err();
    assert!(matches!(&fault, Fault::Conflict { .. }), "{fault}");
    // Nor does a deletion meant for the first take the second.
    croft.signing_delete(&replaced).await.unwrap();
    croft.signing_answer(&second, &deny).await.unwrap();
    let fault = croft.signing_answer(&second, &Answer::Approve).await.unwrap_err();
    assert!(matches!(&fault, Fault::Conflict { .. }), "answered already: {fault}");
    croft.signing_delete(&second).await.unwrap();
    let fault = croft.signing_answer(&second, &deny).await.unwrap_err();
    assert!(matches!(&fault, Fault::NotFound { .. } | Fault::Conflict { .. }), "{fault}");
}

async fn roster(admin: &Client, croft: &dyn Cluster) {
    let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), "croft-system");
    let kept = async || {
        let data = maps.get("croft-nodes").await.unwrap().data.unwrap_or_default();
        data.into_keys().collect::<Vec<_>>()
    };
    let names = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), provider_id(name))).collect();
    croft.roster_publish(&names(&["a-00000001", "b-00000002"])).await.unwrap();
    croft.roster_publish(&names(&["b-00000002"])).await.unwrap();
    assert_eq!(kept().await, ["b-00000002"]);
    // Whoever deletes it stops every node from registering, until it is written again.
    maps.delete("croft-nodes", &DeleteParams::default()).await.unwrap();
    croft.roster_publish(&names(&["c-00000003"])).await.unwrap();
    assert_eq!(kept().await, ["c-00000003"]);
}

pub async fn rights_that_are_missing_are_named(plane: &ControlPlane) {
    let admin = plane.admin().await;
    let nobody = plane.cluster(&plane.user(None, "nobody"));
    let missing = nobody.probe().await.unwrap().missing;
    assert_eq!(nobody.probe().await.unwrap().identity, None, "what it is may not be read");
    let told: Vec<_> = missing.iter().map(ToString::to_string).collect();
    for expected in [
        "update certificatesigningrequests/approval.certificates.k8s.io",
        "approve signers.certificates.k8s.io kubernetes.io/kubelet-serving",
        "patch nodes",
        "create secrets in namespace kube-system",
        "create pods/eviction",
        "patch configmaps croft-nodes in namespace croft-system",
        "get namespaces kube-system",
    ] {
        assert!(told.iter().any(|right| right == expected), "{expected}: {told:#?}");
    }
    let refused = |fault: Fault, expected: &str| {
        assert!(matches!(&fault, Fault::Forbidden { right, .. } if right.to_string() == expected), "{fault}");
        assert!(fault.to_string().starts_with(&plane.server), "{fault}");
    };
    refused(nobody.nodes().await.unwrap_err(), "list nodes");
    refused(nobody.node("a").await.unwrap_err(), "get nodes a");
    refused(nobody.signings().await.unwrap_err(), "list certificatesigningrequests.certificates.k8s.io");
    refused(
        nobody.token_delete("abcdef").await.unwrap_err(),
        "delete secrets bootstrap-token-abcdef in namespace kube-system",
    );

    // With the cluster's role and none of the namespaces'.
    let bind = |name: &str, role: &str, user: &str| {
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }] })
    };
    put(&admin, &bind("half", "croft", "half")).await;
    let half = plane.cluster(&plane.user(None, "half"));
    let bound = async || {
        let missing = half.probe().await.unwrap().missing;
        if missing.iter().all(|right| right.namespace.is_some()) { Ok(missing.len()) } else { Err(missing) }
    };
    assert_eq!(eventually("the role is bound", bound).await, 5);
    let fault = half.token_ensure(&token("half00")).await.unwrap_err();
    assert!(matches!(&fault, Fault::Forbidden { right, .. } if right.resource == "secrets"), "{fault}");

    // With everything but the signers, which a plugin asks for in words of its own.
    let almost = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "almost" },
        "rules": [
            { "apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests"], "verbs": ["list"] },
            { "apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval"], "verbs": ["update"] },
        ] });
    put(&admin, &almost).await;
    put(&admin, &bind("almost", "almost", "almost")).await;
    send(&admin, "unsigned", CLIENT_SIGNER, &CLIENT_USAGES, &signed(&node_name("a-0badcafe"), &[]).0).await.unwrap();
    let almost = plane.cluster(&plane.user(None, "almost"));
    let listed =
        async || almost.signings().await.map(|all| all.into_iter().find(|one| one.name == "unsigned").unwrap());
    let signing = eventually("the role is bound", listed).await;
    let fault = almost.signing_answer(&signing, &Answer::Approve).await.unwrap_err();
    refused(fault, &format!("approve signers.certificates.k8s.io {CLIENT_SIGNER}"));
    croft(plane).await.signing_delete(&signing).await.unwrap();
}

pub async fn faults_are_told_apart(plane: &ControlPlane) {
    let admin = plane.user(Some("system:masters"), "admin");
    let open = |text: String| KubeClusters::default().open(&Access::Kubeconfig(text)).unwrap();
    let wrong_ca = open(kubeconfig(&plane.server, &Authority::new("kubernetes-ca").certificate_pem, &admin));
    let fault = wrong_ca.probe().await.unwrap_err();
    assert!(matches!(&fault, Fault::Certificate { why, .. } if why.contains("CA of the kubeconfig")), "{fault}");
    assert!(matches!(wrong_ca.nodes().await, Err(Fault::Certificate { .. })));
    let elsewhere = plane.kubeconfig(&admin).replace("\"server\":", "\"tls-server-name\":\"elsewhere\",\"server\":");
    let fault = open(elsewhere).nodes().await.unwrap_err();
    assert!(matches!(&fault, Fault::Certificate { why, .. } if why.contains("another name")), "{fault}");
    let strange = Credential::Token("nonsense".to_owned());
    assert!(matches!(plane.cluster(&strange).nodes().await, Err(Fault::Unauthorized { expires: None, .. })));
    let forged = Credential::Certificate(Authority::new("kubernetes-ca").client("admin", Some("system:masters")));
    let fault = plane.cluster(&forged).nodes().await.unwrap_err();
    assert!(matches!(&fault, Fault::Unauthorized { expires: Some(_), .. }), "{fault}");
    let nowhere = open(kubeconfig("https://127.0.0.1:1", plane.ca(), &admin));
    let fault = nowhere.probe().await.unwrap_err();
    assert!(matches!(&fault, Fault::Unreachable { server, .. } if server == "https://127.0.0.1:1"), "{fault}");
}
