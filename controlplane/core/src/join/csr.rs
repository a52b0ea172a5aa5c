//! Whose certificate signing request is granted.
//!
//! The signers of Kubernetes check a request's form and nothing of who asks: a second name on the same token, another node's
//! name, the API server's own address as a SAN are all signed once somebody approves. Croft knows which machine asks, so it
//! decides: everything agrees with the record of one instance, or the answer is no. What names neither a token nor a node of
//! Croft's is not for Croft to answer.

use std::collections::BTreeSet;
use std::net::IpAddr;

pub const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
/// Of tokens that Croft makes; kubeadm's own group is approved by the cluster itself, whatever the name.
pub const BOOTSTRAP_GROUP: &str = "system:bootstrappers:croft";

const BOOTSTRAP_USER: &str = "system:bootstrap:";
const NODE_USER: &str = "system:node:";
const NODES_GROUP: &str = "system:nodes";

/// A request as the API server tells it, and what was read of the PKCS#10 within.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub signer: String,
    /// Who sent it: the API server's word.
    pub username: String,
    pub groups: BTreeSet<String>,
    pub usages: BTreeSet<String>,
    /// `None`: the PKCS#10 could not be read, or its own signature is wrong.
    pub subject: Option<Subject>,
}

/// What the request would have a certificate say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    pub common_names: Vec<String>,
    pub organizations: Vec<String>,
    /// Attributes of the name besides those two.
    pub others: Vec<String>,
    pub dns: BTreeSet<String>,
    pub ips: BTreeSet<IpAddr>,
    /// SANs of any other kind: URIs, mail addresses.
    pub other_names: Vec<String>,
    /// Extensions asked for besides SANs and usages, by OID.
    pub extensions: Vec<String>,
}

/// What Croft knows of the one node that a token or a name belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub node: String,
    /// Addresses that Croft or its host gave to the guest: never those that a guest claims.
    pub addresses: BTreeSet<IpAddr>,
    pub standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its token is good: it may ask for its first certificate, and again until its Node is there.
    Booting,
    /// Its Node is there: it renews with the certificate that it has.
    Joined,
    /// It is being deleted, or was: nothing is granted any more.
    Gone,
}

/// Where to look for the record of who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker<'a> {
    /// By the id of a bootstrap token.
    Token(&'a str),
    Node(&'a str),
    /// Neither: somebody else's to answer.
    Other,
}

impl Request {
    #[must_use]
    pub fn asker(&self) -> Asker<'_> {
        if let Some(id) = self.username.strip_prefix(BOOTSTRAP_USER) {
            return Asker::Token(id);
        }
        self.username.strip_prefix(NODE_USER).map_or(Asker::Other, Asker::Node)
    }
}

/// Why a request is denied: one word for machines, one sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    #[error("its machine is gone, or about to go")]
    Gone,
    #[error("its node has joined; the bootstrap token is for the first certificate only")]
    AlreadyJoined,
    #[error("signer {0} is for no kubelet")]
    Signer(String),
    #[error("a token's holder may ask for a client certificate only, not for one of {SERVING_SIGNER}")]
    ServingByToken,
    #[error("the requester is not in group {0}")]
    Group(&'static str),
    #[error("the request within cannot be read, or is not signed by its own key")]
    Unreadable,
    #[error("it names {found}; this machine's name is {expected}")]
    Name { found: String, expected: String },
    #[error("its organisation is {0}; a node's is {NODES_GROUP} and nothing else")]
    Organization(String),
    #[error("its subject has {0} besides name and organisation")]
    SubjectExtra(String),
    #[error("usage {0} is not a {1} certificate's")]
    Usage(String, &'static str),
    #[error("it lacks the usage {0}")]
    UsageMissing(&'static str),
    #[error("it asks for {0}, which is not this machine's")]
    San(String),
    #[error("it asks for no name and no address at all")]
    NoSan,
    #[error("it asks for extension {0}")]
    Extension(String),
}

impl Denial {
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Gone => "InstanceGone",
            Self::AlreadyJoined => "AlreadyJoined",
            Self::Signer(_) | Self::ServingByToken => "WrongSigner",
            Self::Group(_) => "WrongGroup",
            Self::Unreadable => "Unreadable",
            Self::Name { .. } => "WrongName",
            Self::Organization(_) => "WrongOrganization",
            Self::SubjectExtra(_) => "SubjectNotAllowed",
            Self::Usage(..) | Self::UsageMissing(_) => "WrongUsage",
            Self::San(_) | Self::NoSan => "WrongSan",
            Self::Extension(_) => "ExtensionNotAllowed",
        }
    }
}

