//! Pools. Operators define them; a tenant sees those that it, or a tenant below it, was granted by a limit above 0 on
//! `devices/{pool}`, without what they say about hosts.

mod update;

use croft_core::audit::Call;
use croft_core::device::{POOL_ID_MAX, Pool};
use croft_core::id::ImageUid;
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
    let pool = match caller.tenant() {
        None => api.store().pool_get(&id).await?,
        Some(own) => api.store().pool_seen(&id, own).await?,
    };
    pool.map(|pool| shown(&pool, &caller)).ok_or_else(|| Error::not_found(request.name))
}

async fn list(api: Api, caller: Caller, request: v1::ListPoolsRequest) -> Result<v1::ListPoolsResponse> {
    let page = page(request.page_size, request.page_token)?;
    let (pools, next) = api.store().pool_list(caller.tenant(), &page).await?;
    Ok(v1::ListPoolsResponse {
        pools: pools.iter().map(|pool| shown(pool, &caller)).collect(),
        next_page_token: next.unwrap_or_default(),
    })
}

/// Which machines there are is no tenant's business; what it was given is in its instances.
fn shown(pool: &Pool, caller: &Caller) -> v1::Pool {
    let mut shown = out(pool);
    if caller.tenant().is_some() {
        let matches = shown.r#match.get_or_insert_default();
        matches.devices.clear();
        matches.host_selector.clear();
    }
    shown
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
