//! What is said between Croft and a cluster, as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::csr::Request;
use super::node::{Effect, Taint};
use crate::meta::Labels;
use crate::time::Timestamp;

pub use super::fault::{BadAccess, Fault, Right};

/// Set on the node of a machine that is known to be off: its pods and volumes then move.
pub const OUT_OF_SERVICE_TAINT: &str = "node.kubernetes.io/out-of-service";
/// A kubelet's certificate cannot be revoked; it should end soon by itself. The signer dates it back by some minutes.
pub const CERTIFICATE_LIFE_MAX: Duration = Duration::from_secs(25 * 60 * 60);

/// How Croft gets in.
#[derive(Clone, PartialEq, Eq)]
pub enum Access {
    /// The text of a kubeconfig: one server, its CA, and a credential; nothing in it is a path or a command.
    Kubeconfig(String),
    /// The same, of a tenant's cluster: no address is dialled that only the plane's own machine should reach.
    TenantsKubeconfig(String),
    /// The plane runs as a pod of the cluster.
    InCluster,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kubeconfig(_) => "Kubeconfig(…)",
            Self::TenantsKubeconfig(_) => "TenantsKubeconfig(…)",
            Self::InCluster => "InCluster",
        })
    }
}

/// What a node needs to know of the cluster, besides its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// `https://…`, as Croft reaches it.
    pub server: String,
    /// One certificate or more, in PEM: the only ones that are believed.
    pub ca: String,
    /// SHA-256 of the public key of each, `sha256:<hex>`: the form that `kubeadm join` takes.
    pub ca_pins: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// `v1.36.3`
    pub version: String,
    pub serving_expires: Option<Timestamp>,
    /// When the last of the CA's certificates ends.
    pub ca_expires: Option<Timestamp>,
    /// `None`: never, or the credential does not say.
    pub credential_expires: Option<Timestamp>,
    /// What Croft must be granted and is not.
    pub missing: Vec<Right>,
    pub policies: Policies,
    /// The longest life among the kubelets' certificates that were issued of late; `None`: none was.
    pub certificate_life: Option<Duration>,
    /// The uid of its namespace kube-system, which lives as long as the cluster; `None`: it may not be read.
    pub identity: Option<String>,
}

impl Probe {
    /// Whether certificates outlive their nodes by too long; `None` until the first one was issued.
    #[must_use]
    pub fn certificates_are_short_lived(&self) -> Option<bool> {
        self.certificate_life.map(|life| life <= CERTIFICATE_LIFE_MAX)
    }
}

/// Of the admission policies that Croft ships.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policies {
    /// All are there, as shipped.
    Installed,
    /// `ValidatingAdmissionPolicy croft-nodes is missing`, one of each.
    Lacking(Vec<String>),
    /// Croft may not read them.
    Unknown,
}

/// Good for one machine's first certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    /// 6 of [a-z0-9]. Not secret: it is the requester's name.
    pub id: String,
    /// 16 of [a-z0-9].
    pub secret: String,
    pub expires: Timestamp,
    /// For people: whose it is.
    pub description: String,
}

impl BootstrapToken {
    /// `<id>.<secret>`, as a kubelet presents it.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }

    /// The API server takes no other form, and would refuse the token only when it is used.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        self.id.len() == 6 && self.secret.len() == 16 && plain(&self.id) && plain(&self.secret)
    }
}

impl fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootstrapToken").field("id", &self.id).field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// A CertificateSigningRequest to one of the signers of kubelets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signing {
    pub name: String,
    pub uid: String,
    /// What an answer is bound to.
    pub resource_version: String,
    pub created: Option<Timestamp>,
    pub stage: Stage,
    pub request: Request,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nobody has answered.
    Open,
    /// The signer has not come to it yet.
    Approved,
    Issued,
    Denied,
    /// The signer would not.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Approve,
    /// One word for machines, one sentence for people: [`super::csr::Denial`] has both.
    Deny {
        reason: String,
        message: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub uid: String,
    pub provider_id: Option<String>,
    pub ready: Ready,
    pub cordoned: bool,
    pub labels: Labels,
    pub annotations: Labels,
    pub taints: Vec<Taint>,
    pub addresses: BTreeSet<IpAddr>,
    /// Resource → quantity, as the cluster writes it: `nvidia.com/gpu` → `1`.
    pub capacity: BTreeMap<String, String>,
    pub allocatable: BTreeMap<String, String>,
}

impl Node {
    #[must_use]
    pub fn has_taint(&self, key: &str) -> bool {
        self.taints.iter().any(|taint| taint.key == key)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    Yes,
    /// The kubelet's own words; empty before its first report.
    No(String),
    /// The cluster has lost sight of the kubelet.
    Silent,
}

/// What becomes of a node; what is not named here stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    pub labels: Labels,
    pub annotations: Labels,
    /// Each takes the place of one of the same key and effect.
    pub taints: Vec<Taint>,
    /// Keys of taints that go, whatever their effect.
    pub shed: BTreeSet<String>,
    pub cordoned: Option<bool>,
}

impl Change {
    #[must_use]
    pub fn cordon() -> Self {
        Self { cordoned: Some(true), ..Self::default() }
    }

    #[must_use]
    pub fn uncordon() -> Self {
        Self { cordoned: Some(false), ..Self::default() }
    }

    /// Only for a machine that is *known* to be off: its volumes are attached elsewhere.
    #[must_use]
    pub fn out_of_service() -> Self {
        let taint =
            Taint { key: OUT_OF_SERVICE_TAINT.to_owned(), value: "nodeshutdown".to_owned(), effect: Effect::NoExecute };
        Self { taints: vec![taint], ..Self::default() }
    }

    #[must_use]
    pub fn back_in_service() -> Self {
        Self { shed: [OUT_OF_SERVICE_TAINT.to_owned()].into(), ..Self::default() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// It was told to go and has not gone yet: wait, do not evict it again.
    pub ending: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Eviction {
    /// It will end, within its own grace period.
    Evicted,
    /// `budget` lets no more pods go now; empty when more than one budget speaks for the pod, which the cluster refuses.
    Blocked {
        budget: String,
        message: String,
    },
    Gone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEvent {
    pub node: String,
    pub uid: String,
    pub severity: Severity,
    /// One word: `VmFailed`.
    pub reason: String,
    pub message: String,
    pub at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Normal,
    Warning,
}
