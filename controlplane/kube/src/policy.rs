//! The admission policies that Croft ships, and the list of live nodes that they go by.
//!
//! The files in `policies/` spell out every default, so that what a cluster has can be held against them word for word: a
//! policy with one more condition is a weaker one.

use std::collections::BTreeMap;

use croft_core::join::cluster::{Fault, Policies};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Resource as _;
use kube::api::{ApiResource, DynamicObject, GetParams, Patch, PatchParams};
use kube::core::request::Request;
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::cluster::MANAGER;
use crate::connection::Connection;
use crate::manifest::{NAMESPACE, NODE_POLICIES, TENANT_POLICIES};
use crate::rights::{ADMISSION, BINDING_GET, Need, POLICY_GET, ROSTER_PATCH};

pub(crate) const POLICY: &str = "validatingadmissionpolicies";
pub(crate) const BINDING: &str = "validatingadmissionpolicybindings";
/// Of the policies and of their bindings alike.
pub const NAMES: [&str; 5] =
    ["croft-nodes", "croft-node-pods", "croft-tenant-pods", "croft-tenant-bindings", "croft-tenant-namespaces"];
pub(crate) const ROSTER: &str = "croft-nodes";
pub(crate) const ROSTER_NAMESPACE: &str = "croft-system";
/// Not [`MANAGER`]: to install anew must not empty the list of nodes, which that one owns.
const INSTALLER: &str = "croft-setup";

/// The kinds in the files of policies, with their group and the plural that their address has.
const KINDS: [(&str, &str, &str); 6] = [
    ("Namespace", "", "namespaces"),
    ("ConfigMap", "", "configmaps"),
    ("ValidatingAdmissionPolicy", ADMISSION, POLICY),
    ("ValidatingAdmissionPolicyBinding", ADMISSION, BINDING),
    ("ClusterRole", "rbac.authorization.k8s.io", "clusterroles"),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io", "clusterrolebindings"),
];

struct Shipped {
    object: Value,
    resource: ApiResource,
    /// An administrator's: no part of what Croft is granted.
    install: Need,
}

impl Shipped {
    fn kind(&self) -> &str {
        &self.resource.kind
    }

    fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    fn requests(&self) -> Request {
        Request::new(DynamicObject::url_path(&self.resource, self.object["metadata"]["namespace"].as_str()))
    }
}

/// `Err`: a file is not what this module takes; a test sees to it that none is.
fn shipped() -> Result<Vec<Shipped>, String> {
    let mut all = Vec::new();
    for document in
        [NAMESPACE, NODE_POLICIES, TENANT_POLICIES].into_iter().flat_map(serde_yaml_ng::Deserializer::from_str)
    {
        let object = Value::deserialize(document).map_err(|error| error.to_string())?;
        let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let Some((_, group, plural)) = KINDS.into_iter().find(|(known, ..)| *known == kind) else {
            return Err(format!("kind {kind} is not known here"));
        };
        let version = api_version.rsplit('/').next().unwrap_or_default().to_owned();
        let (group_text, plural_text) = (group.to_owned(), plural.to_owned());
        let resource = ApiResource { group: group_text, version, api_version, kind, plural: plural_text };
        let install = Need { verb: "patch", group, resource: plural, namespace: None, name: None };
        all.push(Shipped { object, resource, install });
    }
    Ok(all)
}

fn all(connection: &Connection) -> Result<Vec<Shipped>, Fault> {
    let doing = "read the policies that Croft ships".to_owned();
    shipped().map_err(|why| Fault::Refused { server: connection.server(), doing, why })
}

pub(crate) async fn install(connection: &Connection) -> Result<(), Fault> {
    let params = PatchParams::apply(INSTALLER).force();
    for one in all(connection)? {
        let patch = Patch::Apply(&one.object);
        connection.say(&one.install.of(one.name()), one.requests().patch(one.name(), &params, &patch)).await?;
    }
    Ok(())
}

pub(crate) async fn verify(connection: &Connection) -> Result<Policies, Fault> {
    let mut lacking = Vec::new();
    for one in all(connection)? {
        let need = match one.kind() {
            "ValidatingAdmissionPolicy" => POLICY_GET,
            "ValidatingAdmissionPolicyBinding" => BINDING_GET,
            _ => continue,
        };
        let request = one.requests().get(one.name(), &GetParams::default());
        match connection.get_opt::<Value>(&need.of(one.name()), request).await {
            Ok(Some(live)) if live["spec"] == one.object["spec"] => {}
            Ok(Some(_)) => lacking.push(format!("{} {} is not as shipped", one.kind(), one.name())),
            Ok(None) => lacking.push(format!("{} {} is missing", one.kind(), one.name())),
            Err(Fault::Forbidden { .. }) => return Ok(Policies::Unknown),
            Err(fault) => return Err(fault),
        }
    }
    Ok(if lacking.is_empty() { Policies::Installed } else { Policies::Lacking(lacking) })
}

/// What Croft applied before and does not list now goes; what an administrator put there stays.
pub(crate) async fn publish(connection: &Connection, nodes: &BTreeMap<String, String>) -> Result<(), Fault> {
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": ROSTER, "namespace": ROSTER_NAMESPACE },
        "data": nodes,
    });
    let maps = Request::new(ConfigMap::url_path(&(), Some(ROSTER_NAMESPACE)));
    let params = PatchParams::apply(MANAGER).force();
    connection.say(&ROSTER_PATCH.right(), maps.patch_metadata(ROSTER, &params, &Patch::Apply(&object))).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_hold_a_policy_and_its_binding_for_each_name() {
        let all = shipped().unwrap();
        for kind in ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"] {
            let names: Vec<_> = all.iter().filter(|one| one.kind() == kind).map(Shipped::name).collect();
            assert_eq!(names, NAMES, "{kind}");
        }
    }

    #[test]
    fn the_files_and_the_core_mean_the_same_labels_and_taints() {
        use croft_core::join::node::{TENANT_LABEL, TENANT_TAINT, UNINITIALISED_TAINT};
        assert!(NODE_POLICIES.contains(&format!("t.key == '{UNINITIALISED_TAINT}'")));
        assert!(TENANT_POLICIES.contains(&format!("t.key != '{TENANT_TAINT}'")));
        assert!(TENANT_POLICIES.contains(&format!("'{TENANT_LABEL}'")));
    }

    #[test]
    fn no_policy_lets_pass_what_it_cannot_judge() {
        for one in shipped().unwrap() {
            let spec = &one.object["spec"];
            match one.kind() {
                "ValidatingAdmissionPolicy" => assert_eq!(spec["failurePolicy"], "Fail", "{}", one.name()),
                "ValidatingAdmissionPolicyBinding" => {
                    assert_eq!(spec["validationActions"][0], "Deny", "{}", one.name());
                    let param = &spec["paramRef"];
                    assert!(param.is_null() || param["parameterNotFoundAction"] == "Deny", "{}", one.name());
                }
                _ => {}
            }
        }
    }
}
