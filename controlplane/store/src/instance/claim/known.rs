//! Everything that a batch refers to, read before the first decision.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use croft_core::cluster::Cluster;
use croft_core::device::Assignment;
use croft_core::id::{HostId, NetworkId, TenantId};
use croft_core::image::Image;
use croft_core::network::{self, Network};
use croft_core::placement::view::Claim;
use croft_core::quota::Quota;
use croft_core::{Error, Result, name};
use sqlx::AnyConnection;

use super::ClaimRequest;
use crate::device::claimed::Holdings;
use crate::host::claimed;
use crate::pool::claimed::Pools;
use crate::quota::of_tenants;
use crate::sql::sql;
use crate::{cluster, image, network as networks, tenant};

/// (actor, method, request id)
pub(super) type Key = (String, String, String);

pub(super) fn key(request: &ClaimRequest) -> Option<Key> {
    let call = &request.call;
    (!call.request_id.is_empty()).then(|| (call.principal.actor(), call.method.to_owned(), call.request_id.clone()))
}

#[derive(Debug)]
pub(super) struct Known {
    /// Body digest and answer of calls that were made before.
    pub calls: HashMap<Key, (String, String)>,
    /// Itself and all above it; those that do not exist are missing.
    pub lineages: BTreeMap<TenantId, Vec<TenantId>>,
    pub quotas: BTreeMap<(TenantId, String), Quota>,
    pub taken: HashSet<(TenantId, String)>,
    pub images: HashMap<String, Image>,
    pub networks: HashMap<NetworkId, Network>,
    /// Clusters that somebody's instance is to join, or why it may not.
    pub clusters: BTreeMap<(TenantId, String), Result<Cluster>>,
    pub versions: BTreeMap<HostId, i64>,
    /// Logical CPUs that somebody has to himself.
    pub dedicated: HashSet<(HostId, i32)>,
    /// Of hosts where the batch wants devices.
    pub holdings: Holdings,
    /// Those that the batch takes from.
    pub pools: Pools,
}

#[derive(sqlx::FromRow)]
struct CallRow {
    request_id: String,
    body_digest: String,
    answer: String,
}

impl Known {
    pub async fn read(conn: &mut AnyConnection, requests: &[ClaimRequest]) -> Result<Self> {
        let mut lineages = BTreeMap::new();
        for id in requests.iter().map(|request| &request.new.tenant).collect::<BTreeSet<_>>() {
            let lineage = tenant::ancestors(conn, id).await?;
            if !lineage.is_empty() {
                lineages.insert(id.clone(), lineage);
            }
        }
        let tenants: BTreeSet<TenantId> = lineages.values().flatten().cloned().collect();
        let quotas = of_tenants(conn, &tenants.into_iter().collect::<Vec<_>>()).await?;
        Ok(Self {
            calls: calls(conn, requests).await?,
            lineages,
            quotas: quotas.into_iter().map(|row| ((row.tenant.clone(), row.resource.clone()), row)).collect(),
            taken: taken(conn, requests).await?,
            images: images(conn, requests).await?,
            networks: known_networks(conn, requests).await?,
            clusters: clusters(conn, requests).await?,
            versions: versions(conn, requests).await?,
            dedicated: dedicated(conn, requests).await?,
            holdings: Holdings::read(
                conn,
                &hosts(requests, |request| wants(request, |claim| !claim.devices.is_empty())),
            )
            .await?,
            pools: Pools::read(conn, &placed(requests)).await?,
        })
    }
}

fn placed(requests: &[ClaimRequest]) -> Vec<(&HostId, &[Assignment])> {
    let placed = requests.iter().filter_map(|request| request.placed.as_ref().ok());
    placed.map(|(placement, ..)| (&placement.host, placement.devices.as_slice())).collect()
}

