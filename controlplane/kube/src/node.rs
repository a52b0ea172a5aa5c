//! Nodes: read as Croft's plain data, changed without touching what others wrote.
//!
//! The list of taints is one value to the API server, so a change is computed from what was read and sent with its version: when
//! somebody else was quicker, it is read and computed again.

use croft_core::join::cluster::{Change, Fault, Node, Ready};
use croft_core::join::node::{Effect, Taint};
use croft_core::meta::Labels;
use k8s_openapi::api::core::v1::{Node as Kind, Taint as RawTaint};
use kube::Resource as _;
use kube::api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::request::Request;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::cluster::MANAGER;
use crate::connection::Connection;
use crate::fault::shortened;
use crate::list::{self, Item, Longer};
use crate::rights::{NODE_DELETE, NODE_GET, NODE_PATCH, NODES_LIST};
use crate::wire::{Meta, few, labels, name};

/// Kubelets and controllers write to a node every few seconds at most.
const ATTEMPTS: usize = 5;

/// The policy lets a kubelet register with far fewer.
const TAINTS_MAX: usize = 1000;

#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Raw {
    metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "providerID")]
    provider_id: String,
    #[serde(deserialize_with = "few::<_, _, TAINTS_MAX>")]
    taints: Vec<RawTaint>,
    unschedulable: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    #[serde(deserialize_with = "few::<_, _, 100>")]
    conditions: Vec<Condition>,
    #[serde(deserialize_with = "few::<_, _, 100>")]
    addresses: Vec<Address>,
    #[serde(deserialize_with = "labels")]
    capacity: Labels,
    #[serde(deserialize_with = "labels")]
    allocatable: Labels,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
    message: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Address {
    address: String,
}

fn requests() -> Request {
    Request::new(Kind::url_path(&(), None))
}

pub(crate) async fn list(connection: &Connection) -> Result<Vec<Node>, Fault> {
    list::list(connection, &requests(), NODES_LIST, ListParams::default(), Longer::Fails).await
}

pub(crate) async fn get(connection: &Connection, name: &str) -> Result<Option<Node>, Fault> {
    Ok(raw(connection, name).await?.and_then(Item::read))
}

async fn raw(connection: &Connection, name: &str) -> Result<Option<Raw>, Fault> {
    connection.get_opt(&NODE_GET.of(name), requests().get(name, &GetParams::default())).await
}

pub(crate) async fn change(connection: &Connection, name: &str, uid: &str, change: &Change) -> Result<(), Fault> {
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
        if patch["spec"].get("taints").is_some() && node.spec.taints.len() >= TAINTS_MAX {
            // They are written as one: those that were not read would go.
            let why = format!("the node has {TAINTS_MAX} taints or more; take some away with kubectl");
            return Err(Fault::Refused { server: connection.server(), doing: NODE_PATCH.of(name).to_string(), why });
        }
        let request = requests().patch(name, &params, &Patch::Merge(patch));
        outcome = connection.say(&NODE_PATCH.of(name), request).await.map(drop);
        if !matches!(outcome, Err(Fault::Conflict { .. })) {
            break;
        }
    }
    outcome
}

pub(crate) async fn delete(connection: &Connection, name: &str, uid: &str) -> Result<(), Fault> {
    let this = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let request = requests().delete(name, &DeleteParams::default().preconditions(this));
    match connection.say(&NODE_DELETE.of(name), request).await {
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
        let new: Map<_, _> = wanted
            .iter()
            .filter(|(key, value)| has.get(*key) != Some(value))
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        if !new.is_empty() {
            metadata.insert(field.to_owned(), new.into());
        }
    }
    let mut spec = Map::new();
    let new = taints(&node.spec.taints, change);
    if new != node.spec.taints {
        spec.insert("taints".to_owned(), json!(new));
    }
    if let Some(cordoned) = change.cordoned.filter(|cordoned| *cordoned != node.spec.unschedulable) {
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

impl Item for Node {
    type Wire = Raw;

    fn read(node: Raw) -> Option<Self> {
        let Raw { metadata, spec, status } = node;
        Some(Self {
            name: name(metadata.name)?,
            uid: name(metadata.uid)?,
            ready: ready(&status),
            provider_id: Some(shortened(&spec.provider_id)).filter(|id| !id.is_empty()),
            cordoned: spec.unschedulable,
            labels: metadata.labels,
            annotations: metadata.annotations,
            taints: spec.taints.into_iter().filter_map(taint).collect(),
            addresses: status.addresses.iter().filter_map(|address| address.address.parse().ok()).collect(),
            capacity: status.capacity,
            allocatable: status.allocatable,
        })
    }

    fn weight(&self) -> usize {
        /// Beside the texts.
        const ENTRY: usize = 64;
        let of = |all: &Labels| all.iter().map(|(key, value)| ENTRY + key.len() + value.len()).sum::<usize>();
        let taints = self.taints.iter().map(|taint| ENTRY + taint.key.len() + taint.value.len()).sum::<usize>();
        taints + [&self.labels, &self.annotations, &self.capacity, &self.allocatable].map(of).iter().sum::<usize>()
    }
}

fn ready(status: &Status) -> Ready {
    let Some(condition) = status.conditions.iter().find(|condition| condition.r#type == "Ready") else {
        return Ready::No(String::new());
    };
    match condition.status.as_str() {
        "True" => Ready::Yes,
        "False" => Ready::No(shortened(&condition.message)),
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
