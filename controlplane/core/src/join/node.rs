//! A node's name, labels and taints, as the API server takes them and as nobody else may set them.

use serde::{Deserialize, Serialize};

use crate::id::{InstanceUid, TenantId};
use crate::join::keep::Repair;
use crate::meta::{Labels, is_label_text};
use crate::validate::{Violations, is_dns_name};

/// Only an administrator of the cluster may set labels below it; a kubelet, whatever its guest's root does, may not.
pub const PROTECTED: &str = "node-restriction.kubernetes.io/";
pub const TENANT_LABEL: &str = "node-restriction.kubernetes.io/croft-tenant";
pub const TENANT_TAINT: &str = "croft.dev/tenant";
/// Kept until the node, and its GPU where one was asked for, is live.
pub const UNINITIALISED_TAINT: &str = "croft.dev/uninitialised";

const LABELS_MAX: usize = 32;
const TAINTS_MAX: usize = 16;
/// Of the labels of Kubernetes' own domains, what a kubelet may give itself (NodeRestriction).
const KUBELETS_OWN: [&str; 8] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const KUBELETS_PREFIXES: [&str; 2] = ["kubelet.kubernetes.io/", "node.kubernetes.io/"];

/// `<instance>-<8 hex>`: the last of the uid, which are random (the first ones are the time), so that a name is never used
/// twice. A certificate cannot be revoked; its name must never be somebody else's.
#[must_use]
pub fn name(id: &str, uid: InstanceUid) -> String {
    let hex = uid.0.simple().to_string();
    format!("{id}-{}", &hex[24..])
}

/// Set once by the kubelet, and by nobody afterwards.
#[must_use]
pub fn provider_id(tenant: &TenantId, uid: InstanceUid) -> String {
    format!("croft://{tenant}/{uid}")
}

/// What a user asks of the node that a guest becomes; fixed at creation, but for the repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// By resource name, as the user said it.
    pub cluster: String,
    /// Filled in by the claim, which looks the cluster up in its own transaction; empty until then.
    pub cluster_uid: String,
    pub recipe: String,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    /// What may be done about it when it is not well.
    #[serde(default)]
    pub repair: Repair,
}

