//! Everything that a batch refers to, read before the first decision.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use croft_core::id::{HostId, NetworkId, TenantId};
use croft_core::image::Image;
use croft_core::network::{self, Network};
use croft_core::quota::Quota;
use croft_core::{Result, name};
use sqlx::AnyConnection;

use super::ClaimRequest;
use crate::host::claimed;
use crate::quota::of_tenants;
use crate::sql::{Sql, sql};
use crate::{image, network as networks, tenant};

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
    pub versions: BTreeMap<HostId, i64>,
    /// Logical CPUs that somebody has to himself.
    pub dedicated: HashSet<(HostId, i32)>,
}

#[derive(sqlx::FromRow)]
struct CallRow {
    actor: String,
    method: String,
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
            versions: versions(conn, requests).await?,
            dedicated: dedicated(conn, requests).await?,
        })
    }
}

/// `… IN (VALUES ($n, …), …)`
fn tuples<const N: usize>(mut statement: Sql, rows: &[[&str; N]]) -> Sql {
    // As with lists: few lengths, so that the texts come again.
    let filler = rows.len().next_power_of_two() - rows.len();
    statement = statement.push("(VALUES ");
    for (at, row) in rows.iter().chain(rows.iter().cycle().take(filler)).enumerate() {
        statement = statement.push(if at == 0 { "(" } else { ", (" });
        for cell in row {
            statement = statement.cell(*cell);
        }
        statement = statement.push(")");
    }
    statement.push(")")
}

async fn calls(conn: &mut AnyConnection, requests: &[ClaimRequest]) -> Result<HashMap<Key, (String, String)>> {
    let keys: Vec<Key> = requests.iter().filter_map(key).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let cells: Vec<[&str; 3]> = keys.iter().map(|(a, b, c)| [a.as_str(), b.as_str(), c.as_str()]).collect();
    let statement = sql("SELECT actor, method, request_id, body_digest, answer
                         FROM idempotency
                         WHERE (actor, method, request_id) IN ");
    let rows: Vec<CallRow> = tuples(statement, &cells).all(conn).await?;
    Ok(rows.into_iter().map(|row| ((row.actor, row.method, row.request_id), (row.body_digest, row.answer))).collect())
}

async fn taken(conn: &mut AnyConnection, requests: &[ClaimRequest]) -> Result<HashSet<(TenantId, String)>> {
    let cells: Vec<[&str; 2]> =
        requests.iter().map(|request| [request.new.tenant.as_str(), request.new.id.as_str()]).collect();
    let statement = sql("SELECT tenant, id FROM instances WHERE (tenant, id) IN ");
    let rows: Vec<(String, String)> = tuples(statement, &cells).all(conn).await?;
    Ok(rows.into_iter().map(|(tenant, id)| (TenantId(tenant), id)).collect())
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

fn hosts(requests: &[ClaimRequest], wanted: impl Fn(&ClaimRequest) -> bool) -> Vec<HostId> {
    let hosts: BTreeSet<&HostId> = requests
        .iter()
        .filter(|request| wanted(request))
        .filter_map(|request| request.placed.as_ref().ok().map(|(placement, ..)| &placement.host))
        .collect();
    hosts.into_iter().cloned().collect()
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
    let hosts =
        hosts(requests, |request| request.placed.as_ref().is_ok_and(|(_, claim, _)| !claim.dedicated.is_empty()));
    if hosts.is_empty() {
        return Ok(HashSet::new());
    }
    Ok(claimed::dedicated(conn, &hosts).await?.into_iter().collect())
}
