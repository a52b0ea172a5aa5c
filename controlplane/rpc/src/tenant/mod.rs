//! Tenants: a table of contents.

mod create;
mod update;

use croft_core::audit::Call;
use croft_core::name;
use croft_core::{Error, Result};
use croft_proto::v1;
use croft_store::TenantFilter;
use tonic::{Request, Response, Status};

use crate::api::Api;
use crate::caller::Caller;
use crate::convert::tenant::out;
use crate::mutation::{mutate, read};
use crate::page::page;
use crate::scope;

#[tonic::async_trait]
impl v1::tenants_server::Tenants for Api {
    async fn get_tenant(&self, request: Request<v1::GetTenantRequest>) -> Result<Response<v1::Tenant>, Status> {
        read(self, request, get).await
    }

    async fn list_tenants(
        &self,
        request: Request<v1::ListTenantsRequest>,
    ) -> Result<Response<v1::ListTenantsResponse>, Status> {
        read(self, request, list).await
    }

    async fn create_tenant(&self, request: Request<v1::CreateTenantRequest>) -> Result<Response<v1::Tenant>, Status> {
        mutate(self, request, create::create).await
    }

    async fn update_tenant(&self, request: Request<v1::UpdateTenantRequest>) -> Result<Response<v1::Tenant>, Status> {
        mutate(self, request, update::update).await
    }

    async fn delete_tenant(
        &self,
        request: Request<v1::DeleteTenantRequest>,
    ) -> Result<Response<v1::DeleteTenantResponse>, Status> {
        mutate(self, request, delete).await
    }
}

async fn get(api: Api, caller: Caller, request: v1::GetTenantRequest) -> Result<v1::Tenant> {
    let id = name::tenant("name", &request.name)?;
    api.see(&caller.principal, &id, &request.name).await?;
    let tenant = api.store().tenant_get(&id).await?.ok_or_else(|| Error::not_found(request.name))?;
    Ok(out(&tenant))
}

async fn list(api: Api, caller: Caller, request: v1::ListTenantsRequest) -> Result<v1::ListTenantsResponse> {
    let page = page(request.page_size, request.page_token)?;
    let parent = api.parent(&caller, &request.parent).await?;
    let filter = TenantFilter { within: caller.tenant().cloned(), parent };
    let (tenants, next) = api.store().tenant_list(&filter, &page).await?;
    Ok(v1::ListTenantsResponse {
        tenants: tenants.iter().map(out).collect(),
        next_page_token: next.unwrap_or_default(),
    })
}

async fn delete(api: Api, call: Call, request: v1::DeleteTenantRequest) -> Result<v1::DeleteTenantResponse> {
    let id = name::tenant("name", &request.name)?;
    api.see(&call.principal, &id, &request.name).await?;
    scope::strictly_above(&call.principal, &id, "the end of a tenant")?;
    api.store().tenant_delete(&call, &id, &request.etag).await?;
    // Its tokens went with it, and those who hold one are to notice.
    api.tokens.forget();
    Ok(v1::DeleteTenantResponse {})
}