/// The recipe of those who name none.
pub const DEFAULT_RECIPE: &str = "kubelet";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taint {
    pub key: String,
    pub value: String,
    pub effect: Effect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

/// What a tenant may ask to have on its node. The protected ones are Croft's to set.
pub fn check_labels(field: &str, labels: &Labels, violations: &mut Violations) {
    if labels.len() > LABELS_MAX {
        violations.add(field, format!("at most {LABELS_MAX} labels, not {}", labels.len()));
    }
    for (key, value) in labels {
        let at = format!("{field}[{key}]");
        match refused(key) {
            Some(why) => violations.add(at, why),
            None if !value.is_empty() && !is_label_text(value) => {
                violations.add(at, "a value is at most 63 of [A-Za-z0-9._-]")
            }
            None => {}
        }
    }
}

pub fn check_taints(field: &str, taints: &[Taint], violations: &mut Violations) {
    if taints.len() > TAINTS_MAX {
        violations.add(field, format!("at most {TAINTS_MAX} taints, not {}", taints.len()));
    }
    for (n, taint) in taints.iter().enumerate() {
        let at = format!("{field}[{n}]");
        if !is_qualified(&taint.key) {
            violations.add(format!("{at}.key"), "a key is [prefix/]name, the name 1 to 63 of [A-Za-z0-9._-]");
        } else if within(&taint.key, "croft.dev") {
            violations.add(format!("{at}.key"), "taints below croft.dev/ are Croft's own");
        } else if is_kubernetes(&taint.key) {
            let why = "taints of Kubernetes' own domains say how a node is; the cluster and Croft set them";
            violations.add(format!("{at}.key"), why);
        }
        if !taint.value.is_empty() && !is_label_text(&taint.value) {
            violations.add(format!("{at}.value"), "a value is at most 63 of [A-Za-z0-9._-]");
        }
        let same = |other: &Taint| other.key == taint.key && other.effect == taint.effect;
        if taints[..n].iter().any(same) {
            violations.add(at, format!("{}:{:?} is given twice", taint.key, taint.effect));
        }
    }
}

fn refused(key: &str) -> Option<String> {
    if !is_qualified(key) {
        return Some("a key is [prefix/]name, the name 1 to 63 of [A-Za-z0-9._-]".to_owned());
    }
    if within(key, "croft.dev") || key.starts_with(PROTECTED) {
        return Some(format!("labels below {}/ are set by Croft alone", prefix(key)));
    }
    let own = KUBELETS_OWN.contains(&key) || KUBELETS_PREFIXES.iter().any(|allowed| key.starts_with(allowed));
    (is_kubernetes(key) && !own)
        .then(|| "the API server lets no kubelet set this label; a kubelet that tries does not start".to_owned())
}

fn prefix(key: &str) -> &str {
    key.split_once('/').map_or("", |(prefix, _)| prefix)
}

fn within(key: &str, domain: &str) -> bool {
    prefix(key) == domain || prefix(key).strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

fn is_kubernetes(key: &str) -> bool {
    within(key, "kubernetes.io") || within(key, "k8s.io")
}

fn is_qualified(key: &str) -> bool {
    match key.split_once('/') {
        None => is_label_text(key),
        Some((prefix, name)) => is_dns_name(prefix, 253) && is_label_text(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_with_what_is_random_of_the_uid() {
        let uid = InstanceUid::parse("01890000-0000-7000-8000-0000deadbeef").unwrap();
        assert_eq!(name("train-1", uid), "train-1-deadbeef");
        assert_eq!(provider_id(&"acme".into(), uid), "croft://acme/01890000-0000-7000-8000-0000deadbeef");
    }

    #[test]
    fn the_longest_name_is_still_a_label_of_dns() {
        let uid = InstanceUid::parse("01890000-0000-7000-8000-0000deadbeef").unwrap();
        let longest = name(&"a".repeat(crate::instance::ID_MAX), uid);
        assert!(longest.len() <= 63 && is_dns_name(&longest, 63), "{longest}");
    }

    #[test]
    fn labels_that_the_api_server_or_croft_keeps_are_refused() {
        let wrong = |key: &str, value: &str| {
            let mut violations = Violations::new();
            check_labels("labels", &[(key.to_owned(), value.to_owned())].into(), &mut violations);
            violations.finish().is_err()
        };
        for key in ["zone", "example.com/team", "node.kubernetes.io/instance-type", "kubelet.kubernetes.io/x"] {
            assert!(!wrong(key, "a"), "{key}");
        }
        for key in [
            "",
            "a b",
            "/x",
            "Example.com/x",
            "node-restriction.kubernetes.io/croft-tenant",
            "node-role.kubernetes.io/control-plane",
            "foo.k8s.io/x",
            "croft.dev/tenant",
            "sub.croft.dev/x",
        ] {
            assert!(wrong(key, "a"), "{key}");
        }
        assert!(wrong("zone", "not a value"));
    }

    #[test]
    fn taints_are_given_once_and_none_is_crofts() {
        let taint = |key: &str, effect| Taint { key: key.to_owned(), value: String::new(), effect };
        let wrong = |taints: &[Taint]| {
            let mut violations = Violations::new();
            check_taints("taints", taints, &mut violations);
            violations.finish().is_err()
        };
        assert!(!wrong(&[taint("gpu", Effect::NoSchedule), taint("gpu", Effect::NoExecute)]));
        assert!(wrong(&[taint("gpu", Effect::NoSchedule), taint("gpu", Effect::NoSchedule)]));
        for key in [
            "croft.dev/tenant",
            "sub.croft.dev/x",
            "node.kubernetes.io/out-of-service",
            "kubernetes.io/x",
            "x.k8s.io/y",
        ] {
            assert!(wrong(&[taint(key, Effect::NoExecute)]), "{key}");
        }
        assert!(!wrong(&[taint("notkubernetes.io/x", Effect::NoExecute), taint("nvidia.com/gpu", Effect::NoSchedule)]));
        assert!(wrong(&[taint("a/b/c", Effect::NoSchedule)]));
    }
}
