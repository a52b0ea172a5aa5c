//! What runs on a node, and asking it to go.

use croft_core::join::cluster::{Eviction, Fault, Pod};
use k8s_openapi::api::core::v1::Pod as Kind;
use kube::Resource as _;
use kube::api::{ListParams, PostParams};
use kube::core::request::Request;
use kube::core::response::Status;
use serde::Deserialize;
use serde_json::json;

use crate::connection::{Connection, text};
use crate::fault::shortened;
use crate::list::{Item, Longer, list};
use crate::rights::{EVICT, PODS_LIST};
use crate::wire::{Meta, name};

const MIRROR: &str = "kubernetes.io/config.mirror";
const BUDGET_CAUSE: &str = "DisruptionBudget";
const ENDING_CAUSE: &str = "NamespaceTerminating";

#[derive(Deserialize, Default)]
#[serde(default)]
struct Wire {
    metadata: Meta,
    status: Phase,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Phase {
    phase: String,
}

/// Those that a drain waits for.
struct Going(Pod);

pub(crate) async fn pods(connection: &Connection, node: &str) -> Result<Vec<Pod>, Fault> {
    let request = Request::new(Kind::url_path(&(), None));
    let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let all: Vec<Going> = list(connection, &request, PODS_LIST, params, Longer::Fails).await?;
    Ok(all.into_iter().map(|going| going.0).collect())
}

impl Item for Going {
    type Wire = Wire;

    fn read(pod: Wire) -> Option<Self> {
        if !must_go(&pod) {
            return None;
        }
        Some(Self(Pod {
            namespace: name(pod.metadata.namespace)?,
            name: name(pod.metadata.name)?,
            uid: name(pod.metadata.uid)?,
            ending: pod.metadata.deletion_timestamp.is_some(),
        }))
    }
}

/// A DaemonSet's pod would come again at once, a mirror pod is the kubelet's own, and a finished one holds nothing.
fn must_go(pod: &Wire) -> bool {
    let mirror = pod.metadata.annotations.contains_key(MIRROR);
    let owners = pod.metadata.owner_references.iter();
    let of_daemon_set = owners.filter(|owner| owner.controller == Some(true)).any(|owner| owner.kind == "DaemonSet");
    !mirror && !of_daemon_set && !matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
}

pub(crate) async fn evict(connection: &Connection, pod: &Pod) -> Result<Eviction, Fault> {
    let pods = Request::new(Kind::url_path(&(), Some(&pod.namespace)));
    // Written by hand: kube's own `evict` spells `deleteOptions` otherwise, and the API server reads past it.
    let eviction = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": { "name": pod.name, "namespace": pod.namespace },
        "deleteOptions": { "preconditions": { "uid": pod.uid } },
    });
    let right = EVICT.of_in(&pod.namespace, &pod.name);
    let call = async {
        let request = pods.create_subresource("eviction", &pod.name, &PostParams::default(), text(&eviction));
        match connection.call(request).await {
            Err(kube::Error::Api(status)) => match told(&status) {
                Some(eviction) => Ok(eviction),
                None => Err(kube::Error::Api(status)),
            },
            other => other.map(|_| Eviction::Evicted),
        }
    };
    connection.ask(&right, call).await
}

/// What the API server's refusal says of the pod; `None`: it is about something else.
fn told(status: &Status) -> Option<Eviction> {
    let cause = |reason: &str| {
        let causes = status.details.iter().flat_map(|details| &details.causes);
        causes.into_iter().find(|cause| cause.reason == reason)
    };
    match status.code {
        404 => Some(Eviction::Gone),
        // Another pod has this name.
        409 if status.message.contains("UID in ") => Some(Eviction::Gone),
        // Its whole namespace is on the way out: nothing more can be asked, and nothing need be.
        403 if cause(ENDING_CAUSE).is_some() => Some(Eviction::Evicted),
        429 => cause(BUDGET_CAUSE).map(|cause| Eviction::Blocked {
            budget: shortened(budget(&cause.message)),
            message: shortened(&cause.message),
        }),
        500 if status.message.contains("more than one PodDisruptionBudget") => {
            Some(Eviction::Blocked { budget: String::new(), message: shortened(&status.message) })
        }
        _ => None,
    }
}

/// `The disruption budget web needs 2 healthy pods and has 2 currently`: the name is nowhere else.
fn budget(message: &str) -> &str {
    message.split_once("disruption budget ").and_then(|(_, rest)| rest.split(' ').next()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(value: Value) -> Status {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_budgets_refusal_is_told_from_an_overloaded_server() {
        let message = "The disruption budget web needs 2 healthy pods and has 2 currently";
        let causes = json!({ "causes": [{ "reason": "DisruptionBudget", "message": message }] });
        let blocked = status(json!({ "code": 429, "message": "Cannot evict pod", "details": causes }));
        assert!(matches!(told(&blocked), Some(Eviction::Blocked { budget, .. }) if budget == "web"));
        assert_eq!(told(&status(json!({ "code": 429, "message": "too many requests" }))), None);
        assert_eq!(told(&status(json!({ "code": 404 }))), Some(Eviction::Gone));
        assert_eq!(told(&status(json!({ "code": 403, "message": "User \"a\" cannot create" }))), None);
    }

    #[test]
    fn a_daemon_sets_pod_a_mirror_pod_and_a_finished_one_do_not_hold_up_a_drain() {
        let goes = |value: Value| must_go(&serde_json::from_value(value).unwrap());
        assert!(goes(json!({ "metadata": {}, "status": { "phase": "Running" } })));
        assert!(goes(json!({ "metadata": { "ownerReferences": [
            { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a", "uid": "u", "controller": true }
        ] } })));
        assert!(!goes(json!({ "metadata": { "ownerReferences": [
            { "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "a", "uid": "u", "controller": true }
        ] } })));
        assert!(!goes(json!({ "metadata": { "annotations": { "kubernetes.io/config.mirror": "x" } } })));
        assert!(!goes(json!({ "metadata": {}, "status": { "phase": "Succeeded" } })));
    }
}
