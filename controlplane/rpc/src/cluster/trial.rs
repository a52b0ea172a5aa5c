//! A credential is tried on the cluster before it is kept: what does not work now would fail later, where nobody looks.

use std::time::Duration;

use croft_core::cluster::{Status, health};
use croft_core::id::TenantId;
use croft_core::join::cluster::{Access, BadAccess, Fault};
use croft_core::{Error, Reason, Result};

use crate::api::Api;
use crate::convert::cluster::Credential;

/// Less than a client waits for its answer.
const WITHIN: Duration = Duration::from_secs(40);

/// What is seen of the cluster with it. `before`: what was known of the cluster.
pub async fn trial(
    api: &Api,
    name: &str,
    tenant: Option<&TenantId>,
    credential: &Credential,
    before: &Status,
) -> Result<Status> {
    let handle = api.deps.clusters.open(&access(credential, tenant)?).map_err(bad)?;
    let server = handle.anchor().server.clone();
    let late = |_| Err(Fault::Timeout { server: server.clone(), doing: "probe the cluster".to_owned(), after: WITHIN });
    let probe = tokio::time::timeout(WITHIN, handle.probe()).await.unwrap_or_else(late);
    let probe = probe.map_err(|fault| Error::precondition(fault.reason(), name, fault.to_string()))?;
    if let Some(message) = health::missing_text(&server, &probe.missing) {
        return Err(Error::precondition(Reason::ClusterRightsMissing, name, message));
    }
    Ok(health::observed(before, handle.anchor(), Ok(&probe), api.store().now()))
}

fn access(credential: &Credential, tenant: Option<&TenantId>) -> Result<Access> {
    match (credential, tenant) {
        (Credential::Kubeconfig(text), None) => Ok(Access::Kubeconfig(text.clone())),
        (Credential::Kubeconfig(text), Some(_)) => Ok(Access::TenantsKubeconfig(text.clone())),
        (Credential::InCluster, None) => Ok(Access::InCluster),
        (Credential::InCluster, Some(tenant)) => Err(Error::invalid(
            "cluster.in_cluster",
            format!("the plane's own service account is not tenants/{tenant}'s to use; give a kubeconfig"),
        )),
    }
}

/// Where in the kubeconfig, and what.
fn bad(BadAccess { field, problem }: BadAccess) -> Error {
    let field = match field.as_str() {
        "kubeconfig" | "in_cluster" => format!("cluster.{field}"),
        inside => format!("cluster.kubeconfig.{inside}"),
    };
    Error::invalid(field, problem)
}
