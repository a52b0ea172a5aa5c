//! What the root user of a guest may try, with the token of its seed and with the certificate of its kubelet. Each is refused by
//! the API server or denied by Croft, and what Croft denies is in the audit log and in the events.

use croft_test_cluster::{Credentials, Identity, KubeletCsr, Signer, until, within};
use serde_json::{Value, json};

use crate::site::{PATIENCE, Site, TENANT};

/// A stolen token is good for this name alone.
pub async fn with_the_token(site: &Site, node: &str, token: &str) {
    let thief = site.cluster.kubectl("token", Credentials::Token(token));
    let second = format!("{node}-0badcafe");
    for (request, name) in [("attack-second", second.as_str()), ("attack-other", "other-0badcafe")] {
        let object = KubeletCsr::client(name).object(request, Signer::Client).to_string();
        until("the token may ask", || thief.create(&object)).await;
        denied(site, request, "WrongName").await;
    }
}

pub async fn with_the_certificate(site: &Site, node: &str, identity: &Identity) {
    let thief = site.cluster.kubectl("thief", Credentials::Certificate(identity));
    let refused = async |words: &[&str], because: &str| {
        let why = thief.run(words).await.expect_err("refused");
        assert!(why.contains(because), "{words:?}: {why}");
    };
    // Into another tenant, out of its own, and to where pods of everybody may run.
    let label = "node-restriction.kubernetes.io/croft-tenant";
    let mine = "is not allowed to modify";
    refused(&["label", "node", node, "--overwrite", &format!("{label}=globex")], mine).await;
    refused(&["label", "node", node, &format!("{label}-")], mine).await;
    refused(&["taint", "node", node, "croft.dev/tenant-"], "is not allowed to modify taints").await;
    refused(&["get", "secrets", "--namespace", "kube-system"], "forbidden").await;
    let impostor = KubeletCsr::client("other-0badcafe").object("attack-impostor", Signer::Client);
    let why = thief.create(&impostor.to_string()).await.expect_err("refused");
    assert!(why.contains("can only create a node CSR with CN=system:node:"), "{why}");

    // The API server's own names and addresses, beside its own.
    for (request, names) in [
        ("attack-address", [node, "10.99.0.2"]),
        ("attack-service", [node, "10.96.0.1"]),
        ("attack-name", [node, "kubernetes.default.svc"]),
    ] {
        let object = KubeletCsr::serving(node, &names).object(request, Signer::Serving).to_string();
        thief.create(&object).await.expect("the API server takes it");
        denied(site, request, "WrongSan").await;
    }
}

/// Nothing revokes a certificate: whoever holds it is still let in, and gets nothing for it.
pub async fn after_its_end(site: &Site, node: &str, identity: &Identity) {
    let thief = site.cluster.kubectl("thief", Credentials::Certificate(identity));
    let taints = json!([{ "key": "croft.dev/uninitialised", "effect": "NoSchedule" }]);
    let object =
        json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node }, "spec": { "taints": taints } });
    let why = thief.create(&object.to_string()).await.expect_err("refused");
    assert!(why.contains("is not on the list of nodes that Croft runs"), "{why}");
    let renewal = KubeletCsr::client(node).object("attack-late", Signer::Client).to_string();
    thief.create(&renewal).await.expect("the API server takes it");
    audited(site, "-", "attack-late", "InstanceGone").await;
}

/// In the cluster, in the tenant's audit log, and in its events.
async fn denied(site: &Site, request: &str, reason: &str) {
    within(PATIENCE, &format!("{request} is denied"), || async {
        let status = site.admin.get(&["csr", request]).await?["status"].clone();
        let condition = &status["conditions"][0];
        assert!(status["certificate"].is_null() && condition["type"] != "Approved", "{request}: {status}");
        if condition["type"] == "Denied" && condition["reason"] == reason { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    audited(site, TENANT, request, reason).await;
}

/// `-`: of nobody's.
async fn audited(site: &Site, tenant: &str, request: &str, reason: &str) {
    let scope = if tenant == "-" { vec!["--all"] } else { vec!["--tenant", tenant] };
    let tells = |list: &Value, key: &str| {
        let mut messages = list[key].as_array().into_iter().flatten().filter_map(|one| one["message"].as_str());
        messages.any(|text| text.contains(&format!("certificate request {request} ")) && text.contains(reason))
    };
    within(PATIENCE, &format!("the audit log names {request}"), || async {
        let audit = site.json(&[&["audit", "list", "--limit", "0"], scope.as_slice()].concat())?;
        let events = site.json(&[&["event", "list"], scope.as_slice()].concat())?;
        if tells(&audit, "entries") && tells(&events, "events") { Ok(()) } else { Err(format!("{audit}\n{events}")) }
    })
    .await;
}
