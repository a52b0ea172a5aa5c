//! That the control plane of the tests is a real one: a node joins by TLS bootstrap, by hand, and only once somebody says yes.
//!
//! Runs in the kubernetes lane; elsewhere it says that it did not run.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use croft_test_cluster::{ControlPlane, Credentials, Identity, Kubectl, KubeletCsr, Options, Signer, programs, until};
use serde_json::json;

const TOKEN: (&str, &str) = ("abcdef", "0123456789abcdef");

#[tokio::test]
async fn a_node_joins_once_its_certificate_is_approved_and_can_be_no_other_node() {
    let Some(programs) = programs() else {
        eprintln!("not run: no CROFT_KUBERNETES_BIN; `cargo xtask test --lane kubernetes` sets it");
        return;
    };
    let began = Instant::now();
    let step = |what: &str| println!("{:6.1} s  {what}", began.elapsed().as_secs_f64());
    let mut plane = ControlPlane::start(&programs, &Options::at(IpAddr::V4(Ipv4Addr::LOCALHOST))).await;
    let admin = plane.admin();
    step("the control plane is ready");
    admin.create(include_str!("rights.yaml")).await.unwrap();
    admin.create(&token().to_string()).await.unwrap();
    let approver_token = plane.service_account_token("kube-system", "approver").await.unwrap();
    let approver = plane.kubectl("approver", Credentials::Token(&approver_token));
    let bootstrap_token = format!("{}.{}", TOKEN.0, TOKEN.1);
    let bootstrap = plane.kubectl("bootstrap", Credentials::Token(&bootstrap_token));

    // A kubelet asks, and nobody answers by itself.
    let request = KubeletCsr::client("n1");
    let object = request.object("csr-n1", Signer::Client).to_string();
    // The token is known to the API server as soon as it has seen the secret.
    until("the bootstrap token may ask", || bootstrap.create(&object)).await;
    let seen = approver.get(&["csr", "csr-n1"]).await.unwrap();
    assert_eq!(seen["spec"]["username"], format!("system:bootstrap:{}", TOKEN.0));
    assert!(seen["status"]["certificate"].is_null() && seen["status"]["conditions"].is_null(), "{seen}");
    step("its request is seen, and nobody has approved it");

    // Who may approve may do no more.
    let refused = approver.run(&["get", "secrets", "--namespace", "kube-system"]).await.unwrap_err();
    assert!(refused.contains("forbidden"), "{refused}");
    let refused = bootstrap.run(&["certificate", "approve", "csr-n1"]).await.unwrap_err();
    assert!(refused.contains("forbidden"), "{refused}");
    approver.run(&["certificate", "approve", "csr-n1"]).await.unwrap();
    let identity = Identity { certificate_pem: issued(&approver, "csr-n1").await, key_pem: request.key_pem };
    step("it is issued");

    // It is that node, and no other.
    let node = plane.kubectl("n1", Credentials::Certificate(&identity));
    let refused = node.create(&object_of_node("n2").to_string()).await.unwrap_err();
    assert!(refused.contains("is not allowed to modify node \"n2\""), "{refused}");
    node.create(&object_of_node("n1").to_string()).await.unwrap();
    let seen = admin.get(&["node", "n1"]).await.unwrap();
    assert_eq!(seen["spec"]["providerID"], "croft://n1");
    step("it is a node");
    let impostor = KubeletCsr::serving("n2", &["n2"]).object("csr-impostor", Signer::Serving);
    let refused = node.create(&impostor.to_string()).await.unwrap_err();
    assert!(refused.contains("can only create a node CSR with CN=system:node:n1"), "{refused}");
    let serving = KubeletCsr::serving("n1", &["n1", "10.0.0.1"]).object("csr-n1-serving", Signer::Serving);
    node.create(&serving.to_string()).await.unwrap();
    approver.run(&["certificate", "approve", "csr-n1-serving"]).await.unwrap();
    issued(&approver, "csr-n1-serving").await;
    step("it may serve under its own name");

    // What it knew is still there after the API server has died.
    plane.cut_off();
    let gone = admin.run(&["get", "node", "n1"]).await.unwrap_err();
    assert!(gone.contains("refused"), "{gone}");
    plane.restore().await;
    admin.run(&["get", "node", "n1"]).await.unwrap();
    step("the API server was killed and is back");
}

async fn issued(kubectl: &Kubectl, name: &str) -> String {
    until("the certificate is issued", || async {
        let object = kubectl.get(&["csr", name]).await?;
        let encoded = object["status"]["certificate"].as_str().ok_or_else(|| object["status"].to_string())?;
        let pem = STANDARD.decode(encoded).map_err(|error| error.to_string())?;
        String::from_utf8(pem).map_err(|error| error.to_string())
    })
    .await
}

fn object_of_node(name: &str) -> serde_json::Value {
    let spec = json!({"providerID": format!("croft://{name}")});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec})
}

fn token() -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": format!("bootstrap-token-{}", TOKEN.0), "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": TOKEN.0,
            "token-secret": TOKEN.1,
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:test",
        },
    })
}