async fn calls(conn: &mut AnyConnection, requests: &[ClaimRequest]) -> Result<HashMap<Key, (String, String)>> {
    // By caller and method, so that each is a search of the index; a list of tuples would be a scan of all of it.
    let mut asked: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (actor, method, request_id) in requests.iter().filter_map(key) {
        asked.entry((actor, method)).or_default().push(request_id);
    }
    let mut calls = HashMap::new();
    for ((actor, method), ids) in asked {
        let rows: Vec<CallRow> = sql("SELECT request_id, body_digest, answer
                                      FROM idempotency
                                      WHERE actor = $1 AND method = $2 AND request_id IN ")
        .bind(&actor)
        .bind(&method)
        .list(&ids)
        .all(conn)
        .await?;
        for row in rows {
            calls.insert((actor.clone(), method.clone(), row.request_id), (row.body_digest, row.answer));
        }
    }
    Ok(calls)
}

async fn taken(conn: &mut AnyConnection, requests: &[ClaimRequest]) -> Result<HashSet<(TenantId, String)>> {
    let mut asked: BTreeMap<&TenantId, Vec<&str>> = BTreeMap::new();
    for request in requests {
        asked.entry(&request.new.tenant).or_default().push(&request.new.id);
    }
    let mut taken = HashSet::new();
    for (tenant, ids) in asked {
        let rows: Vec<(String,)> =
            sql("SELECT id FROM instances WHERE tenant = $1 AND id IN ").bind(tenant).list(&ids).all(conn).await?;
        taken.extend(rows.into_iter().map(|(id,)| (tenant.clone(), id)));
    }
    Ok(taken)
}

async fn images(conn: &mut AnyConnection, requests: &[ClaimRequest]) -> Result<HashMap<String, Image>> {
    let mut images = HashMap::new();
    for wanted in requests.iter().map(|request| request.new.spec.image.as_str()).collect::<BTreeSet<_>>() {
        // What is no name of an image names none; `check` says so.
        if name::image("image", wanted).is_ok()
            && let Some(image) = image::get(conn, wanted).await?
        {
            images.insert(wanted.to_owned(), image);
        }
    }
    Ok(images)
}

async fn known_networks(conn: &mut AnyConnection, requests: &[ClaimRequest]) -> Result<HashMap<NetworkId, Network>> {
    let ids: BTreeSet<NetworkId> = requests
        .iter()
        .flat_map(|request| request.new.spec.interfaces.iter())
        .map(|interface| interface.network.clone())
        .filter(|id| id.as_str() != network::DEFAULT)
        .collect();
    let found = networks::by_ids(conn, &ids.into_iter().collect::<Vec<_>>()).await?;
    Ok(found.into_iter().map(|network| (network.id.clone(), network)).collect())
}

async fn clusters(
    conn: &mut AnyConnection,
    requests: &[ClaimRequest],
) -> Result<BTreeMap<(TenantId, String), Result<Cluster>>> {
    let mut found = BTreeMap::new();
    for request in requests {
        let Some(wish) = &request.new.spec.node else { continue };
        let key = (request.new.tenant.clone(), wish.cluster.clone());
        if found.contains_key(&key) {
            continue;
        }
        match cluster::joinable(conn, &wish.cluster, &request.new.tenant).await {
            Err(error @ (Error::Internal { .. } | Error::Unavailable { .. })) => return Err(error),
            answer => found.insert(key, answer),
        };
    }
    Ok(found)
}

fn hosts(requests: &[ClaimRequest], wanted: impl Fn(&ClaimRequest) -> bool) -> Vec<HostId> {
    let hosts: BTreeSet<&HostId> = requests
        .iter()
        .filter(|request| wanted(request))
        .filter_map(|request| request.placed.as_ref().ok().map(|(placement, ..)| &placement.host))
        .collect();
    hosts.into_iter().cloned().collect()
}

fn wants(request: &ClaimRequest, what: impl Fn(&Claim) -> bool) -> bool {
    request.placed.as_ref().is_ok_and(|(_, claim, _)| what(claim))
}

async fn versions(conn: &mut AnyConnection, requests: &[ClaimRequest]) -> Result<BTreeMap<HostId, i64>> {
    let hosts = hosts(requests, |_| true);
    if hosts.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows: Vec<(String, i64)> = sql("SELECT id, version FROM hosts WHERE id IN ").list(&hosts).all(conn).await?;
    Ok(rows.into_iter().map(|(id, version)| (HostId(id), version)).collect())
}

/// Asked only when the batch wants CPUs of its own.
async fn dedicated(conn: &mut AnyConnection, requests: &[ClaimRequest]) -> Result<HashSet<(HostId, i32)>> {
    let hosts = hosts(requests, |request| wants(request, |claim| !claim.dedicated.is_empty()));
    if hosts.is_empty() {
        return Ok(HashSet::new());
    }
    Ok(claimed::dedicated(conn, &hosts).await?.into_iter().collect())
}
