//! RegisterCluster: the cluster is spoken to before it is kept.

use croft_core::audit::Call;
use croft_core::cluster::{Cluster, ID_MAX, Status, name as full_name};
use croft_core::id::ImageUid;
use croft_core::meta::Meta;
use croft_core::validate::Violations;
use croft_core::{Error, Result, name};
use croft_proto::v1;

use super::trial::trial;
use crate::api::Api;
use crate::convert::cluster::{Credential, Said, out};
use crate::convert::meta;
use crate::scope;

pub async fn register(api: Api, call: Call, request: v1::RegisterClusterRequest) -> Result<v1::Cluster> {
    let wire = request.cluster.unwrap_or_default();
    let mut violations = Violations::new();
    violations.check_slug(&request.cluster_id, ID_MAX, "cluster_id");
    let sent = meta::into("cluster", wire.metadata, &mut violations);
    let said = Said::read(wire.description, &wire.tenants, wire.node_server, &wire.cluster_dns, &mut violations);
    let credential = Credential::read(wire.credential, &mut violations);
    let tenant = match request.parent.as_str() {
        "" => None,
        parent => Some(name::tenant("parent", parent)?),
    };
    said.check_owner(tenant.as_ref(), &mut violations);
    let nothing = "set kubeconfig, or in_cluster where the plane runs in the cluster as a pod";
    violations.check(credential.is_some(), "cluster.kubeconfig", nothing);
    violations.finish()?;
    let credential = credential.ok_or_else(|| Error::internal("a credential without a complaint that is none"))?;

    match &tenant {
        None => scope::of_the_platform(&call.principal, "a cluster of the platform is registered by platform admins")?,
        Some(tenant) => api.see(&call.principal, tenant, &request.parent).await?,
    }
    let full_name = full_name(tenant.as_ref(), &request.cluster_id);
    // A retry needs no cluster that answers, and a name that is taken none that is asked.
    if let Some(done) = api.store().cluster_answered(&call).await? {
        return Ok(out(&done));
    }
    if api.store().cluster_get(tenant.as_ref(), &request.cluster_id).await?.is_some() {
        return Err(Error::AlreadyExists { name: full_name });
    }
    let status = trial(&api, &full_name, tenant.as_ref(), &credential, &Status::default()).await?;

    let now = api.store().now();
    let cluster = Cluster {
        // Clusters are found by their name, so their uid needs no type of its own.
        meta: Meta::new(ImageUid::new(now).to_string(), sent.labels, sent.annotations, now),
        tenant,
        id: request.cluster_id,
        description: said.description,
        tenants: said.tenants,
        credential_digest: String::new(),
        node_server: said.node_server,
        cluster_dns: said.cluster_dns,
        status,
    };
    let cluster = api.store().cluster_create(&call, cluster, credential.into_kubeconfig()).await?.into_inner();
    api.deps.wake.clusters();
    Ok(out(&cluster))
}
