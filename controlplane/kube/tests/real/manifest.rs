//! `kubectl apply`, as far as the tests need it.

use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde::Deserialize as _;
use serde_json::Value;

pub async fn apply(client: &Client, text: &str) {
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let object = Value::deserialize(document).expect("YAML");
        put(client, &object).await;
    }
}

pub async fn put(client: &Client, object: &Value) {
    let name = object["metadata"]["name"].as_str().expect("a name");
    let params = PatchParams::apply("test").force();
    let put = api(client, object).patch(name, &params, &Patch::Apply(object)).await;
    put.unwrap_or_else(|error| panic!("{}: {error}", object["kind"]));
}

/// Every kind here has the plainest plural.
pub fn api(client: &Client, object: &Value) -> Api<DynamicObject> {
    let (api_version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let lower = kind.to_lowercase();
    let plural = lower.strip_suffix("policy").map_or(format!("{lower}s"), |stem| format!("{stem}policies"));
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        plural,
    };
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}
