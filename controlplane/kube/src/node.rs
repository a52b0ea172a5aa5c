//! Nodes: read as Croft's plain data, changed without touching what others wrote.
//!
//! The list of taints is one value to the API server, so a change is computed from what was read and sent with its version: when
//! somebody else was quicker, it is read and computed again.

use croft_core::join::cluster::{Change, Fault, Node, Ready};
use croft_core::join::node::{Effect, Taint};
use k8s_openapi::api::core::v1::{Node as Raw, NodeSpec, NodeStatus, Taint as RawTaint};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use serde_json::{Map, Value, json};

use crate::cluster::MANAGER;
use crate::connection::{Connection, Longer};
use crate::fault::shortened;
use crate::rights::{NODE_DELETE, NODE_GET, NODE_PATCH, NODES_LIST};

/// Kubelets and controllers write to a node every few seconds at most.
const ATTEMPTS: usize = 5;

pub(crate) async fn list(connection: &Connection) -> Result<Vec<Node>, Fault> {
    let api: Api<Raw> = Api::all(connection.client());
    let all = connection.list(&api, NODES_LIST, ListParams::default(), Longer::Fails).await?;
    Ok(all.into_iter().map(read).collect())
}

pub(crate) async fn get(connection: &Connection, name: &str) -> Result<Option<Node>, Fault> {
    Ok(raw(connection, name).await?.map(read))
}

async fn raw(connection: &Connection, name: &str) -> Result<Option<Raw>, Fault> {
    let api: Api<Raw> = Api::all(connection.client());
    connection.ask(&NODE_GET.of(name), api.get_opt(name)).await
}

pub(crate) async fn change(connection: &Connection, name: &str, uid: &str, change: &Change) -> Result<(), Fault> {
    let api: Api<Raw> = Api::all(connection.client());
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let mut outcome = Ok(());
    for _ in 0..ATTEMPTS {
        let Some(node) = raw(connection, name).await? else {
            return Err(Fault::NotFound { server: connection.server(), what: format!("node {name}") });
        };
        if node.metadata.uid.as_deref() != Some(uid) {
            return Err(replaced(connection, name, uid));
        }
        let Some(patch) = difference(&node, change) else { return Ok(()) };
        let patch = Patch::Merge(patch);
        outcome = connection.ask(&NODE_PATCH.of(name), api.patch(name, &params, &patch)).await.map(drop);
        if !matches!(outcome, Err(Fault::Conflict { .. })) {
            break;
        }
    }
    outcome
}

pub(crate) async fn delete(connection: &Connection, name: &str, uid: &str) -> Result<(), Fault> {
    let api: Api<Raw> = Api::all(connection.client());
    let this = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams::default().preconditions(this);
    match connection.ask(&NODE_DELETE.of(name), api.delete(name, &params)).await {
        Ok(_) | Err(Fault::NotFound { .. }) => Ok(()),
        Err(Fault::Conflict { .. }) => Err(replaced(connection, name, uid)),
        Err(fault) => Err(fault),
    }
}

fn replaced(connection: &Connection, name: &str, uid: &str) -> Fault {
    let what = format!("node {name} is another one now than the one with uid {uid}");
    Fault::Conflict { server: connection.server(), what }
}

/// A merge patch with what `change` says and the node does not have; `None`: nothing to do.
fn difference(node: &Raw, change: &Change) -> Option<Value> {
    let mut metadata = Map::new();
    for (field, wanted, has) in [
        ("labels", &change.labels, &node.metadata.labels),
        ("annotations", &change.annotations, &node.metadata.annotations),
    ] {
        let has = |key: &str| has.as_ref().and_then(|all| all.get(key));
        let new: Map<_, _> = wanted
            .iter()
            .filter(|(key, value)| has(key) != Some(value))
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        if !new.is_empty() {
            metadata.insert(field.to_owned(), new.into());
        }
    }
    let mut spec = Map::new();
    let default = NodeSpec::default();
    let has = node.spec.as_ref().unwrap_or(&default);
    let old = has.taints.clone().unwrap_or_default();
    let new = taints(&old, change);
    if new != old {
        spec.insert("taints".to_owned(), json!(new));
    }
    if let Some(cordoned) = change.cordoned.filter(|cordoned| *cordoned != has.unschedulable.unwrap_or(false)) {
        spec.insert("unschedulable".to_owned(), json!(cordoned));
    }
    if metadata.is_empty() && spec.is_empty() {
        return None;
    }
    metadata.insert("resourceVersion".to_owned(), json!(node.metadata.resource_version));
    Some(json!({ "metadata": metadata, "spec": spec }))
}

