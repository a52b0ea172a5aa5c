//! What a document says against what is. Only fields that the document mentions count; maps and lists of scalars are
//! one value each.

use prost_reflect::{DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::document::Document;
use super::kind::{Kind, Live};
use crate::failure::{Failure, Result};
use crate::output::proto_json::{self, field, join};

/// One field that is not as the document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// As in an update mask: `spec.stop_timeout`.
    pub path: String,
    pub is: Value,
    pub says: Value,
}

const USER_DATA: &str = "spec.cloud_init.user_data";

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, is, says } = self;
        if path == USER_DATA {
            // It may hold passwords, and errors end up in logs.
            return write!(f, "{path}: is another, by its digest");
        }
        write!(f, "{path}: is {is}, the file says {says}")
    }
}

pub fn differences(document: &Document, live: &Live) -> Result<Vec<Difference>> {
    let descriptor = proto_json::descriptor(document.kind.message())?;
    let declared = spread_devices(document);
    let wanted = DynamicMessage::deserialize(descriptor.clone(), &declared)
        .map_err(|error| Failure::usage(format!("{}: {error}", document.place)))?;
    let wanted = canonical(&wanted)?;
    let mut is = live.value.clone();
    reveal_user_data(&wanted, &mut is);
    let mut found = Vec::new();
    compare(&descriptor, &declared, &wanted, &is, "", &mut found)?;
    found.retain(|difference| !is_output_only(document.kind, &difference.path));
    Ok(found)
}

/// With every default spelled out, as the plane's answer is.
fn canonical(message: &DynamicMessage) -> Result<Value> {
    message
        .serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new().skip_default_fields(false))
        .map_err(|error| Failure::local(error.to_string()))
}

fn compare(
    descriptor: &MessageDescriptor,
    declared: &Value,
    wanted: &Value,
    is: &Value,
    path: &str,
    found: &mut Vec<Difference>,
) -> Result<()> {
    for (key, declared) in declared.as_object().into_iter().flatten() {
        let Some(field) = field(descriptor, key) else { continue };
        let path = join(path, field.name());
        let says = wanted.get(field.json_name()).unwrap_or(&Value::Null);
        let value = is.get(field.json_name()).unwrap_or(&Value::Null);
        let kind = field.kind();
        // google.protobuf's own types are single values in JSON: a duration is "90s".
        let inner = kind.as_message().filter(|inner| !is_one_value(inner.full_name()));
        match inner {
            Some(inner) if field.is_list() => {
                let (items, there) = (array(says), array(value));
                if items.len() != there.len() {
                    found.push(Difference { path, is: value.clone(), says: says.clone() });
                    continue;
                }
                for (at, declared) in array(declared).iter().enumerate() {
                    compare(inner, declared, &items[at], &there[at], &format!("{path}[{at}]"), found)?;
                }
            }
            Some(inner) if !field.is_map() && !declared.is_null() => {
                // What is absent is as good as empty.
                let empty = canonical(&DynamicMessage::new(inner.clone()))?;
                let value = if value.is_null() { &empty } else { value };
                compare(inner, declared, says, value, &path, found)?;
            }
            _ if says != value => found.push(Difference { path, is: value.clone(), says: says.clone() }),
            _ => {}
        }
    }
    Ok(())
}

/// Half a pool's match is another match.
fn is_one_value(message: &str) -> bool {
    message.starts_with("google.protobuf.") || message == "croft.v1.Pool.Match"
}

/// As the plane keeps them: a device request with a count is as many single ones.
fn spread_devices(document: &Document) -> Value {
    let mut declared = document.declared.clone();
    let devices = declared.pointer_mut("/spec/devices").filter(|_| document.kind == Kind::Instance);
    if let Some(Value::Array(devices)) = devices {
        *devices = std::mem::take(devices).into_iter().flat_map(spread).collect();
    }
    declared
}

fn spread(mut request: Value) -> Vec<Value> {
    let Some(fields) = request.as_object_mut() else { return vec![request] };
    let count = fields.remove("count").and_then(|count| count.as_u64().or_else(|| count.as_str()?.parse().ok()));
    let id = fields.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned);
    match (count.unwrap_or(1), id) {
        (0 | 1, None) => {
            // One that the plane makes up.
            fields.remove("id");
            vec![request]
        }
        (0 | 1, Some(_)) => vec![request],
        (count, id) => (0..count.min(COUNT_MAX))
            .map(|n| {
                let mut single = request.clone();
                match (&id, single.as_object_mut()) {
                    (Some(id), Some(fields)) => drop(fields.insert("id".to_owned(), format!("{id}-{n}").into())),
                    (None, Some(fields)) => drop(fields.remove("id")),
                    (_, None) => {}
                }
                single
            })
            .collect(),
    }
}

