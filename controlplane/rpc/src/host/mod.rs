//! Hosts: a table of contents. Platform roles alone have permissions here, so there is no scope to check.

mod drain;
mod enrolment;
mod fence;
mod layout;
mod update;

use croft_core::audit::Call;
use croft_core::{Error, Result, name};
use croft_proto::v1;
use tonic::{Request, Response, Status};

use crate::api::Api;
use crate::caller::Caller;
use crate::convert::host::out;
use crate::mutation::{mutate, read};
use crate::page::page;

#[tonic::async_trait]
impl v1::hosts_server::Hosts for Api {
    async fn get_host(&self, request: Request<v1::GetHostRequest>) -> Result<Response<v1::Host>, Status> {
        read(self, request, get).await
    }

    async fn list_hosts(
        &self,
        request: Request<v1::ListHostsRequest>,
    ) -> Result<Response<v1::ListHostsResponse>, Status> {
        read(self, request, list).await
    }

    async fn update_host(&self, request: Request<v1::UpdateHostRequest>) -> Result<Response<v1::Host>, Status> {
        mutate(self, request, update::update).await
    }

    async fn delete_host(
        &self,
        request: Request<v1::DeleteHostRequest>,
    ) -> Result<Response<v1::DeleteHostResponse>, Status> {
        mutate(self, request, delete).await
    }

    async fn cordon_host(&self, request: Request<v1::CordonHostRequest>) -> Result<Response<v1::Host>, Status> {
        mutate(self, request, |api, call, request: v1::CordonHostRequest| async move {
            cordon(api, call, &request.name, true).await
        })
        .await
    }

    async fn uncordon_host(&self, request: Request<v1::UncordonHostRequest>) -> Result<Response<v1::Host>, Status> {
        mutate(self, request, |api, call, request: v1::UncordonHostRequest| async move {
            cordon(api, call, &request.name, false).await
        })
        .await
    }

    async fn explain_host_drain(
        &self,
        request: Request<v1::ExplainHostDrainRequest>,
    ) -> Result<Response<v1::DrainPlan>, Status> {
        read(self, request, drain::explain).await
    }

    async fn drain_host(&self, request: Request<v1::DrainHostRequest>) -> Result<Response<v1::Host>, Status> {
        mutate(self, request, drain::drain).await
    }

    async fn undrain_host(&self, request: Request<v1::UndrainHostRequest>) -> Result<Response<v1::Host>, Status> {
        mutate(self, request, drain::undrain).await
    }

    async fn fence_host(&self, request: Request<v1::FenceHostRequest>) -> Result<Response<v1::Host>, Status> {
        mutate(self, request, fence::fence).await
    }

    async fn get_host_layout(
        &self,
        request: Request<v1::GetHostLayoutRequest>,
    ) -> Result<Response<v1::HostLayout>, Status> {
        read(self, request, layout::get).await
    }

    async fn set_host_layout(
        &self,
        request: Request<v1::SetHostLayoutRequest>,
    ) -> Result<Response<v1::HostLayout>, Status> {
        mutate(self, request, layout::set).await
    }

    async fn create_enrolment_token(
        &self,
        request: Request<v1::CreateEnrolmentTokenRequest>,
    ) -> Result<Response<v1::CreateEnrolmentTokenResponse>, Status> {
        mutate(self, request, enrolment::create).await
    }
}

async fn get(api: Api, _: Caller, request: v1::GetHostRequest) -> Result<v1::Host> {
    let id = name::host("name", &request.name)?;
    let host = api.store().host_get(&id).await?.ok_or_else(|| Error::not_found(request.name))?;
    Ok(out(&host))
}

async fn list(api: Api, _: Caller, request: v1::ListHostsRequest) -> Result<v1::ListHostsResponse> {
    let page = page(request.page_size, request.page_token)?;
    let (hosts, next) = api.store().host_list(&page).await?;
    Ok(v1::ListHostsResponse { hosts: hosts.iter().map(out).collect(), next_page_token: next.unwrap_or_default() })
}

async fn delete(api: Api, call: Call, request: v1::DeleteHostRequest) -> Result<v1::DeleteHostResponse> {
    let id = name::host("name", &request.name)?;
    api.store().host_delete(&call, &id, &request.etag).await?;
    // Its session looks at its certificate again, and ends.
    api.tokens.forget();
    api.deps.wake.hosts();
    Ok(v1::DeleteHostResponse {})
}

async fn cordon(api: Api, call: Call, name: &str, cordoned: bool) -> Result<v1::Host> {
    let id = name::host("name", name)?;
    let host = api.store().host_cordon(&call, &id, cordoned).await?.into_inner();
    api.deps.wake.hosts();
    Ok(out(&host))
}
