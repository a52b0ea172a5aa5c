//! Kubernetes clusters. The platform's are for the tenants that they name, a tenant's for it, both with all below; nobody else
//! learns of one. Who registered one changes and deletes it.

mod register;
mod trial;
mod update;

use croft_core::access::Principal;
use croft_core::audit::Call;
use croft_core::cluster::{Cluster, name as full_name};
use croft_core::id::TenantId;
use croft_core::{Error, Result, name};
use croft_proto::v1;
use croft_store::ClusterScope;
use tonic::{Request, Response, Status};

use crate::api::Api;
use crate::caller::Caller;
use crate::convert::cluster::out;
use crate::mutation::{mutate, read};
use crate::page::{is_all, page};

#[tonic::async_trait]
impl v1::clusters_server::Clusters for Api {
    async fn get_cluster(&self, request: Request<v1::GetClusterRequest>) -> Result<Response<v1::Cluster>, Status> {
        read(self, request, get).await
    }

    async fn list_clusters(
        &self,
        request: Request<v1::ListClustersRequest>,
    ) -> Result<Response<v1::ListClustersResponse>, Status> {
        read(self, request, list).await
    }

    async fn register_cluster(
        &self,
        request: Request<v1::RegisterClusterRequest>,
    ) -> Result<Response<v1::Cluster>, Status> {
        mutate(self, request, register::register).await
    }

    async fn update_cluster(
        &self,
        request: Request<v1::UpdateClusterRequest>,
    ) -> Result<Response<v1::Cluster>, Status> {
        mutate(self, request, update::update).await
    }

    async fn delete_cluster(
        &self,
        request: Request<v1::DeleteClusterRequest>,
    ) -> Result<Response<v1::DeleteClusterResponse>, Status> {
        mutate(self, request, delete).await
    }
}

fn scope(own: Option<&TenantId>) -> ClusterScope {
    own.map_or(ClusterScope::All, |own| ClusterScope::SeenFrom(own.clone()))
}

async fn get(api: Api, caller: Caller, request: v1::GetClusterRequest) -> Result<v1::Cluster> {
    name::cluster("name", &request.name)?;
    let own = caller.tenant();
    let found = api.store().cluster_visible(&request.name, &scope(own)).await?;
    shown(&api, own, found.ok_or_else(|| Error::not_found(&request.name))?).await
}

async fn list(api: Api, caller: Caller, request: v1::ListClustersRequest) -> Result<v1::ListClustersResponse> {
    let page = page(request.page_size, request.page_token)?;
    let own = caller.tenant();
    let scope = match request.parent.as_str() {
        parent if is_all(parent) => scope(own),
        parent => api.parent(&caller, parent).await?.map_or(ClusterScope::All, ClusterScope::JoinableBy),
    };
    let (found, next) = api.store().cluster_list(&scope, &page).await?;
    let mut clusters = Vec::with_capacity(found.len());
    for cluster in found {
        clusters.push(shown(&api, own, cluster).await?);
    }
    Ok(v1::ListClustersResponse { clusters, next_page_token: next.unwrap_or_default() })
}

/// As the caller may see it: who else joins one of the platform's is no tenant's business.
async fn shown(api: &Api, own: Option<&TenantId>, mut cluster: Cluster) -> Result<v1::Cluster> {
    if let Some(own) = own {
        let mut related = Vec::new();
        for tenant in std::mem::take(&mut cluster.tenants) {
            let store = api.store();
            if store.tenant_within(own, &tenant).await? || store.tenant_within(&tenant, own).await? {
                related.push(tenant);
            }
        }
        cluster.tenants = related;
    }
    Ok(out(&cluster))
}

/// For who changes or deletes it: not found where it is not seen, denied where it is only shared.
async fn owned(api: &Api, principal: &Principal, field: &str, name: &str) -> Result<Cluster> {
    name::cluster(field, name)?;
    let found = api.store().cluster_visible(name, &scope(principal.tenant())).await?;
    let cluster = found.ok_or_else(|| Error::not_found(name))?;
    let owns = match &cluster.tenant {
        Some(owner) => api.sees(principal, owner).await?,
        None => principal.tenant().is_none(),
    };
    if owns {
        return Ok(cluster);
    }
    let name = full_name(cluster.tenant.as_ref(), &cluster.id);
    Err(Error::Denied { message: format!("{name} is shared with you from above; who registered it changes it") })
}

async fn delete(api: Api, call: Call, request: v1::DeleteClusterRequest) -> Result<v1::DeleteClusterResponse> {
    let (tenant, id) = name::cluster("name", &request.name)?;
    // A retry of what was done finds nothing that it could own; the store answers it as before.
    if !api.store().call_answered(&call).await? {
        owned(&api, &call.principal, "name", &request.name).await?;
    }
    api.store().cluster_delete(&call, tenant.as_ref(), &id, &request.etag).await?;
    api.deps.wake.clusters();
    Ok(v1::DeleteClusterResponse {})
}