/// Whether `request`, of the machine that `record` is about, is granted.
pub fn judge(request: &Request, record: &Record) -> Result<(), Denial> {
    if record.standing == Standing::Gone {
        return Err(Denial::Gone);
    }
    let by_token = matches!(request.asker(), Asker::Token(_));
    match (request.signer.as_str(), by_token) {
        (CLIENT_SIGNER, true) if record.standing == Standing::Joined => return Err(Denial::AlreadyJoined),
        (CLIENT_SIGNER, _) | (SERVING_SIGNER, false) => {}
        (SERVING_SIGNER, true) => return Err(Denial::ServingByToken),
        (other, _) => return Err(Denial::Signer(other.to_owned())),
    }
    let group = if by_token { BOOTSTRAP_GROUP } else { NODES_GROUP };
    if !request.groups.contains(group) {
        return Err(Denial::Group(group));
    }
    let subject = request.subject.as_ref().ok_or(Denial::Unreadable)?;
    named(request, subject, record)?;
    let serving = request.signer == SERVING_SIGNER;
    used(&request.usages, serving)?;
    if serving { serves(subject, record) } else { serves_nothing(subject) }
}

/// The certificate is in the name of the machine that asks, and says nothing more of it.
fn named(request: &Request, subject: &Subject, record: &Record) -> Result<(), Denial> {
    let expected = format!("{NODE_USER}{}", record.node);
    let wrong = |found: &str| Denial::Name { found: found.to_owned(), expected: expected.clone() };
    if !matches!(request.asker(), Asker::Token(_)) && request.username != expected {
        return Err(wrong(&request.username));
    }
    if subject.common_names != [expected.as_str()] {
        return Err(wrong(&subject.common_names.join(", ")));
    }
    if subject.organizations != [NODES_GROUP] {
        return Err(Denial::Organization(subject.organizations.join(", ")));
    }
    if let Some(other) = subject.others.first() {
        return Err(Denial::SubjectExtra(other.clone()));
    }
    subject.extensions.first().map_or(Ok(()), |oid| Err(Denial::Extension(oid.clone())))
}

fn used(usages: &BTreeSet<String>, serving: bool) -> Result<(), Denial> {
    let (kind, purpose) = if serving { ("serving", "server auth") } else { ("client", "client auth") };
    let allowed = ["digital signature", "key encipherment", purpose];
    if let Some(extra) = usages.iter().find(|usage| !allowed.contains(&usage.as_str())) {
        return Err(Denial::Usage(extra.clone(), kind));
    }
    if usages.contains(purpose) { Ok(()) } else { Err(Denial::UsageMissing(purpose)) }
}

fn serves(subject: &Subject, record: &Record) -> Result<(), Denial> {
    let strange_name = subject.dns.iter().find(|name| **name != record.node).cloned();
    let strange_ip = subject.ips.iter().find(|ip| !record.addresses.contains(ip)).map(ToString::to_string);
    match strange_name.or(strange_ip).or_else(|| subject.other_names.first().cloned()) {
        Some(name) => Err(Denial::San(name)),
        None if subject.dns.is_empty() && subject.ips.is_empty() => Err(Denial::NoSan),
        None => Ok(()),
    }
}

fn serves_nothing(subject: &Subject) -> Result<(), Denial> {
    let dns = subject.dns.first().cloned();
    let first =
        dns.or_else(|| subject.ips.first().map(ToString::to_string)).or_else(|| subject.other_names.first().cloned());
    first.map_or(Ok(()), |name| Err(Denial::San(name)))
}

#[cfg(test)]
mod tests;