/// More than the plane ever takes; what is beyond differs anyway.
const COUNT_MAX: u64 = 64;

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// User data is a secret that the plane does not give back; its digest tells whether it is the same.
fn reveal_user_data(wanted: &Value, is: &mut Value) {
    let Some(says) = wanted.pointer("/spec/cloudInit/userData").and_then(Value::as_str) else { return };
    let digest = hex::encode(Sha256::digest(says));
    let Some(cloud_init) = is.pointer_mut("/spec/cloudInit") else { return };
    let there = cloud_init.get("userDataDigest").and_then(Value::as_str).unwrap_or_default();
    if there.strip_prefix("sha256:").unwrap_or(there) == digest {
        cloud_init["userData"] = says.into();
    }
}

/// So that what `get -o yaml` prints can be applied.
fn is_output_only(kind: Kind, path: &str) -> bool {
    const METADATA: [&str; 6] = ["uid", "generation", "etag", "create_time", "update_time", "delete_time"];
    if let Some(field) = path.strip_prefix("metadata.") {
        return METADATA.contains(&field);
    }
    let own: &[&str] = match kind {
        Kind::Tenant | Kind::Network | Kind::Pool => &[],
        Kind::Quota => &["used", "available"],
        Kind::Image => &["copies"],
        // A credential is never read back, so it counts only where there is no cluster yet.
        Kind::Cluster => &["status", "kubeconfig", "in_cluster"],
        Kind::Instance => &["status", "spec.cloud_init.user_data_digest"],
    };
    own.iter()
        .any(|prefix| path == *prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(['.', '['])))
}

pub fn check_mutable(document: &Document, differences: &[Difference]) -> Result<()> {
    let fixed = differences.iter().filter(|difference| !document.kind.mutable().contains(&difference.path.as_str()));
    let lines: Vec<_> = fixed.map(|difference| format!("\n  {difference}")).collect();
    if lines.is_empty() {
        return Ok(());
    }
    // As the plane would answer it: INVALID_ARGUMENT.
    Err(Failure::usage(format!("{}: this cannot change; {}{}", document.place, document.kind.advice(), lines.concat())))
}

#[cfg(test)]
mod tests {
    use croft_proto::v1;
    use serde_json::json;

    use super::super::document::one;
    use super::*;

    fn document(value: Value) -> Document {
        one("f".to_owned(), value, |_, name| Ok(name.to_owned())).unwrap()
    }

    fn web() -> v1::Instance {
        proto_json::from_value(
            "croft.v1.Instance",
            &json!({
                "name": "tenants/a/instances/web",
                "metadata": { "uid": "1", "labels": { "tier": "front" }, "etag": "e" },
                "spec": {
                    "power": "RUNNING", "restart": "ON_FAILURE", "vcpus": 2, "memoryMib": "2048", "image": "images/i",
                    "disks": [{ "sizeGib": "6" }], "stopTimeout": "90s",
                    "cloudInit": { "hostname": "web", "userDataDigest": hex::encode(Sha256::digest("#cloud-config\n")) }
                },
                "status": { "state": "RUNNING" }
            }),
        )
        .unwrap()
        .unwrap()
    }

    fn against_web(value: Value) -> Vec<String> {
        let live = Live::new("croft.v1.Instance", &web(), "e").unwrap();
        differences(&document(value), &live).unwrap().into_iter().map(|difference| difference.path).collect()
    }

    fn with(spec: Value) -> Value {
        json!({ "name": "tenants/a/instances/web", "spec": spec })
    }

    #[test]
    fn what_is_not_mentioned_does_not_differ() {
        assert_eq!(against_web(json!({ "name": "tenants/a/instances/web" })), [""; 0]);
        assert_eq!(against_web(with(json!({ "vcpus": 2, "memory_mib": 2048, "disks": [{ "size_gib": 6 }] }))), [""; 0]);
    }

    #[test]
    fn what_get_prints_can_be_applied() {
        let printed = proto_json::to_value("croft.v1.Instance", &web()).unwrap();
        assert_eq!(against_web(printed), ["spec.cloud_init.user_data"; 0]);
    }

    #[test]
    fn every_difference_has_its_path() {
        let differing = with(json!({
            "vcpus": 4, "disks": [{ "sizeGib": 7 }], "stopTimeout": "60s", "restart": "ALWAYS",
            "cpu": { "dedicated": true, "singleNumaCell": false }, "cloudInit": { "hostname": "db" }
        }));
        let mut paths = against_web(differing);
        paths.sort();
        assert_eq!(
            paths,
            [
                "spec.cloud_init.hostname",
                "spec.cpu.dedicated",
                "spec.disks[0].size_gib",
                "spec.restart",
                "spec.stop_timeout",
                "spec.vcpus"
            ]
        );
    }

