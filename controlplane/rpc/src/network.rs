//! Networks. Operators define them and grant them to tenants; a tenant sees those that it, or a tenant below it, may
//! attach to, and of the grants only those that concern it.

mod update;

use croft_core::audit::Call;
use croft_core::id::TenantId;
use croft_core::meta::Meta;
use croft_core::network::{self, Network};
use croft_core::validate::Violations;
use croft_core::{Error, Result, name};
use croft_proto::v1;
use tonic::{Request, Response, Status};

use crate::api::Api;
use crate::caller::Caller;
use crate::convert::meta;
use crate::convert::network::out;
use crate::mutation::{mutate, read};
use crate::page::page;

const DESCRIPTION_MAX: usize = 1000;
const GRANTS_MAX: usize = 10_000;

#[tonic::async_trait]
impl v1::networks_server::Networks for Api {
    async fn get_network(&self, request: Request<v1::GetNetworkRequest>) -> Result<Response<v1::Network>, Status> {
        read(self, request, get).await
    }

    async fn list_networks(
        &self,
        request: Request<v1::ListNetworksRequest>,
    ) -> Result<Response<v1::ListNetworksResponse>, Status> {
        read(self, request, list).await
    }

    async fn create_network(
        &self,
        request: Request<v1::CreateNetworkRequest>,
    ) -> Result<Response<v1::Network>, Status> {
        mutate(self, request, create).await
    }

    async fn update_network(
        &self,
        request: Request<v1::UpdateNetworkRequest>,
    ) -> Result<Response<v1::Network>, Status> {
        mutate(self, request, update::update).await
    }

    async fn delete_network(
        &self,
        request: Request<v1::DeleteNetworkRequest>,
    ) -> Result<Response<v1::DeleteNetworkResponse>, Status> {
        mutate(self, request, delete).await
    }
}

async fn get(api: Api, caller: Caller, request: v1::GetNetworkRequest) -> Result<v1::Network> {
    let id = name::network("name", &request.name)?;
    let network = api.store().network_get(&id).await?;
    let seen = match network {
        Some(network) => seen(&api, caller.tenant(), network).await?,
        None => None,
    };
    seen.map(|network| out(&network)).ok_or_else(|| Error::not_found(request.name))
}

/// A page of a tenant's may be short or even empty before the end: what it may not see is left out of it.
async fn list(api: Api, caller: Caller, request: v1::ListNetworksRequest) -> Result<v1::ListNetworksResponse> {
    let page = page(request.page_size, request.page_token)?;
    let (found, next) = api.store().network_list(&page).await?;
    let mut networks = Vec::new();
    for network in found {
        networks.extend(seen(&api, caller.tenant(), network).await?.map(|network| out(&network)));
    }
    Ok(v1::ListNetworksResponse { networks, next_page_token: next.unwrap_or_default() })
}

/// The network as the caller may see it, if at all: with the grants to its own tenant, to what is below, and to its
/// ancestors.
async fn seen(api: &Api, own: Option<&TenantId>, mut network: Network) -> Result<Option<Network>> {
    let Some(own) = own else {
        return Ok(Some(network));
    };
    let mut grants = Vec::new();
    for granted in std::mem::take(&mut network.granted_tenants) {
        let related = granted == *own
            || api.store().tenant_within(own, &granted).await?
            || api.store().tenant_within(&granted, own).await?;
        if related {
            grants.push(granted);
        }
    }
    network.granted_tenants = grants;
    Ok(Some(network).filter(|network| !network.granted_tenants.is_empty()))
}

async fn create(api: Api, call: Call, request: v1::CreateNetworkRequest) -> Result<v1::Network> {
    let wire = request.network.unwrap_or_default();
    let mut violations = Violations::new();
    violations.check_slug(&request.network_id, network::ID_MAX, "network_id");
    violations.check(
        request.network_id != network::DEFAULT,
        "network_id",
        "networks/default is each tenant's own NAT network, which needs no definition",
    );
    violations.check(
        network::is_bridge_name(&wire.bridge),
        "network.bridge",
        format!("the name of a bridge on the hosts, 1 to {} of [A-Za-z0-9._-], not cr-…", network::BRIDGE_MAX),
    );
    violations.check(
        (0..=network::VLAN_MAX).contains(&wire.vlan),
        "network.vlan",
        format!("0 (untagged) to {}, not {}", network::VLAN_MAX, wire.vlan),
    );
    check_description(&wire.description, &mut violations);
    let sent = meta::into("network", wire.metadata, &mut violations);
    let granted_tenants = grants(&wire.granted_tenants, &mut violations);
    violations.finish()?;

    let now = api.store().now();
    let uid = uuid_at(now);
    let network = Network {
        id: request.network_id.as_str().into(),
        meta: Meta::new(uid, sent.labels, sent.annotations, now),
        description: wire.description,
        bridge: wire.bridge,
        vlan: wire.vlan,
        granted_tenants,
    };
    Ok(out(&api.store().network_create(&call, network).await?.into_inner()))
}

/// Networks are found by their id alone, so their uid needs no type of its own.
fn uuid_at(now: croft_core::Timestamp) -> String {
    croft_core::id::ImageUid::new(now).to_string()
}

fn check_description(text: &str, violations: &mut Violations) {
    violations.check(
        text.chars().count() <= DESCRIPTION_MAX,
        "network.description",
        format!("at most {DESCRIPTION_MAX} characters"),
    );
}

/// Sorted, each once.
fn grants(names: &[String], violations: &mut Violations) -> Vec<TenantId> {
    violations.check(names.len() <= GRANTS_MAX, "network.granted_tenants", format!("at most {GRANTS_MAX}"));
    let mut granted = Vec::new();
    for (at, name) in names.iter().enumerate().take(GRANTS_MAX) {
        let field = format!("network.granted_tenants[{at}]");
        match name::tenant(&field, name) {
            Ok(tenant) => granted.push(tenant),
            Err(_) => violations.add(field, format!("`{name}` is not of the form tenants/…")),
        }
    }
    granted.sort();
    granted.dedup();
    granted
}

async fn delete(api: Api, call: Call, request: v1::DeleteNetworkRequest) -> Result<v1::DeleteNetworkResponse> {
    let id = name::network("name", &request.name)?;
    api.store().network_delete(&call, &id, &request.etag).await?;
    Ok(v1::DeleteNetworkResponse {})
}
