//! An instance becomes a node of a real cluster, and leaves it: the plane and a real API server, with its admission policies and
//! no more rights than the manifest grants. The guest is simulated; this test plays its kubelet.
//!
//! Runs where CROFT_KUBERNETES_BIN names a folder with the programs of a control plane; elsewhere it says that it did not run.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use croft_kube::KubeClusters;
use croft_proto::v1;
use croft_proto::v1::condition::Status;
use croft_proto::v1::node_status::Phase;
use croft_test_cluster::{ControlPlane, Credentials, Identity, Kubectl, KubeletCsr, Options, Signer, programs, until};
use croft_tests::{Fleet, Wanted};
use serde_json::{Value, json};

const ID: &str = "train-1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_becomes_a_node_of_a_real_cluster_and_leaves_nothing_behind() {
    let Some(programs) = programs() else {
        eprintln!("not run: no CROFT_KUBERNETES_BIN; `cargo xtask test --lane kubernetes` sets it");
        return;
    };
    let began = Instant::now();
    let step = |what: &str| println!("{:6.1} s  {what}", began.elapsed().as_secs_f64());
    let plane = ControlPlane::start(&programs, &Options::at(IpAddr::V4(Ipv4Addr::LOCALHOST))).await;
    let admin = plane.admin();
    admin.create(&croft_kube::manifest::whole()).await.unwrap();
    let token = plane.service_account_token("croft-system", "croft").await.unwrap();
    let mut fleet = Fleet::on(Arc::new(KubeClusters::default())).await;
    fleet.host("h1").await;
    let cluster = fleet.register_cluster_at("prod", &plane.kubeconfig(Credentials::Token(&token))).await;
    step("a cluster, a plane and a host are ready");

    let operation = fleet.api.create_as(request(&cluster)).await.unwrap();
    let instance = phase(&fleet, Phase::Booting).await;
    let uid = instance.metadata.clone().unwrap().uid;
    let told = until("the guest has its seed", || async {
        let files = fleet.sim("h1").seed_files(&uid);
        match files.get("croft-join.env") {
            Some(text) if fleet.sim("h1").is_running(&uid).await => Ok(variables(text)),
            _ => Err(format!("{:?}", files.keys())),
        }
    })
    .await;
    let name = told["CROFT_NODE_NAME"].clone();
    step("it boots with a token in its seed");

    // Another name on the same token first: denied, and the honest request is granted all the same.
    let by_token = plane.kubectl("by-token", Credentials::Token(&told["CROFT_TOKEN"]));
    let greedy = KubeletCsr::client("other-0badcafe").object("csr-greedy", Signer::Client).to_string();
    until("the token may ask", || by_token.create(&greedy)).await;
    until("it is denied", || async {
        let seen = admin.get(&["csr", "csr-greedy"]).await?;
        let condition = &seen["status"]["conditions"][0];
        if condition["reason"] == "WrongName" { Ok(()) } else { Err(condition.to_string()) }
    })
    .await;
    let kubelet = KubeletCsr::client(&name);
    by_token.create(&kubelet.object("csr-honest", Signer::Client).to_string()).await.unwrap();
    let certificate_pem = issued(&admin, "csr-honest").await;
    let identity = Identity { certificate_pem, key_pem: kubelet.key_pem };
    let node = plane.kubectl("kubelet", Credentials::Certificate(&identity));
    step("its certificate is issued, another one denied");

    let registers = object(&name, &told).to_string();
    until("the node registers", || node.create(&registers)).await;
    ready(&admin, &name).await;
    phase(&fleet, Phase::Joined).await;
    until("the condition Joined is True", || async {
        let status = fleet.api.get("acme", ID).await.map_err(|status| status.to_string())?.status.unwrap_or_default();
        let joined = status.conditions.iter().find(|condition| condition.r#type == "Joined").cloned();
        if joined.as_ref().is_some_and(|joined| joined.status() == Status::True) {
            Ok(())
        } else {
            Err(format!("{joined:?}"))
        }
    })
    .await;
    fleet.api.done(&operation).await.expect("the create is done");
    step("the node is Ready");
    until("it is dressed", || async {
        let seen = admin.get(&["node", &name]).await?;
        let label = &seen["metadata"]["labels"]["node-restriction.kubernetes.io/croft-tenant"];
        let taints: Vec<&str> =
            seen["spec"]["taints"].as_array().into_iter().flatten().filter_map(|t| t["key"].as_str()).collect();
        let dressed =
            label == "acme" && taints.contains(&"croft.dev/tenant") && !taints.contains(&"croft.dev/uninitialised");
        if dressed { Ok(()) } else { Err(format!("{label} {taints:?}")) }
    })
    .await;
    let secret = format!("bootstrap-token-{}", told["CROFT_TOKEN_ID"]);
    until("its token is gone", || async {
        match admin.run(&["get", "secret", &secret, "--namespace", "kube-system"]).await {
            Err(why) if why.contains("not found") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(!fleet.sim("h1").seed_files(&uid).contains_key("croft-join.env"), "and in the guest's sight");
    let address = instance_address(&fleet).await;
    let serving = KubeletCsr::serving(&name, &[&name, &address]).object("csr-serving", Signer::Serving);
    node.create(&serving.to_string()).await.unwrap();
    issued(&admin, "csr-serving").await;
    step("the node is dressed, serves, and has no token");

    admin.create(&pod(&name).to_string()).await.unwrap();
    fleet.api.delete("acme", ID).await.unwrap();
    until("the pod is asked to go", || async {
        let seen = admin.get(&["pod", "web"]).await?;
        if seen["metadata"]["deletionTimestamp"].is_string() { Ok(()) } else { Err(seen["metadata"].to_string()) }
    })
    .await;
    assert!(fleet.sim("h1").is_running(&uid).await, "its pod still ends");
    admin.run(&["delete", "pod", "web", "--force", "--grace-period=0"]).await.unwrap();
    step("the pod is gone");
    until("the instance is gone", || async {
        match fleet.api.state("acme", ID).await {
            None => Ok(()),
            state => Err(format!("{state:?}")),
        }
    })
    .await;
    until("nothing is left", || async {
        let nodes = admin.run(&["get", "nodes", "-o", "name"]).await?;
        let requests = admin.run(&["get", "csr", "-o", "name"]).await?;
        let left = format!("{nodes}{requests}");
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    let again = node.create(&registers).await.unwrap_err();
    assert!(again.contains("is not on the list of nodes that Croft runs"), "{again}");
    step("nothing of it is left, and its certificate makes no node");
    fleet.end().await;
}

fn request(cluster: &str) -> v1::CreateInstanceRequest {
    let mut request = Wanted::default().request("acme", ID);
    let spec = request.instance.as_mut().and_then(|instance| instance.spec.as_mut()).expect("a spec");
    spec.node = Some(v1::NodeWish { cluster: cluster.to_owned(), ..Default::default() });
    request
}

/// `KEY='value'` by the line.
fn variables(text: &str) -> BTreeMap<String, String> {
    let one = |line: &str| {
        let (key, value) = line.split_once("='")?;
        Some((key.to_owned(), value.strip_suffix('\'')?.to_owned()))
    };
    text.lines().filter_map(one).collect()
}

async fn phase(fleet: &Fleet, wanted: Phase) -> v1::Instance {
    until(&format!("{wanted:?}"), || async {
        let instance = fleet.api.get("acme", ID).await.map_err(|status| status.to_string())?;
        let node = instance.status.clone().and_then(|status| status.node).unwrap_or_default();
        if node.phase() == wanted { Ok(instance) } else { Err(format!("{node:?}")) }
    })
    .await
}

async fn instance_address(fleet: &Fleet) -> String {
    until("the guest has an address", || async {
        let status = fleet.api.get("acme", ID).await.map_err(|status| status.to_string())?.status.unwrap_or_default();
        let leased = status.addresses.iter().find(|address| address.leased);
        leased.map(|address| address.ip.clone()).ok_or_else(|| format!("{:?}", status.addresses))
    })
    .await
}

async fn issued(admin: &Kubectl, name: &str) -> String {
    until(&format!("{name} is issued"), || async {
        let object = admin.get(&["csr", name]).await?;
        let encoded = object["status"]["certificate"].as_str().ok_or_else(|| object["status"].to_string())?;
        let pem = STANDARD.decode(encoded).map_err(|error| error.to_string())?;
        String::from_utf8(pem).map_err(|error| error.to_string())
    })
    .await
}

/// As a kubelet registers itself.
fn object(name: &str, told: &BTreeMap<String, String>) -> Value {
    let taint = |text: &str| {
        let (rest, effect) = text.rsplit_once(':').expect("an effect");
        let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
        json!({ "key": key, "value": value, "effect": effect })
    };
    let taints: Vec<Value> = told["CROFT_TAINTS"].split(',').map(taint).collect();
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "spec": { "providerID": told["CROFT_PROVIDER_ID"], "taints": taints } })
}

/// A kubelet may write its status; kubectl would read it first, which no kubelet may.
async fn ready(admin: &Kubectl, name: &str) {
    let condition =
        json!({ "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "played by a test" });
    let patch = json!({ "status": { "conditions": [condition] } }).to_string();
    admin.run(&["patch", "node", name, "--subresource=status", "--type=merge", "--patch", &patch]).await.unwrap();
}

fn pod(node: &str) -> Value {
    let container = json!({ "name": "web", "image": "localhost/pause:1" });
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web" },
        "spec": { "nodeName": node, "containers": [container], "tolerations": [{ "operator": "Exists" }] } })
}
