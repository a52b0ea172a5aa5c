//! What an administrator applies to a cluster before it is registered, as text for `kubectl apply -f -`.

/// Croft's namespace, and the list of its nodes in it.
pub const NAMESPACE: &str = include_str!("../policies/namespace.yaml");
/// A service account, and no more rights than Croft uses.
pub const RBAC: &str = include_str!("../rbac.yaml");
pub const NODE_POLICIES: &str = include_str!("../policies/nodes.yaml");
pub const TENANT_POLICIES: &str = include_str!("../policies/tenants.yaml");

/// All of it, in the order in which it has to be applied.
#[must_use]
pub fn whole() -> String {
    [NAMESPACE, RBAC, NODE_POLICIES, TENANT_POLICIES].join("---\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::Deserialize as _;
    use serde_json::Value;

    use super::*;
    use crate::rights::{Need, all};

    fn documents() -> Vec<Value> {
        serde_yaml_ng::Deserializer::from_str(&whole()).map(|one| Value::deserialize(one).unwrap()).collect()
    }

    fn texts(value: &Value) -> Vec<String> {
        value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
    }

    type Granted = (String, String, String, Option<String>, Option<String>);

    /// Every right that the manifest binds to Croft's service account.
    fn granted() -> BTreeSet<Granted> {
        let mut granted = BTreeSet::new();
        let documents = documents();
        for binding in documents.iter().filter(|one| one["subjects"][0]["kind"] == "ServiceAccount") {
            let role = &binding["roleRef"];
            let namespace = binding["metadata"]["namespace"].as_str().map(str::to_owned);
            let mut roles = documents.iter().filter(|one| {
                one["kind"] == role["kind"]
                    && one["metadata"]["name"] == role["name"]
                    && one["metadata"]["namespace"] == binding["metadata"]["namespace"]
            });
            for rule in roles.next().expect("the role of a binding is shipped with it")["rules"].as_array().unwrap() {
                let names = texts(&rule["resourceNames"]).into_iter().map(Some).collect::<Vec<_>>();
                let names = if names.is_empty() { vec![None] } else { names };
                for verb in texts(&rule["verbs"]) {
                    for group in texts(&rule["apiGroups"]) {
                        for resource in texts(&rule["resources"]) {
                            for name in &names {
                                let of = (verb.clone(), group.clone(), resource.clone());
                                granted.insert((of.0, of.1, of.2, namespace.clone(), name.clone()));
                            }
                        }
                    }
                }
            }
        }
        granted
    }

    #[test]
    fn what_is_granted_is_what_is_used_and_nothing_more() {
        let used = |need: Need| {
            let text = |text: &str| text.to_owned();
            (text(need.verb), text(need.group), text(need.resource), need.namespace.map(text), need.name.map(text))
        };
        assert_eq!(granted(), all().into_iter().map(used).collect());
    }

    #[test]
    fn every_document_has_a_kind_and_a_name_and_comes_after_its_namespace() {
        let documents = documents();
        assert!(documents.iter().all(|one| one["kind"].is_string() && one["metadata"]["name"].is_string()));
        assert_eq!(documents[0]["kind"], "Namespace");
    }
}
