//! Why a cluster did not do what it was asked; each says which server, and what to look at.

use std::fmt;
use std::time::Duration;

use crate::error::Reason;
use crate::time::Timestamp;

/// The credential itself is no good; nothing was said to any server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct BadAccess {
    /// Where in the kubeconfig: `users[admin].user.exec`.
    pub field: String,
    pub problem: String,
}

/// A right within a cluster, as RBAC grants it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    pub verb: &'static str,
    /// Empty: the core group.
    pub group: &'static str,
    /// With its subresource: `pods/eviction`.
    pub resource: &'static str,
    /// `None`: of the whole cluster.
    pub namespace: Option<String>,
    /// `None`: whatever its name.
    pub name: Option<String>,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        self.namespace.as_ref().map_or(Ok(()), |namespace| write!(f, " in namespace {namespace}"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{server} cannot be reached: {why}")]
    Unreachable { server: String, why: String },
    /// Its certificate is not of the pinned CA, not for this name, or out of date.
    #[error("{server} shows a certificate that is not good: {why}")]
    Certificate { server: String, why: String },
    #[error(
        "{server} does not know the credential (it was removed, or it has expired); register the cluster with a new one"
    )]
    Unauthorized { server: String, expires: Option<Timestamp> },
    #[error("{server} does not let Croft {right}; the RBAC manifest that Croft ships grants it")]
    Forbidden { server: String, right: Right },
    /// Changed by another, or another's from the start.
    #[error("{server}: {what}")]
    Conflict { server: String, what: String },
    #[error("{server} has no {what}")]
    NotFound { server: String, what: String },
    #[error("{server} did not finish within {} s: {doing}", .after.as_secs())]
    Timeout { server: String, doing: String, after: Duration },
    /// It answers, and cannot now: overloaded, or its own store is away.
    #[error("{server} is in no state to {doing}: {why}")]
    Busy { server: String, doing: String, why: String },
    /// An admission policy, a check of its own, or an answer that cannot be read.
    #[error("{server} refused to {doing}: {why}")]
    Refused { server: String, doing: String, why: String },
}

impl Fault {
    /// Whether the same call may do better later without anybody's help.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Conflict { .. } | Self::Timeout { .. } | Self::Busy { .. } => true,
            Self::Certificate { .. }
            | Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::Refused { .. } => false,
        }
    }

    /// In one word, which has a page.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Certificate { .. } => Reason::ClusterCertificateRefused,
            Self::Unauthorized { .. } => Reason::ClusterCredentialRefused,
            Self::Forbidden { .. } => Reason::ClusterRightsMissing,
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Busy { .. }
            | Self::Conflict { .. }
            | Self::NotFound { .. }
            | Self::Refused { .. } => Reason::ClusterUnreachable,
        }
    }

    #[must_use]
    pub fn server(&self) -> &str {
        match self {
            Self::Unreachable { server, .. }
            | Self::Certificate { server, .. }
            | Self::Unauthorized { server, .. }
            | Self::Forbidden { server, .. }
            | Self::Conflict { server, .. }
            | Self::NotFound { server, .. }
            | Self::Timeout { server, .. }
            | Self::Busy { server, .. }
            | Self::Refused { server, .. } => server,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_reads_as_a_sentence_with_all_that_a_role_needs() {
        let right = Right {
            verb: "create",
            group: "",
            resource: "secrets",
            namespace: Some("kube-system".to_owned()),
            name: None,
        };
        let fault = Fault::Forbidden { server: "https://a:6443".to_owned(), right };
        assert!(
            fault.to_string().starts_with("https://a:6443 does not let Croft create secrets in namespace kube-system")
        );
        let signer = Right {
            verb: "approve",
            group: "certificates.k8s.io",
            resource: "signers",
            namespace: None,
            name: Some("kubernetes.io/kubelet-serving".to_owned()),
        };
        assert_eq!(signer.to_string(), "approve signers.certificates.k8s.io kubernetes.io/kubelet-serving");
    }
}
