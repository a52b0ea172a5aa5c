//! Quotas: limit and use per (tenant, resource). A tenant's own limits are set above it, by its parent's admins.

use croft_core::audit::Call;
use croft_core::id::TenantId;
use croft_core::quota::{LIMIT_MAX, PLAIN, is_resource};
use croft_core::{Error, Reason, Result, name};
use croft_proto::v1;
use tonic::{Request, Response, Status};

use crate::api::Api;
use crate::caller::Caller;
use crate::convert::quota::out;
use crate::mutation::{mutate, read};
use crate::page::page;
use crate::scope;

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
        mutate(self, request, |api, call, request: v1::SetQuotaRequest| async move {
            if !(0..=LIMIT_MAX).contains(&request.limit) {
                return Err(Error::invalid("limit", format!("0 to {LIMIT_MAX}; ClearQuota takes a limit away")));
            }
            set(api, call, &request.name, &request.etag, Some(request.limit)).await
        })
        .await
    }

    async fn clear_quota(&self, request: Request<v1::ClearQuotaRequest>) -> Result<Response<v1::Quota>, Status> {
        mutate(self, request, |api, call, request: v1::ClearQuotaRequest| async move {
            set(api, call, &request.name, &request.etag, None).await
        })
        .await
    }
}

async fn get(api: Api, caller: Caller, request: v1::GetQuotaRequest) -> Result<v1::Quota> {
    let (tenant, resource) = parse(&request.name)?;
    api.see(&caller.principal, &tenant, &request.name).await?;
    let quota = api.store().quota_get(&tenant, &resource).await?;
    let available = api.store().quota_available(&tenant, &resource).await?;
    Ok(out(&quota, available))
}

/// There are a handful, so the store gives them all and the page is cut here; its token is the last one's resource.
async fn list(api: Api, caller: Caller, request: v1::ListQuotasRequest) -> Result<v1::ListQuotasResponse> {
    let page = page(request.page_size, request.page_token)?;
    let tenant = name::tenant("parent", &request.parent)?;
    api.see(&caller.principal, &tenant, &request.parent).await?;
    let all = api.store().quota_list(&tenant).await?;
    let start = match page.token {
        None => 0,
        Some(token) => match all.iter().position(|(quota, _)| quota.resource == token) {
            Some(at) => at + 1,
            None => {
                let message = "page_token is not one that this list gave; begin again without it".to_owned();
                return Err(Error::OutOfRange { reason: Reason::PageTokenInvalid, message });
            }
        },
    };
    let size = usize::try_from(page.size).unwrap_or(usize::MAX);
    let shown: Vec<_> = all.iter().skip(start).take(size).collect();
    let next = shown.last().filter(|_| start + shown.len() < all.len()).map(|(quota, _)| quota.resource.clone());
    Ok(v1::ListQuotasResponse {
        quotas: shown.iter().map(|(quota, available)| out(quota, *available)).collect(),
        next_page_token: next.unwrap_or_default(),
    })
}

async fn set(api: Api, call: Call, quota: &str, etag: &str, limit: Option<i64>) -> Result<v1::Quota> {
    let (tenant, resource) = parse(quota)?;
    api.see(&call.principal, &tenant, quota).await?;
    scope::strictly_above(&call.principal, &tenant, "a tenant's quota")?;
    let done = api.store().quota_set(&call, &tenant, &resource, etag, limit).await?;
    let available = api.store().quota_available(&tenant, &resource).await?;
    Ok(out(&done.into_inner(), available))
}

fn parse(quota: &str) -> Result<(TenantId, String)> {
    let (tenant, resource) = name::quota("name", quota)?;
    if is_resource(&resource) {
        return Ok((tenant, resource));
    }
    Err(Error::invalid("name", format!("`{resource}` is no resource that is counted; these are: {}", PLAIN.join(", "))))
}