fn taints(old: &[RawTaint], change: &Change) -> Vec<RawTaint> {
    let mut new: Vec<RawTaint> = old.iter().filter(|taint| !change.shed.contains(&taint.key)).cloned().collect();
    for wanted in &change.taints {
        let effect = format!("{:?}", wanted.effect);
        let value = (!wanted.value.is_empty()).then(|| wanted.value.clone());
        match new.iter_mut().find(|taint| taint.key == wanted.key && taint.effect == effect) {
            // Its time, for NoExecute, stays.
            Some(there) => there.value = value,
            None => new.push(RawTaint { key: wanted.key.clone(), value, effect, time_added: None }),
        }
    }
    new
}

fn read(node: Raw) -> Node {
    let NodeSpec { provider_id, taints, unschedulable, .. } = node.spec.unwrap_or_default();
    let status = node.status.unwrap_or_default();
    let quantities = |all: Option<std::collections::BTreeMap<String, _>>| {
        let text =
            |(name, quantity): (String, k8s_openapi::apimachinery::pkg::api::resource::Quantity)| (name, quantity.0);
        all.unwrap_or_default().into_iter().map(text).collect()
    };
    Node {
        name: node.metadata.name.unwrap_or_default(),
        uid: node.metadata.uid.unwrap_or_default(),
        provider_id: provider_id.filter(|id| !id.is_empty()),
        ready: ready(&status),
        cordoned: unschedulable.unwrap_or(false),
        labels: node.metadata.labels.unwrap_or_default(),
        annotations: node.metadata.annotations.unwrap_or_default(),
        taints: taints.unwrap_or_default().into_iter().filter_map(taint).collect(),
        addresses: status.addresses.iter().flatten().filter_map(|address| address.address.parse().ok()).collect(),
        capacity: quantities(status.capacity),
        allocatable: quantities(status.allocatable),
    }
}

fn ready(status: &NodeStatus) -> Ready {
    let Some(condition) = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready") else {
        return Ready::No(String::new());
    };
    match condition.status.as_str() {
        "True" => Ready::Yes,
        "False" => Ready::No(shortened(condition.message.as_deref().unwrap_or_default())),
        _ => Ready::Silent,
    }
}

fn taint(raw: RawTaint) -> Option<Taint> {
    let effect = match raw.effect.as_str() {
        "NoSchedule" => Effect::NoSchedule,
        "PreferNoSchedule" => Effect::PreferNoSchedule,
        "NoExecute" => Effect::NoExecute,
        _ => return None,
    };
    Some(Taint { key: raw.key, value: raw.value.unwrap_or_default(), effect })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(spec: Value) -> Raw {
        let metadata =
            json!({ "name": "a", "uid": "u", "resourceVersion": "7", "labels": { "zone": "x", "mine": "old" } });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    #[test]
    fn a_change_says_only_what_is_new_and_keeps_the_taints_of_others() {
        let before = node(json!({ "taints": [
            { "key": "other", "effect": "NoExecute", "timeAdded": "2026-11-23T00:00:00Z" },
            { "key": "croft.dev/uninitialised", "effect": "NoSchedule" },
        ] }));
        let change = Change {
            labels: [("mine".to_owned(), "new".to_owned()), ("zone".to_owned(), "x".to_owned())].into(),
            taints: vec![Taint { key: "croft.dev/tenant".into(), value: "acme".into(), effect: Effect::NoSchedule }],
            shed: ["croft.dev/uninitialised".to_owned()].into(),
            ..Change::default()
        };
        let patch = difference(&before, &change).unwrap();
        assert_eq!(patch["metadata"], json!({ "resourceVersion": "7", "labels": { "mine": "new" } }));
        assert_eq!(
            patch["spec"],
            json!({ "taints": [
                { "key": "other", "effect": "NoExecute", "timeAdded": "2026-11-23T00:00:00Z" },
                { "key": "croft.dev/tenant", "value": "acme", "effect": "NoSchedule" },
            ] })
        );
    }

    #[test]
    fn what_is_so_already_is_no_change() {
        let out = node(json!({ "unschedulable": true, "taints": [
            { "key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute" },
        ] }));
        assert_eq!(difference(&out, &Change::cordon()), None);
        assert_eq!(difference(&out, &Change::out_of_service()), None);
        assert_eq!(difference(&out, &Change::back_in_service()).unwrap()["spec"], json!({ "taints": [] }));
        assert_eq!(difference(&out, &Change::uncordon()).unwrap()["spec"], json!({ "unschedulable": false }));
        assert_eq!(difference(&node(json!({})), &Change::uncordon()), None);
    }
}
