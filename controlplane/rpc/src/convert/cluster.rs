//! Clusters. A kubeconfig comes in and never goes out.

use std::net::IpAddr;

use croft_core::cluster::{Cluster, DESCRIPTION_MAX, DNS_MAX, Status, TENANTS_MAX};
use croft_core::id::TenantId;
use croft_core::join::server::is_server;
use croft_core::name;
use croft_core::validate::Violations;
use croft_proto::v1;

use super::{meta, time};

const KUBECONFIG_MAX: usize = 64 * 1024;

#[must_use]
pub fn out(cluster: &Cluster) -> v1::Cluster {
    let inside = cluster.credential_digest.is_empty();
    v1::Cluster {
        name: cluster.name(),
        metadata: Some(meta::out(&cluster.meta)),
        description: cluster.description.clone(),
        tenants: cluster.tenants.iter().map(|tenant| format!("tenants/{tenant}")).collect(),
        credential: inside.then_some(v1::cluster::Credential::InCluster(v1::cluster::InCluster {})),
        node_server: cluster.node_server.clone(),
        cluster_dns: cluster.cluster_dns.iter().map(ToString::to_string).collect(),
        status: Some(status_out(&cluster.status)),
    }
}

fn status_out(status: &Status) -> v1::ClusterStatus {
    let count = |n: i64| i32::try_from(n).unwrap_or(i32::MAX);
    v1::ClusterStatus {
        server: status.server.clone(),
        version: status.version.clone(),
        ca_pins: status.ca_pins.clone(),
        conditions: status.conditions.iter().map(meta::condition_out).collect(),
        serving_expire_time: status.serving_expire_time.map(time::out),
        ca_expire_time: status.ca_expire_time.map(time::out),
        credential_expire_time: status.credential_expire_time.map(time::out),
        answer_time: status.answer_time.map(time::out),
        nodes: count(status.nodes),
        nodes_ready: count(status.nodes_ready),
    }
}

/// How the plane gets in, in clear.
pub enum Credential {
    Kubeconfig(String),
    InCluster,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kubeconfig(_) => "Kubeconfig(…)",
            Self::InCluster => "InCluster",
        })
    }
}

impl Credential {
    pub fn read(wire: Option<v1::cluster::Credential>, violations: &mut Violations) -> Option<Self> {
        match wire? {
            v1::cluster::Credential::InCluster(v1::cluster::InCluster {}) => Some(Self::InCluster),
            v1::cluster::Credential::Kubeconfig(text) => {
                const FIELD: &str = "cluster.kubeconfig";
                violations.check(!text.is_empty(), FIELD, "is empty");
                let length = text.len();
                violations.check(length <= KUBECONFIG_MAX, FIELD, format!("{length} bytes; at most {KUBECONFIG_MAX}"));
                Some(Self::Kubeconfig(text))
            }
        }
    }

    /// `None`: there is nothing to keep.
    #[must_use]
    pub fn into_kubeconfig(self) -> Option<String> {
        match self {
            Self::Kubeconfig(text) => Some(text),
            Self::InCluster => None,
        }
    }
}

/// What a caller says of a cluster besides its credential.
#[derive(Debug, Default)]
pub struct Said {
    pub description: String,
    /// Sorted, each once.
    pub tenants: Vec<TenantId>,
    pub node_server: String,
    pub cluster_dns: Vec<IpAddr>,
}

impl Said {
    pub fn read(
        description: String,
        tenants: &[String],
        node_server: String,
        cluster_dns: &[String],
        violations: &mut Violations,
    ) -> Self {
        let short = description.chars().count() <= DESCRIPTION_MAX;
        violations.check(short, "cluster.description", format!("at most {DESCRIPTION_MAX} characters"));
        let tenants = tenants_into(tenants, violations);
        let reached = node_server.is_empty() || is_server(&node_server);
        let form = "https://HOST or https://HOST:PORT, as nodes reach the API server; empty: as the plane does";
        violations.check(reached, "cluster.node_server", form);
        let cluster_dns = dns_into(cluster_dns, violations);
        Self { description, tenants, node_server, cluster_dns }
    }

    /// A tenant's is for it and those below it.
    pub fn check_owner(&self, tenant: Option<&TenantId>, violations: &mut Violations) {
        if let Some(tenant) = tenant.filter(|_| !self.tenants.is_empty()) {
            let why =
                format!("this cluster is for tenants/{tenant} and those below it; only the platform's name others");
            violations.add("cluster.tenants", why);
        }
    }
}

fn tenants_into(names: &[String], violations: &mut Violations) -> Vec<TenantId> {
    violations.check(names.len() <= TENANTS_MAX, "cluster.tenants", format!("at most {TENANTS_MAX}"));
    let mut tenants = Vec::new();
    for (at, text) in names.iter().enumerate().take(TENANTS_MAX) {
        let field = format!("cluster.tenants[{at}]");
        match name::tenant(&field, text) {
            Ok(tenant) => tenants.push(tenant),
            Err(_) => violations.add(field, format!("`{text}` is not of the form tenants/…")),
        }
    }
    tenants.sort();
    tenants.dedup();
    tenants
}

fn dns_into(texts: &[String], violations: &mut Violations) -> Vec<IpAddr> {
    violations.check(texts.len() <= DNS_MAX, "cluster.cluster_dns", format!("at most {DNS_MAX}"));
    let mut addresses = Vec::new();
    for (at, text) in texts.iter().enumerate().take(DNS_MAX) {
        match text.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => violations.add(format!("cluster.cluster_dns[{at}]"), format!("`{text}` is no IP address")),
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(check: impl FnOnce(&mut Violations)) -> Vec<String> {
        let mut violations = Violations::new();
        check(&mut violations);
        match violations.finish() {
            Ok(()) => Vec::new(),
            Err(croft_core::Error::Invalid(found)) => found.into_iter().map(|violation| violation.field).collect(),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn everything_that_is_wrong_is_named_at_once() {
        let (tenants, dns) = (["tenants/a".to_owned(), "b".to_owned()], ["10.96.0.10".to_owned(), "dns".to_owned()]);
        let wrong = fields(|violations| {
            Said::read("x".repeat(1001), &tenants, "http://a".to_owned(), &dns, violations);
            Credential::read(Some(v1::cluster::Credential::Kubeconfig(String::new())), violations);
        });
        let all = [
            "cluster.description",
            "cluster.tenants[1]",
            "cluster.node_server",
            "cluster.cluster_dns[1]",
            "cluster.kubeconfig",
        ];
        assert_eq!(wrong, all);
        let long = v1::cluster::Credential::Kubeconfig("x".repeat(KUBECONFIG_MAX + 1));
        assert_eq!(fields(|violations| drop(Credential::read(Some(long), violations))), ["cluster.kubeconfig"]);
    }

    #[test]
    fn only_the_platforms_names_tenants() {
        let said = Said { tenants: vec!["a".into()], ..Said::default() };
        assert_eq!(fields(|violations| said.check_owner(Some(&"b".into()), violations)), ["cluster.tenants"]);
        assert_eq!(fields(|violations| said.check_owner(None, violations)), [""; 0]);
    }
}
