//! Pools. Operators define them; a tenant sees those that it, or a tenant below it, was granted by a limit above 0 on
//! `devices/{pool}`, without what they say about hosts.

mod update;

use std::collections::BTreeSet;

use croft_core::audit::Call;
use croft_core::device::{POOL_ID_MAX, Pool};
use croft_core::id::{ImageUid, PoolId, TenantId};
use croft_core::meta::Meta;
use croft_core::validate::Violations;
use croft_core::{Error, Result, name};
use croft_proto::v1;
use tonic::{Request, Response, Status};

use crate::api::Api;
use crate::caller::Caller;
use crate::convert::meta;
use crate::convert::pool::{match_into, out};
use crate::mutation::{mutate, read};
use crate::page::page;

const DESCRIPTION_MAX: usize = 1000;

#[tonic::async_trait]
impl v1::pools_server::Pools for Api {
    async fn get_pool(&self, request: Request<v1::GetPoolRequest>) -> Result<Response<v1::Pool>, Status> {
        read(self, request, get).await
    }

    async fn list_pools(
        &self,
        request: Request<v1::ListPoolsRequest>,
    ) -> Result<Response<v1::ListPoolsResponse>, Status> {
        read(self, request, list).await
    }

    async fn create_pool(&self, request: Request<v1::CreatePoolRequest>) -> Result<Response<v1::Pool>, Status> {
        mutate(self, request, create).await
    }

    async fn update_pool(&self, request: Request<v1::UpdatePoolRequest>) -> Result<Response<v1::Pool>, Status> {
        mutate(self, request, update::update).await
    }

    async fn delete_pool(
        &self,
        request: Request<v1::DeletePoolRequest>,
    ) -> Result<Response<v1::DeletePoolResponse>, Status> {
        mutate(self, request, delete).await
    }
}

async fn get(api: Api, caller: Caller, request: v1::GetPoolRequest) -> Result<v1::Pool> {
    let id = name::pool("name", &request.name)?;
    let granted = granted(&api, caller.tenant()).await?;
    let pool = api.store().pool_get(&id).await?.and_then(|pool| seen(&granted, &pool));
    pool.ok_or_else(|| Error::not_found(request.name))
}

/// A page of a tenant's may be short or even empty before the end: what it may not see is left out of it.
async fn list(api: Api, caller: Caller, request: v1::ListPoolsRequest) -> Result<v1::ListPoolsResponse> {
    let page = page(request.page_size, request.page_token)?;
    let granted = granted(&api, caller.tenant()).await?;
    let (pools, next) = api.store().pool_list(&page).await?;
    Ok(v1::ListPoolsResponse {
        pools: pools.iter().filter_map(|pool| seen(&granted, pool)).collect(),
        next_page_token: next.unwrap_or_default(),
    })
}

/// `None`: whoever sees the whole plane.
async fn granted(api: &Api, own: Option<&TenantId>) -> Result<Option<BTreeSet<PoolId>>> {
    match own {
        Some(own) => Ok(Some(granted_within(api, own).await?)),
        None => Ok(None),
    }
}

async fn granted_within(api: &Api, own: &TenantId) -> Result<BTreeSet<PoolId>> {
    let mut granted = BTreeSet::new();
    for quota in api.store().quota_all().await? {
        let Some(pool) = quota.resource.strip_prefix("devices/").map(PoolId::from) else { continue };
        let grants = quota.limit.is_some_and(|limit| limit > 0) && !granted.contains(&pool);
        if grants && (quota.tenant == *own || api.store().tenant_within(&quota.tenant, own).await?) {
            granted.insert(pool);
        }
    }
    Ok(granted)
}

fn seen(granted: &Option<BTreeSet<PoolId>>, pool: &Pool) -> Option<v1::Pool> {
    let mut shown = out(pool);
    let Some(granted) = granted else { return Some(shown) };
    if !granted.contains(&pool.id) {
        return None;
    }
    // Which machines there are is no tenant's business; what it was given is in its instances.
    let matches = shown.r#match.get_or_insert_default();
    matches.devices.clear();
    matches.host_selector.clear();
    Some(shown)
}

async fn create(api: Api, call: Call, request: v1::CreatePoolRequest) -> Result<v1::Pool> {
    let wire = request.pool.unwrap_or_default();
    let mut violations = Violations::new();
    violations.check_slug(&request.pool_id, POOL_ID_MAX, "pool_id");
    check_description(&wire.description, &mut violations);
    let sent = meta::into("pool", wire.metadata, &mut violations);
    let matches = match_into(wire.r#match.unwrap_or_default(), &mut violations);
    violations.finish()?;
    let matches = matches.ok_or_else(|| Error::internal("a match without a complaint that is none"))?;

    let now = api.store().now();
    let pool = Pool {
        id: request.pool_id.as_str().into(),
        // Pools are found by their id alone, so their uid needs no type of its own.
        meta: Meta::new(ImageUid::new(now).to_string(), sent.labels, sent.annotations, now),
        description: wire.description,
        matches,
    };
    let pool = api.store().pool_create(&call, pool).await?.into_inner();
    api.deps.wake.hosts();
    Ok(out(&pool))
}

fn check_description(text: &str, violations: &mut Violations) {
    violations.check(
        text.chars().count() <= DESCRIPTION_MAX,
        "pool.description",
        format!("at most {DESCRIPTION_MAX} characters"),
    );
}

async fn delete(api: Api, call: Call, request: v1::DeletePoolRequest) -> Result<v1::DeletePoolResponse> {
    let id = name::pool("name", &request.name)?;
    api.store().pool_delete(&call, &id, &request.etag).await?;
    api.deps.wake.hosts();
    Ok(v1::DeletePoolResponse {})
}
