//! Kubernetes clusters whose nodes instances may become: who may join which, and how they were last seen ([`health`]).

pub mod health;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::condition::Condition;
use crate::id::TenantId;
use crate::meta::Meta;

pub const ID_MAX: usize = 40;
pub const DESCRIPTION_MAX: usize = 1000;
/// Who may join one of the platform's.
pub const TENANTS_MAX: usize = 1000;
pub const DNS_MAX: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub meta: Meta,
    /// `None`: the platform's.
    pub tenant: Option<TenantId>,
    pub id: String,
    pub description: String,
    /// Of the platform's: who may join, each with those below it.
    pub tenants: Vec<TenantId>,
    /// Digest of the kubeconfig, which is a secret of the store; empty: the plane runs as a pod of the cluster.
    pub credential_digest: String,
    /// `https://…` as nodes reach it; empty: as the plane does.
    pub node_server: String,
    /// For kubelets; empty: as the cluster says of itself.
    pub cluster_dns: Vec<IpAddr>,
    pub status: Status,
}

impl Cluster {
    /// `clusters/prod` or `tenants/acme/clusters/prod`
    #[must_use]
    pub fn name(&self) -> String {
        name(self.tenant.as_ref(), &self.id)
    }
}

#[must_use]
pub fn name(tenant: Option<&TenantId>, id: &str) -> String {
    match tenant {
        None => format!("clusters/{id}"),
        Some(tenant) => format!("tenants/{tenant}/clusters/{id}"),
    }
}

/// As last seen; kept, so that it is known after a restart what was known before.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    pub server: String,
    pub version: String,
    pub ca_pins: Vec<String>,
    /// What tells it from every other cluster, whatever its address: the uid of its namespace kube-system. Empty: not seen yet.
    #[serde(default)]
    pub identity: String,
    pub conditions: Vec<Condition>,
    pub serving_expire_time: Option<Timestamp>,
    pub ca_expire_time: Option<Timestamp>,
    pub credential_expire_time: Option<Timestamp>,
    /// The last time that it answered.
    pub answer_time: Option<Timestamp>,
    pub nodes: i64,
    pub nodes_ready: i64,
}

impl Status {
    /// `None`: of one of them it is not known.
    #[must_use]
    pub fn is_of_same_cluster(&self, other: &Self) -> Option<bool> {
        (!self.identity.is_empty() && !other.identity.is_empty()).then(|| self.identity == other.identity)
    }

    #[must_use]
    pub fn condition(&self, kind: health::Kind) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind.as_str())
    }
}