    #[test]
    fn labels_are_one_value() {
        let labels = |labels: Value| json!({ "name": "tenants/a/instances/web", "metadata": { "labels": labels } });
        assert_eq!(against_web(labels(json!({ "tier": "front" }))), [""; 0]);
        assert_eq!(against_web(labels(json!({}))), ["metadata.labels"]);
        assert_eq!(against_web(labels(json!({ "tier": "front", "x": "" }))), ["metadata.labels"]);
    }

    #[test]
    fn user_data_is_compared_by_its_digest() {
        assert_eq!(against_web(with(json!({ "cloudInit": { "userData": "#cloud-config\n" } }))), [""; 0]);
        let other = with(json!({ "cloudInit": { "userData": "other" } }));
        assert_eq!(against_web(other), ["spec.cloud_init.user_data"]);
    }

    #[test]
    fn lists_of_another_length_differ_whole() {
        assert_eq!(against_web(with(json!({ "interfaces": [{ "network": "networks/n" }] }))), ["spec.interfaces"]);
    }

    #[test]
    fn a_count_of_devices_is_as_many_single_ones() {
        let instance = proto_json::from_value::<v1::Instance>(
            "croft.v1.Instance",
            &json!({ "name": "tenants/a/instances/web", "spec": { "devices": [
                { "id": "train-0", "count": 1, "gpu": { "model": "h100_sxm_80gb" } },
                { "id": "train-1", "count": 1, "gpu": { "model": "h100_sxm_80gb" } },
                { "id": "gpu-0", "count": 1, "mig": { "profile": "2g.20gb" } }
            ] } }),
        );
        let live = Live::new("croft.v1.Instance", &instance.unwrap().unwrap(), "e").unwrap();
        let paths = |devices: Value| -> Vec<String> {
            let found = differences(&document(with(json!({ "devices": devices }))), &live).unwrap();
            found.into_iter().map(|difference| difference.path).collect()
        };
        let two = json!({ "id": "train", "count": 2, "gpu": { "model": "h100_sxm_80gb" } });
        assert_eq!(paths(json!([two, { "mig": { "profile": "2g.20gb" } }])), [""; 0]);
        assert_eq!(paths(json!([two, { "mig": { "profile": "1g.10gb" } }])), ["spec.devices[2].mig.profile"]);
        assert_eq!(paths(json!([two])), ["spec.devices"]);
    }

    #[test]
    fn a_pools_match_is_one_value() {
        let pool = v1::pool::Match { kind: 3, ids: vec!["8086:10ca".into()], ..Default::default() };
        let pool = v1::Pool { name: "pools/nic".into(), r#match: Some(pool), ..Default::default() };
        let live = Live::new("croft.v1.Pool", &pool, "").unwrap();
        let says = |ids: Value| {
            let said = document(json!({ "name": "pools/nic", "match": { "kind": "VIRTUAL_FUNCTION", "ids": ids } }));
            differences(&said, &live).unwrap().into_iter().map(|difference| difference.path).collect::<Vec<_>>()
        };
        assert_eq!(says(json!(["8086:10ca"])), [""; 0]);
        assert_eq!(says(json!(["8086:1889"])), ["match"]);
    }

    #[test]
    fn a_refusal_names_the_field_and_both_values() {
        let document = document(with(json!({ "vcpus": 4, "restart": "ALWAYS" })));
        let live = Live::new("croft.v1.Instance", &web(), "e").unwrap();
        let differences = differences(&document, &live).unwrap();
        let message = check_mutable(&document, &differences).unwrap_err().to_string();
        assert!(message.contains("\n  spec.vcpus: is 2, the file says 4"), "{message}");
        assert!(!message.contains("spec.restart"), "{message}");
    }

    #[test]
    fn user_data_is_a_secret_and_never_printed() {
        let document = document(with(json!({ "cloudInit": { "userData": "password: hunter2" } })));
        let live = Live::new("croft.v1.Instance", &web(), "e").unwrap();
        let differences = differences(&document, &live).unwrap();
        let message = check_mutable(&document, &differences).unwrap_err().to_string();
        assert!(message.ends_with("\n  spec.cloud_init.user_data: is another, by its digest"), "{message}");
    }

    #[test]
    fn a_limit_that_is_null_takes_it_away() {
        let quota = v1::Quota { name: "tenants/a/quotas/vcpus".into(), limit: Some(4), ..v1::Quota::default() };
        let live = Live::new("croft.v1.Quota", &quota, "").unwrap();
        let says = |limit: Value| document(json!({ "name": "tenants/a/quotas/vcpus", "limit": limit }));
        assert_eq!(differences(&says(json!(4)), &live).unwrap(), []);
        assert_eq!(differences(&says(Value::Null), &live).unwrap()[0].path, "limit");
        assert_eq!(differences(&says(json!(0)), &live).unwrap()[0].path, "limit");
    }
}
