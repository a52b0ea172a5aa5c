//! Quotas: limit and use per (tenant, resource). A tenant's own limits are set above it, by its parent's admins.

mod set;

use croft_core::id::TenantId;
use croft_core::meta::selects;
use croft_core::quota::{PLAIN, is_resource};
use croft_core::{Error, Reason, Result, name};
use croft_proto::v1;
use tonic::{Request, Response, Status};

use crate::api::Api;
use crate::caller::Caller;
use crate::convert::quota::out;
use crate::filter::label_selector;
use crate::mutation::{mutate, read};
use crate::page::page;

#[tonic::async_trait]
impl v1::quotas_server::Quotas for Api {
    async fn get_quota(&self, request: Request<v1::GetQuotaRequest>) -> Result<Response<v1::Quota>, Status> {
        read(self, request, get).await
    }

    async fn list_quotas(
        &self,
        request: Request<v1::ListQuotasRequest>,
    ) -> Result<Response<v1::ListQuotasResponse>, Status> {
        read(self, request, list).await
    }

    async fn set_quota(&self, request: Request<v1::SetQuotaRequest>) -> Result<Response<v1::Quota>, Status> {
        mutate(self, request, set::set).await
    }

    async fn clear_quota(&self, request: Request<v1::ClearQuotaRequest>) -> Result<Response<v1::Quota>, Status> {
        mutate(self, request, set::clear).await
    }
}

async fn get(api: Api, caller: Caller, request: v1::GetQuotaRequest) -> Result<v1::Quota> {
    let (tenant, resource) = parse("name", &request.name)?;
    api.see(&caller.principal, &tenant, &request.name).await?;
    let quota = api.store().quota_get(&tenant, &resource).await?;
    let available = api.store().quota_available(&tenant, &resource).await?;
    Ok(out(&quota, available))
}

/// There are a handful, so the store gives them all and the page is cut here; its token is the last one's resource.
async fn list(api: Api, caller: Caller, request: v1::ListQuotasRequest) -> Result<v1::ListQuotasResponse> {
    let page = page(request.page_size, request.page_token)?;
    let labels = label_selector(&request.label_selector)?;
    let tenant = name::tenant("parent", &request.parent)?;
    api.see(&caller.principal, &tenant, &request.parent).await?;
    let all = api.store().quota_list(&tenant).await?;
    let start = match page.token {
        None => 0,
        Some(token) => match all.iter().position(|(own, _)| own.quota.resource == token) {
            Some(at) => at + 1,
            None => {
                let message = "page_token is not one that this list gave; begin again without it".to_owned();
                return Err(Error::OutOfRange { reason: Reason::PageTokenInvalid, message });
            }
        },
    };
    let size = usize::try_from(page.size).unwrap_or(usize::MAX);
    let mut left = all.iter().skip(start).filter(|(own, _)| selects(&labels, &own.labels));
    let shown: Vec<_> = left.by_ref().take(size).collect();
    let next = shown.last().filter(|_| left.next().is_some()).map(|(own, _)| own.quota.resource.clone());
    Ok(v1::ListQuotasResponse {
        quotas: shown.iter().map(|(own, available)| out(own, *available)).collect(),
        next_page_token: next.unwrap_or_default(),
    })
}

fn parse(field: &str, quota: &str) -> Result<(TenantId, String)> {
    let (tenant, resource) = name::quota(field, quota)?;
    if is_resource(&resource) {
        return Ok((tenant, resource));
    }
    let plain = PLAIN.join(", ");
    let devices = "gpus, gpus/{model}, gpu_slices/{model}/{profile}, gpu_memory_mib, devices/{pool}";
    Err(Error::invalid(field, format!("`{resource}` is no resource that is counted; these are: {plain}, {devices}")))
}
