//! What becomes of the instance and of its node, step by step.

use std::process::Command;

use croft_test_cluster::within;
use serde_json::{Value, json};

use crate::guest::Guest;
use crate::processes::{output, run};
use crate::site::{INSTANCE, PATIENCE, Site, TENANT};
use crate::steps::Steps;

const TENANT_LABEL: &str = "node-restriction.kubernetes.io/croft-tenant";

pub struct Booting {
    pub uid: String,
    pub node: String,
    /// `id.secret`, as it lies in the seed.
    pub token: String,
}

pub async fn create(site: &Site, steps: &mut Steps) -> Booting {
    let mut words = vec!["instance", "create", INSTANCE, "--tenant", TENANT, "--image", "node", "--vcpus", "2"];
    words.extend(["--memory", "2GiB", "--disk", "4GiB", "--cluster", "prod", "--node-labels", "zone=a"]);
    words.extend(["--node-taints", "team=ml:PreferNoSchedule"]);
    site.croft(&words);
    let booting = within(PATIENCE, "it boots with a token in its seed", || async {
        let seen = site.instance()?;
        let uid = seen["metadata"]["uid"].as_str().ok_or("no uid")?.to_owned();
        let node = seen["status"]["node"]["name"].as_str().ok_or("no node")?.to_owned();
        let token = token_in(&site.seed(&uid)).ok_or_else(|| seen["status"].to_string())?;
        Ok(Booting { uid, node, token })
    })
    .await;
    within(PATIENCE, "it runs", || async {
        let seen = site.instance()?;
        if seen["status"]["state"] == "RUNNING" { Ok(()) } else { Err(seen["status"].to_string()) }
    })
    .await;
    // The host has it, in the seed and in its own notes; the plane has it nowhere in clear.
    let holds = files_with(site, booting.token.split('.').nth(1).expect("a secret"));
    assert!(holds.iter().any(|file| file.ends_with("/seed.img")), "{holds:?}");
    assert!(holds.iter().all(|file| file.contains("/agent/")), "{holds:?}");
    steps.done("created: its token is made, its seed is on the host, the guest is started");
    booting
}

fn token_in(seed: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(seed);
    let rest = text.split_once("CROFT_TOKEN='")?.1;
    Some(rest.split_once('\'')?.0.to_owned())
}

