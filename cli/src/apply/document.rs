//! One document of a file: what kind of thing, its full name, and its fields, parsed by the API's own descriptors.

use serde::Deserialize as _;
use serde_json::Value;

use super::kind::Kind;
use crate::app::App;
use crate::failure::{Failure, Result};
use crate::names;
use crate::noun::{cluster, image};
use crate::output::proto_json;

#[derive(Debug, Clone)]
pub struct Document {
    /// `acme.yaml, document 3`
    pub place: String,
    pub kind: Kind,
    /// The full name.
    pub name: String,
    /// As written, without `kind`; its keys say which fields the file speaks about.
    pub declared: Value,
}

/// Every document of a file, before anything is sent.
pub fn read(app: &App, file: &str, text: &str) -> Result<Vec<Document>> {
    let file = if file == "-" { "stdin" } else { file };
    let mut documents = Vec::new();
    for (at, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let place = format!("{file}, document {}", at + 1);
        // By way of YAML's own value, which refuses a field that is there twice; JSON's would take the last one.
        let value = serde_yaml_ng::Value::deserialize(document)
            .and_then(serde_yaml_ng::from_value::<Value>)
            .map_err(|error| Failure::usage(format!("{place}: {error}")))?;
        // `---` at the end, or a document of comments.
        if !value.is_null() {
            documents.push(one(place, value, |kind, name| full_name(app, kind, name))?);
        }
    }
    Ok(documents)
}

pub(super) fn one(place: String, mut value: Value, full: impl Fn(Kind, &str) -> Result<String>) -> Result<Document> {
    let wrong = |what: String| Failure::usage(format!("{place}: {what}"));
    let fields = value.as_object_mut().ok_or_else(|| wrong("not a mapping of fields".to_owned()))?;
    let name = match fields.get("name") {
        Some(Value::String(name)) if !name.is_empty() => name.clone(),
        Some(Value::String(_) | Value::Null) | None => return Err(wrong("no `name`".to_owned())),
        Some(other) => return Err(wrong(format!("name: {other} is no string; put it in quotes"))),
    };
    let kind = match fields.remove("kind") {
        Some(Value::String(word)) => Kind::parse(&word).ok_or_else(|| wrong(unknown_kind(&word)))?,
        Some(other) => return Err(wrong(unknown_kind(&other.to_string()))),
        // What `-o yaml` prints has no kind, but a full name.
        None => Kind::of_name(&name).ok_or_else(|| wrong(format!("no `kind`, and `{name}` does not tell it")))?,
    };
    let name = full(kind, &name).map_err(|failure| wrong(format!("name: {failure}")))?;
    fields.insert("name".to_owned(), Value::String(name.clone()));
    let document = Document { place: format!("{place} ({name})"), kind, name, declared: value };
    kind.check(&document)?;
    Ok(document)
}

fn unknown_kind(word: &str) -> String {
    format!("kind `{word}` is none of Tenant, Quota, Network, Pool, Image, Cluster, Instance")
}

fn full_name(app: &App, kind: Kind, name: &str) -> Result<String> {
    match kind {
        Kind::Tenant => names::top("tenants", name),
        Kind::Quota => names::quota(|| app.tenant(), name),
        Kind::Network => names::top("networks", name),
        Kind::Pool => names::top("pools", name),
        Kind::Instance => names::within(|| app.tenant(), "instances", name),
        Kind::Cluster => {
            let (parent, id) = cluster::owner(app, name, false)?;
            Ok(if parent.is_empty() { format!("clusters/{id}") } else { format!("{parent}/clusters/{id}") })
        }
        Kind::Image => {
            let (parent, id) = image::owner(app, name, false)?;
            Ok(if parent.is_empty() { format!("images/{id}") } else { format!("{parent}/images/{id}") })
        }
    }
}

impl Document {
    pub fn parse<M: prost::Message + Default>(&self) -> Result<M> {
        proto_json::from_value(self.kind.message(), &self.declared)?.map_err(|wrong| {
            let path = if wrong.path.is_empty() { String::new() } else { format!("{}: ", wrong.path) };
            Failure::usage(format!("{}: {path}{}", self.place, wrong.message))
        })
    }

    pub fn sets_limit(&self) -> bool {
        self.declared.get("limit").is_some_and(|limit| !limit.is_null())
    }

    /// Names that must exist before the plane can take this.
    pub fn needs(&self) -> Vec<String> {
        let texts = |pointer: &str| self.declared.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let mut needs = vec![names::parent_of(&self.name)];
        needs.extend(texts("/parent"));
        needs.extend(texts("/spec/image"));
        needs.extend(texts("/spec/node/cluster"));
        for interface in self.declared.pointer("/spec/interfaces").and_then(Value::as_array).into_iter().flatten() {
            needs.extend(interface.get("network").and_then(Value::as_str).map(str::to_owned));
        }
        for device in self.declared.pointer("/spec/devices").and_then(Value::as_array).into_iter().flatten() {
            needs.extend(device.pointer("/pool/pool").and_then(Value::as_str).map(str::to_owned));
        }
        for pointer in ["/grantedTenants", "/granted_tenants", "/tenants"] {
            let granted = self.declared.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
            needs.extend(granted.filter_map(Value::as_str).map(str::to_owned));
        }
        needs.retain(|name| !name.is_empty());
        needs
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_one(value: Value) -> Result<Document> {
        one("f.yaml, document 1".to_owned(), value, |_, name| Ok(name.to_owned()))
    }

    fn error(value: Value) -> String {
        read_one(value).unwrap_err().to_string()
    }

    #[test]
    fn a_full_name_tells_the_kind() {
        for (name, kind) in [
            ("tenants/acme", Kind::Tenant),
            ("tenants/acme/quotas/gpus/h100", Kind::Quota),
            ("networks/n", Kind::Network),
            ("pools/p", Kind::Pool),
            ("images/i", Kind::Image),
            ("tenants/acme/images/i", Kind::Image),
            ("clusters/c", Kind::Cluster),
            ("tenants/acme/clusters/c", Kind::Cluster),
            ("tenants/acme/instances/i", Kind::Instance),
        ] {
            assert_eq!(read_one(json!({ "name": name })).unwrap().kind, kind, "{name}");
        }
        assert!(error(json!({ "name": "web" })).contains("no `kind`"));
    }

    #[test]
    fn mistakes_name_file_document_thing_and_field() {
        assert_eq!(error(json!([])), "f.yaml, document 1: not a mapping of fields");
        assert_eq!(error(json!({ "kind": "Tenant" })), "f.yaml, document 1: no `name`");
        assert!(error(json!({ "kind": "Pod", "name": "x" })).contains("kind `Pod` is none of Tenant"));
        assert_eq!(
            error(json!({ "kind": "Instance", "name": "web", "spec": { "memoryMb": 1 } })),
            "f.yaml, document 1 (web): spec.memoryMb: no such field; did you mean `memoryMib`?"
        );
    }

    #[test]
    fn needs_are_what_must_be_there_first() {
        let value = json!({
            "name": "tenants/acme/instances/web",
            "spec": {
                "image": "images/i",
                "interfaces": [{ "network": "networks/n" }],
                "devices": [{ "gpu": {} }, { "pool": { "pool": "pools/p" } }]
            }
        });
        assert_eq!(read_one(value).unwrap().needs(), ["tenants/acme", "images/i", "networks/n", "pools/p"]);
        assert_eq!(read_one(json!({ "name": "tenants/b", "parent": "tenants/a" })).unwrap().needs(), ["tenants/a"]);
    }
}
