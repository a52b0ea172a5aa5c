//! Every call that Croft makes to a cluster, as the right that it needs: what a refused call is named by, what the probe asks
//! for, and (see the test) exactly what the shipped manifest grants.

use croft_core::join::cluster::{Fault, Right};
use croft_core::join::csr::{CLIENT_SIGNER, SERVING_SIGNER};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Resource as _;
use kube::api::PostParams;
use kube::core::request::Request;
use serde::Deserialize;

use crate::connection::{Connection, text};
use crate::policy::{BINDING, NAMES, POLICY, ROSTER, ROSTER_NAMESPACE};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) verb: &'static str,
    pub(crate) group: &'static str,
    pub(crate) resource: &'static str,
    pub(crate) namespace: Option<&'static str>,
    pub(crate) name: Option<&'static str>,
}

pub(crate) const TOKEN_NAMESPACE: &str = "kube-system";
/// Where events about what has no namespace are kept.
pub(crate) const EVENT_NAMESPACE: &str = "default";

const CERTIFICATES: &str = "certificates.k8s.io";
pub(crate) const ADMISSION: &str = "admissionregistration.k8s.io";

pub(crate) const SIGNINGS_LIST: Need = need("list", CERTIFICATES, "certificatesigningrequests");
pub(crate) const SIGNING_DELETE: Need = need("delete", CERTIFICATES, "certificatesigningrequests");
pub(crate) const SIGNING_ANSWER: Need = need("update", CERTIFICATES, "certificatesigningrequests/approval");
pub(crate) const APPROVE: Need = need("approve", CERTIFICATES, "signers");
pub(crate) const NODES_LIST: Need = need("list", "", "nodes");
pub(crate) const NODE_GET: Need = need("get", "", "nodes");
pub(crate) const NODE_PATCH: Need = need("patch", "", "nodes");
pub(crate) const NODE_DELETE: Need = need("delete", "", "nodes");
pub(crate) const PODS_LIST: Need = need("list", "", "pods");
pub(crate) const EVICT: Need = need("create", "", "pods/eviction");
pub(crate) const TOKEN_CREATE: Need = need("create", "", "secrets").within(TOKEN_NAMESPACE);
pub(crate) const TOKEN_DELETE: Need = need("delete", "", "secrets").within(TOKEN_NAMESPACE);
pub(crate) const EVENT_CREATE: Need = need("create", "events.k8s.io", "events").within(EVENT_NAMESPACE);
pub(crate) const ROSTER_CREATE: Need = need("create", "", "configmaps").within(ROSTER_NAMESPACE);
pub(crate) const ROSTER_PATCH: Need = need("patch", "", "configmaps").within(ROSTER_NAMESPACE).named(ROSTER);
/// What its uid tells: which cluster it is.
pub(crate) const NAMESPACE_GET: Need = need("get", "", "namespaces").named(TOKEN_NAMESPACE);
pub(crate) const POLICY_GET: Need = need("get", ADMISSION, POLICY);
pub(crate) const BINDING_GET: Need = need("get", ADMISSION, BINDING);
/// Granted to everybody by the cluster itself; not part of [`all`].
pub(crate) const REVIEW: Need = need("create", "authorization.k8s.io", "selfsubjectaccessreviews");
/// Granted to everybody, too.
pub(crate) const VERSION: Need = need("get", "", "version");
const REVIEWS_AT_ONCE: usize = 4;

const fn need(verb: &'static str, group: &'static str, resource: &'static str) -> Need {
    Need { verb, group, resource, namespace: None, name: None }
}

impl Need {
    const fn within(self, namespace: &'static str) -> Self {
        Self { namespace: Some(namespace), ..self }
    }

    const fn named(self, name: &'static str) -> Self {
        Self { name: Some(name), ..self }
    }

    pub(crate) fn right(self) -> Right {
        Right {
            verb: self.verb,
            group: self.group,
            resource: self.resource,
            namespace: self.namespace.map(str::to_owned),
            name: self.name.map(str::to_owned),
        }
    }

    /// For one object: what the fault will name.
    pub(crate) fn of(self, name: &str) -> Right {
        Right { name: Some(name.to_owned()), ..self.right() }
    }

    pub(crate) fn of_in(self, namespace: &str, name: &str) -> Right {
        Right { namespace: Some(namespace.to_owned()), ..self.of(name) }
    }
}

pub(crate) fn all() -> Vec<Need> {
    let mut all = vec![
        SIGNINGS_LIST,
        SIGNING_DELETE,
        SIGNING_ANSWER,
        APPROVE.named(CLIENT_SIGNER),
        APPROVE.named(SERVING_SIGNER),
        NODES_LIST,
        NODE_GET,
        NODE_PATCH,
        NODE_DELETE,
        PODS_LIST,
        EVICT,
        TOKEN_CREATE,
        TOKEN_DELETE,
        EVENT_CREATE,
        ROSTER_CREATE,
        ROSTER_PATCH,
        NAMESPACE_GET,
    ];
    for name in NAMES {
        all.extend([POLICY_GET.named(name), BINDING_GET.named(name)]);
    }
    all
}

/// Which of [`all`] are not granted, in that order.
pub(crate) async fn missing(connection: &Connection) -> Result<Vec<Right>, Fault> {
    #[derive(Deserialize)]
    struct Reviewed {
        status: Verdict,
    }
    #[derive(Deserialize)]
    struct Verdict {
        allowed: bool,
    }
    let reviews = Request::new(SelfSubjectAccessReview::url_path(&(), None));
    let ask = async |need: Need| {
        let request = reviews.create(&PostParams::default(), text(&review(need)));
        let reviewed: Reviewed = connection.get(&REVIEW.right(), request).await?;
        Ok::<_, Fault>((!reviewed.status.allowed).then(|| need.right()))
    };
    let answers: Vec<_> = stream::iter(all()).map(ask).buffered(REVIEWS_AT_ONCE).try_collect().await?;
    Ok(answers.into_iter().flatten().collect())
}

fn review(need: Need) -> SelfSubjectAccessReview {
    let (resource, subresource) = need.resource.split_once('/').map_or((need.resource, None), |(r, s)| (r, Some(s)));
    let attributes = ResourceAttributes {
        verb: Some(need.verb.to_owned()),
        group: Some(need.group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource: subresource.map(str::to_owned),
        namespace: need.namespace.map(str::to_owned),
        name: need.name.map(str::to_owned),
        ..ResourceAttributes::default()
    };
    SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
        ..SelfSubjectAccessReview::default()
    }
}