pub async fn join(site: &Site, guest: &mut Guest, node: &str, token: &str, steps: &mut Steps) {
    guest.is_heard(site, "").await;
    steps.done("the guest's kernel is heard");
    let id = token.split('.').next().unwrap_or_default();
    let bootstrap = format!("system:bootstrap:{id}");
    request(site, &bootstrap, false).await;
    steps.done("its kubelet asks for a certificate");
    request(site, &bootstrap, true).await;
    steps.done("the certificate is issued");
    within(PATIENCE, "the node registers", || async { site.admin.get(&["node", node]).await }).await;
    steps.done("the node has registered");
    within(PATIENCE, "the node is Ready", || async { is_ready(&site.admin.get(&["node", node]).await?) }).await;
    steps.done("the node is Ready");
    request(site, &format!("system:node:{node}"), true).await;
    steps.done("it has a certificate to serve with");
    within(PATIENCE, "the instance has joined", || async {
        let seen = site.instance()?;
        let status = &seen["status"];
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let joined = conditions.iter().any(|one| one["type"] == "Joined" && one["status"] == "TRUE");
        if joined && status["node"]["phase"] == "JOINED" { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    steps.done("the instance is Joined");
}

/// Of those that a kubelet sends; the test's own have names of another kind.
async fn request(site: &Site, username: &str, issued: bool) {
    within(PATIENCE, &format!("a request of {username}, issued: {issued}"), || async {
        let all = site.admin.get(&["csr"]).await?;
        let mine = |one: &&Value| {
            let name = one["metadata"]["name"].as_str().unwrap_or_default();
            one["spec"]["username"] == username && !name.starts_with("attack-")
        };
        let requests: Vec<&Value> = all["items"].as_array().into_iter().flatten().filter(mine).collect();
        let found = requests.iter().any(|one| !issued || one["status"]["certificate"].is_string());
        if found { Ok(()) } else { Err(format!("{requests:?}\n{}", site.instance()?["status"])) }
    })
    .await;
}

fn is_ready(node: &Value) -> Result<(), String> {
    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
    if ready { Ok(()) } else { Err(format!("{conditions:?}")) }
}

pub async fn dressed(site: &Site, uid: &str, name: &str) {
    within(PATIENCE, "it is dressed", || async {
        let node = site.admin.get(&["node", name]).await?;
        let keys: Vec<_> = taints(&node).iter().map(|(key, ..)| key.clone()).collect();
        if keys.contains(&"croft.dev/uninitialised".to_owned()) { Err(format!("{keys:?}")) } else { Ok(()) }
    })
    .await;
    let node = site.admin.get(&["node", name]).await.expect("it is there");
    let metadata = &node["metadata"];
    assert_eq!(metadata["labels"][TENANT_LABEL], TENANT);
    assert_eq!(metadata["labels"]["zone"], "a");
    assert_eq!(metadata["annotations"]["croft.dev/instance"], format!("tenants/{TENANT}/instances/{INSTANCE}"));
    assert_eq!(node["spec"]["providerID"], format!("croft://{TENANT}/{uid}"));
    let taints = taints(&node);
    for (key, value, effect) in [("croft.dev/tenant", TENANT, "NoSchedule"), ("team", "ml", "PreferNoSchedule")] {
        let wanted = (key.to_owned(), value.to_owned(), effect.to_owned());
        assert!(taints.contains(&wanted), "{taints:?}");
    }
}

fn taints(node: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = node["spec"]["taints"].as_array().into_iter().flatten();
    all.map(|taint| (text(&taint["key"]), text(&taint["value"]), text(&taint["effect"]))).collect()
}

/// Not in the cluster, not in the seed as the host and the running guest see it, and in no file below the lab: the plane's
/// database, its log, the agent's, the guest's own disk.
pub async fn no_secret_is_left(site: &Site, guest: &Guest, uid: &str, token: &str) {
    within(PATIENCE, "the token is gone", || no_token(site)).await;
    within(PATIENCE, "the seed is replaced", || async {
        if token_in(&site.seed(uid)).is_none() { Ok(()) } else { Err("the seed on the host has it".to_owned()) }
    })
    .await;
    let look = "mkdir -p /run/look && blockdev --flushbufs /dev/disk/by-label/CIDATA && \
                mount -o ro /dev/disk/by-label/CIDATA /run/look && ls /run/look && umount /run/look";
    let files = guest.run(look).await.expect("the guest reads its seed");
    assert!(files.contains("vendor-data") && !files.contains("croft-join"), "{files}");
    within(PATIENCE, "the guest has forgotten it", || guest.run("sync && ! ls /run/croft-join 2>/dev/null")).await;
    let secret = token.split('.').nth(1).expect("a secret");
    let in_memory = guest.run(&format!("! grep -rlaF --devices=skip {secret} /run")).await;
    assert!(in_memory.is_ok(), "{in_memory:?}");
    assert_eq!(files_with(site, secret), Vec::<String>::new());
}

/// Below the lab, as root.
fn files_with(site: &Site, secret: &str) -> Vec<String> {
    let lab = site.lab.to_str().expect("UTF-8");
    // Ends with 1 where it finds nothing; a file that goes while it looks is no matter.
    let found = Command::new("grep").args(["-rlaFs", "--devices=skip", secret, lab]).output().expect("grep");
    String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect()
}

async fn no_token(site: &Site) -> Result<(), String> {
    let fields = "type=bootstrap.kubernetes.io/token";
    let left =
        site.admin.run(&["get", "secrets", "--all-namespaces", "--field-selector", fields, "-o", "name"]).await?;
    if left.is_empty() { Ok(()) } else { Err(left) }
}

/// As a tenant does: in his namespace, on his nodes, past his taint.
pub async fn runs_a_pod(site: &Site) {
    let labels = json!({ "croft.dev/tenant": TENANT });
    let namespace =
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": TENANT, "labels": labels } });
    site.admin.create(&namespace.to_string()).await.expect("a namespace");
    pod(site, "once", "echo seen > /dev/termination-log").await;
    within(PATIENCE, "the pod has ended well", || async {
        let status = site.admin.get(&["pod", "once", "--namespace", TENANT]).await?["status"].clone();
        assert_ne!(status["phase"], "Failed", "{status}");
        let ended = &status["containerStatuses"][0]["state"]["terminated"];
        if ended["reason"] == "Completed" && ended["message"] == "seen\n" { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

async fn pod(site: &Site, name: &str, command: &str) {
    let container = json!({ "name": "c", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
        "command": ["sh", "-c", command] });
    let spec = json!({
        "restartPolicy": "Never", "containers": [container], "terminationGracePeriodSeconds": 5,
        "nodeSelector": { TENANT_LABEL: TENANT },
        "tolerations": [{ "key": "croft.dev/tenant", "value": TENANT, "effect": "NoSchedule" }],
    });
    let metadata = json!({ "name": name, "namespace": TENANT });
    let object = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec }).to_string();
    // Not before the namespace has its service account.
    within(PATIENCE, "the pod is made", || site.admin.create(&object)).await;
}

/// Ready again by what lies on its own disk: nobody gives it a token.
pub async fn loses_power(site: &Site, guest: &mut Guest, name: &str, steps: &mut Steps) {
    let boot_id = |node: &Value| node["status"]["nodeInfo"]["bootID"].as_str().unwrap_or_default().to_owned();
    let before = boot_id(&site.admin.get(&["node", name]).await.expect("it is there"));
    let said = site.console();
    guest.lose_power();
    guest.is_heard(site, &said).await;
    within(PATIENCE, "it is Ready again", || async {
        let node = site.admin.get(&["node", name]).await?;
        if boot_id(&node) == before {
            Err(format!("not booted: {}", site.instance()?["status"]))
        } else {
            is_ready(&node)
        }
    })
    .await;
    no_token(site).await.expect("no token");
    assert_eq!(site.instance().expect("it is there")["status"]["node"]["phase"], "JOINED");
    steps.done("Ready again after a power cut, without a token");
}

/// Its pods are asked to go before it stops.
pub async fn leaves(site: &Site, uid: &str, name: &str, steps: &mut Steps) {
    pod(site, "stays", "sleep 36000").await;
    within(PATIENCE, "the pod runs", || async {
        let status = site.admin.get(&["pod", "stays", "--namespace", TENANT]).await?["status"].clone();
        if status["phase"] == "Running" { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    steps.done("a pod that stays runs");
    site.croft(&["instance", "delete", INSTANCE, "--tenant", TENANT]);
    let domain = format!("croft-{uid}");
    within(PATIENCE, "cordoned, the pod asked to go, the guest up", || async {
        let node = site.admin.get(&["node", name]).await?;
        let pod = site.admin.get(&["pod", "stays", "--namespace", TENANT]).await?;
        let runs = run("virsh", &["-q", "domstate", &domain]);
        let drains = node["spec"]["unschedulable"] == true && pod["metadata"]["deletionTimestamp"].is_string();
        if drains && runs.trim() == "running" {
            Ok(())
        } else {
            Err(format!("{} {} {runs}", node["spec"], pod["metadata"]))
        }
    })
    .await;
    steps.done("cordoned, its pod evicted");
    within(PATIENCE, "the node is deleted", || async {
        match site.admin.get(&["node", name]).await {
            Err(why) if why.contains("not found") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    steps.done("drained: the node is deleted");
    within(PATIENCE, "the instance is gone", || async {
        match site.instance() {
            Err(why) if why.contains("NOT_FOUND") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    steps.done("the instance is gone");
}

pub async fn nothing_is_left(site: &Site) {
    within(PATIENCE, "nothing is left in the cluster", || async {
        no_token(site).await?;
        let nodes = site.admin.run(&["get", "nodes", "-o", "name"]).await?;
        let requests = site.admin.run(&["get", "csr", "-o", "name"]).await?;
        let roster = site.admin.get(&["configmap", "croft-nodes", "--namespace", "croft-system"]).await?;
        let listed = roster["data"].as_object().is_some_and(|data| data.keys().any(|key| key.contains(INSTANCE)));
        let left = format!("{nodes}{requests}{}", if listed { roster["data"].to_string() } else { String::new() });
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    assert_eq!(run("virsh", &["-q", "list", "--all", "--name"]).trim(), "");
    let instances = site.lab.join("agent/instances");
    let left = output(Command::new("ls").arg("-A").arg(&instances)).expect("the agent's folder");
    assert_eq!(left, "");
}
