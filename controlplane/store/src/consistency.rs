//! Whether the rows agree with each other. For tests, and for `croft-controlplane admin check`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use croft_core::Result;
use croft_core::device::{Assignment, Mode};
use croft_core::id::HostId;
use croft_core::instance::Instance;
use croft_core::join::machine::power_told;
use croft_core::maintenance::parked;
use croft_core::placement::view::Claim;
use croft_core::quota::device;
use sqlx::AnyConnection;

use crate::column::from_json;
use crate::device::{ModeRow, select_gpu_modes};
use crate::host::claimed::CPU;
use crate::instance::{Row as InstanceRow, select_instances};
use crate::open::Store;
use crate::sql::sql;

type Faults = Vec<String>;

#[derive(sqlx::FromRow)]
struct Amount {
    tenant: String,
    resource: String,
    amount: i64,
}

#[derive(sqlx::FromRow)]
struct HeldRow {
    instance_uid: String,
    host: String,
    claim: String,
}

#[derive(sqlx::FromRow)]
struct ClaimedRow {
    id: String,
    claimed_vcpus: i64,
    claimed_memory_mib: i64,
    claimed_disk_gib: i64,
    vcpus: i64,
    memory_mib: i64,
    disk_gib: i64,
}

impl Store {
    /// A sentence for everything that is wrong; empty when nothing is.
    pub async fn consistency(&self) -> Result<Vec<String>> {
        let mut tx = self.snapshot().await?;
        let rows: Vec<InstanceRow> = sql(select_instances!("ORDER BY uid")).all(&mut tx).await?;
        let instances: Vec<Instance> = rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        let mut faults = Faults::new();
        check_file(&mut tx, self.inner.dialect.self_check(), &mut faults).await?;
        check_tree(&mut tx, &mut faults).await?;
        check_nodes(&mut tx, &instances, &mut faults).await?;
        check_parked(&mut tx, &instances, &mut faults).await?;
        check_used(&mut tx, &mut faults).await?;
        check_charges(&mut tx, &instances, &mut faults).await?;
        check_claims(&mut tx, &instances, &mut faults).await?;
        check_gpus(&mut tx, &mut faults).await?;
        check_hosts(&mut tx, &mut faults).await?;
        check_operations(&mut tx, &mut faults).await?;
        check_secrets(&mut tx, &instances, &mut faults).await?;
        check_history(&mut tx, &mut faults).await?;
        Ok(faults)
    }
}

async fn check_file(conn: &mut AnyConnection, ask: &'static str, faults: &mut Faults) -> Result<()> {
    let rows: Vec<(String,)> = sql(ask).all(conn).await?;
    faults.extend(rows.into_iter().filter(|(row,)| row != "ok").map(|(row,)| format!("the database file: {row}")));
    Ok(())
}

/// The table of ancestors says what the parents say.
async fn check_tree(conn: &mut AnyConnection, faults: &mut Faults) -> Result<()> {
    let parents: Vec<(String, Option<String>)> = sql("SELECT id, parent FROM tenants").all(conn).await?;
    let parents: BTreeMap<String, Option<String>> = parents.into_iter().collect();
    let pairs: Vec<(String, String)> = sql("SELECT t.id AS tenant, above.id AS ancestor
                                            FROM tenant_ancestors a
                                            JOIN tenants t ON t.uid = a.tenant_uid
                                            JOIN tenants above ON above.uid = a.ancestor_uid
                                            ORDER BY t.id, a.distance")
    .all(conn)
    .await?;
    let mut lineages: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (tenant, ancestor) in pairs {
        lineages.entry(tenant).or_default().push(ancestor);
    }
    for tenant in parents.keys() {
        let expected: Vec<&String> =
            std::iter::successors(Some(tenant), |id| parents.get(*id).and_then(Option::as_ref)).collect();
        let found: Vec<&String> = lineages.get(tenant).into_iter().flatten().collect();
        if expected != found {
            faults.push(format!("tenants/{tenant}: its ancestors are {expected:?}, the table says {found:?}"));
        }
    }
    Ok(())
}

/// What joins a cluster has a record of its node, and is found by that cluster.
async fn check_nodes(conn: &mut AnyConnection, instances: &[Instance], faults: &mut Faults) -> Result<()> {
    let rows: Vec<(String, String)> =
        sql("SELECT uid, cluster_uid FROM instances WHERE cluster_uid IS NOT NULL").all(conn).await?;
    let found: BTreeMap<String, String> = rows.into_iter().collect();
    for instance in instances {
        let wished = instance.spec.node.as_ref().map(|wish| &wish.cluster_uid);
        if wished != found.get(&instance.uid.to_string()) || wished.is_some() != instance.node.is_some() {
            faults.push(format!("{}: its node, its wish and its cluster do not agree", instance.name()));
        }
        let kept = instance.node.as_ref().map(|node| (node.power_told.power, node.power_told.generation));
        if kept.is_some_and(|kept| kept != power_told(instance)) {
            let told = power_told(instance);
            faults.push(format!("{}: its host is told {told:?}, and its node's record says {kept:?}", instance.name()));
        }
    }
    Ok(())
}

/// `used` is the sum of the charges of the tenant and all below it.
/// Whoever is on a host under maintenance is parked, and nobody else is.
async fn check_parked(conn: &mut AnyConnection, instances: &[Instance], faults: &mut Faults) -> Result<()> {
    let hosts: Vec<(String,)> = sql("SELECT id FROM hosts WHERE maintenance IS NOT NULL").all(conn).await?;
    let hosts: BTreeSet<HostId> = hosts.into_iter().map(|(id,)| HostId(id)).collect();
    for instance in instances.iter().filter(|instance| instance.meta.delete_time.is_none()) {
        let drained = instance.host().is_some_and(|host| hosts.contains(host));
        if drained != parked(instance).is_some() {
            faults.push(format!("{}: it and its host do not agree on the host's maintenance", instance.name()));
        }
    }
    Ok(())
}

async fn check_used(conn: &mut AnyConnection, faults: &mut Faults) -> Result<()> {
    let sums: Vec<Amount> = sql("SELECT above.id AS tenant, c.resource, CAST(SUM(c.amount) AS BIGINT) AS amount
                                 FROM charges c
                                 JOIN tenants t ON t.id = c.tenant
                                 JOIN tenant_ancestors a ON a.tenant_uid = t.uid
                                 JOIN tenants above ON above.uid = a.ancestor_uid
                                 GROUP BY above.id, c.resource")
    .all(conn)
    .await?;
    let used: Vec<Amount> =
        sql("SELECT tenant, resource, used AS amount FROM quotas WHERE used <> 0").all(conn).await?;
    let table = |rows: Vec<Amount>| -> BTreeMap<(String, String), i64> {
        rows.into_iter().map(|row| ((row.tenant, row.resource), row.amount)).collect()
    };
    let (sums, used) = (table(sums), table(used));
    for key in sums.keys().chain(used.keys()).collect::<BTreeSet<_>>() {
        let (sum, counter) = (sums.get(key).unwrap_or(&0), used.get(key).unwrap_or(&0));
        if sum != counter {
            faults.push(format!("quota {} of tenants/{}: used is {counter}, the charges are {sum}", key.1, key.0));
        }
    }
    Ok(())
}

/// Every instance is charged for its shape and its exact devices, under its own tenant.
async fn check_charges(conn: &mut AnyConnection, instances: &[Instance], faults: &mut Faults) -> Result<()> {
    let rows: Vec<(String, String, String, i64)> =
        sql("SELECT holder_uid, tenant, resource, amount FROM charges").all(conn).await?;
    let mut held: HashMap<String, BTreeMap<String, i64>> = HashMap::new();
    let tenants: HashMap<String, &str> =
        instances.iter().map(|instance| (instance.uid.to_string(), instance.tenant.as_str())).collect();
    for (holder, tenant, resource, amount) in rows {
        if tenants.get(&holder) != Some(&tenant.as_str()) {
            faults.push(format!("instance {holder} is charged to tenants/{tenant}, which it is not of"));
        }
        held.entry(holder).or_default().insert(resource, amount);
    }
    for instance in instances {
        let found = held.remove(&instance.uid.to_string()).unwrap_or_default();
        let mut expected = instance.spec.charges();
        expected.extend(device::total(pieces(instance)));
        if found != expected {
            faults.push(format!("{}: charged {found:?} for {expected:?}", instance.name()));
        }
    }
    Ok(())
}

/// An instance with a host has a claim there and its exact pieces; one without has none.
async fn check_claims(conn: &mut AnyConnection, instances: &[Instance], faults: &mut Faults) -> Result<()> {
    let rows: Vec<HeldRow> = sql("SELECT instance_uid, host, claim FROM host_claims").all(conn).await?;
    let mut claims: HashMap<String, (String, Claim)> = HashMap::new();
    for row in rows {
        claims.insert(row.instance_uid, (row.host, from_json(&row.claim, "host_claims.claim")?));
    }
    let rows: Vec<(String, String, String, String)> =
        sql("SELECT instance_uid, host, device, atom FROM device_claims").all(conn).await?;
    let mut atoms: HashMap<String, BTreeSet<(String, String, String)>> = HashMap::new();
    for (uid, host, device, atom) in rows {
        atoms.entry(uid).or_default().insert((host, device, atom));
    }
    let columns: Vec<(String, Option<String>)> = sql("SELECT uid, host FROM instances").all(conn).await?;
    let columns: HashMap<String, Option<String>> = columns.into_iter().collect();
    for instance in instances {
        let (name, uid) = (instance.name(), instance.uid.to_string());
        let placed = instance.host().map(HostId::as_str);
        if columns.get(&uid).and_then(Option::as_deref) != placed {
            faults.push(format!("{name}: placed on {placed:?}, its row says otherwise"));
        }
        let claim = claims.remove(&uid);
        if claim.as_ref().map(|(host, _)| host.as_str()) != placed {
            faults.push(format!("{name}: placed on {placed:?}, claims {:?}", claim.as_ref().map(|(host, _)| host)));
        }
        check_pieces(instance, claim.as_ref().map(|(_, claim)| claim), faults);
        let expected: BTreeSet<_> = claim.iter().flat_map(|(host, claim)| atoms_of(host, claim)).collect();
        let found = atoms.remove(&uid).unwrap_or_default();
        if expected != found {
            faults.push(format!("{name}: its exact pieces are {expected:?}, the table says {found:?}"));
        }
    }
    Ok(())
}

fn pieces(instance: &Instance) -> &[Assignment] {
    instance.placement.as_ref().map_or(&[], |placement| &placement.devices)
}

/// Rows of `device_claims`.
fn atoms_of(host: &str, claim: &Claim) -> Vec<(String, String, String)> {
    let cpus = claim.dedicated.iter().map(|cpu| (CPU.to_owned(), cpu.to_string()));
    let devices = claim
        .devices
        .iter()
        .flat_map(|claim| claim.atoms.iter().map(|atom| (claim.device.to_string(), atom.to_string())));
    cpus.chain(devices).map(|(device, atom)| (host.to_owned(), device, atom)).collect()
}

/// A placed instance has a piece for each device that it asks for, and claims all of it.
fn check_pieces(instance: &Instance, claim: Option<&Claim>, faults: &mut Faults) {
    let name = instance.name();
    let asked: Vec<&str> = instance.spec.devices.iter().map(|request| request.id.as_str()).collect();
    let given: Vec<&str> = pieces(instance).iter().map(|piece| piece.id.as_str()).collect();
    if instance.placement.is_some() && asked != given {
        faults.push(format!("{name}: asks for the devices {asked:?}, and was given {given:?}"));
    }
    for piece in pieces(instance) {
        let own = (&piece.device, &piece.atoms);
        for (device, atoms) in piece.companions.iter().map(|(device, atoms)| (device, atoms)).chain([own]) {
            let claims = claim.iter().flat_map(|claim| &claim.devices);
            let mut of_it = claims.filter(|one| one.request == piece.id && one.device == *device);
            if !of_it.any(|one| one.atoms == *atoms) {
                faults.push(format!("{name}: was given {device} as `{}`, and does not claim it", piece.id));
            }
        }
    }
    let strangers = instance.intent.detaching.keys().filter(|id| !asked.contains(&id.as_str()));
    faults.extend(strangers.map(|id| format!("{name}: detaches `{id}`, which it does not ask for")));
}

/// Every device that is held is known, and each GPU's row says what its claims add up to.
async fn check_gpus(conn: &mut AnyConnection, faults: &mut Faults) -> Result<()> {
    let unknown: Vec<(String, String)> = sql("SELECT DISTINCT c.host, c.device
                                              FROM device_claims c
                                              LEFT JOIN devices d ON d.host = c.host AND d.device = c.device
                                              WHERE d.device IS NULL AND c.device <> ")
    .push_bind(CPU)
    .all(conn)
    .await?;
    faults.extend(
        unknown.into_iter().map(|(host, device)| format!("hosts/{host}/devices/{device} is held, and unknown")),
    );
    let rows: Vec<(String, String)> = sql("SELECT host, claim FROM host_claims").all(conn).await?;
    let mut promised: BTreeMap<(String, String), (BTreeSet<Mode>, i64)> = BTreeMap::new();
    for (host, text) in rows {
        let claim: Claim = from_json(&text, "host_claims.claim")?;
        for one in claim.devices {
            let Some(mode) = one.mode else { continue };
            let (modes, used) = promised.entry((host.clone(), one.device.to_string())).or_default();
            modes.insert(mode);
            *used += one.framebuffer_mib;
        }
    }
    let modes: Vec<ModeRow> = sql(select_gpu_modes!("ORDER BY host, device")).all(conn).await?;
    for row in modes {
        let (modes, used) = promised.remove(&(row.host.clone(), row.device.clone())).unwrap_or_default();
        let expected = modes.first().copied().unwrap_or_default();
        if modes.len() > 1 || row.mode()? != expected || row.framebuffer_used_mib != used {
            faults.push(format!(
                "hosts/{}/devices/{}: is {} with {} MiB of framebuffer used, its claims are {modes:?} with {used}",
                row.host, row.device, row.mode, row.framebuffer_used_mib
            ));
        }
    }
    faults.extend(promised.into_keys().map(|(host, device)| format!("hosts/{host}/devices/{device} is held as a GPU")));
    Ok(())
}

/// What a host's row shows as claimed is the sum of its claims; nothing lives where it lies buried.
async fn check_hosts(conn: &mut AnyConnection, faults: &mut Faults) -> Result<()> {
    let rows: Vec<ClaimedRow> = sql("SELECT h.id, h.claimed_vcpus, h.claimed_memory_mib, h.claimed_disk_gib,
                                            CAST(COALESCE(SUM(c.vcpus), 0) AS BIGINT) AS vcpus,
                                            CAST(COALESCE(SUM(c.memory_mib), 0) AS BIGINT) AS memory_mib,
                                            CAST(COALESCE(SUM(c.disk_gib), 0) AS BIGINT) AS disk_gib
                                     FROM hosts h
                                     LEFT JOIN host_claims c ON c.host = h.id
                                     GROUP BY h.id, h.claimed_vcpus, h.claimed_memory_mib, h.claimed_disk_gib")
    .all(conn)
    .await?;
    for row in rows {
        let shown = (row.claimed_vcpus, row.claimed_memory_mib, row.claimed_disk_gib);
        let summed = (row.vcpus, row.memory_mib, row.disk_gib);
        if shown != summed {
            faults.push(format!("hosts/{}: shows {shown:?} as claimed, the claims are {summed:?}", row.id));
        }
    }
    let undead: Vec<(String, String)> = sql("SELECT i.uid, i.host
                                             FROM instances i
                                             JOIN fenced f ON f.host = i.host AND f.instance_uid = i.uid")
    .all(conn)
    .await?;
    faults.extend(
        undead.into_iter().map(|(uid, host)| format!("instance {uid} is placed on hosts/{host}, where it is fenced")),
    );
    Ok(())
}

/// Open operations have something to work on; a delete under way has its operation.
async fn check_operations(conn: &mut AnyConnection, faults: &mut Faults) -> Result<()> {
    let orphans: Vec<(String, String)> = sql("SELECT o.uid, o.target
                                              FROM operations o
                                              LEFT JOIN instances i ON i.uid = o.target_uid
                                              WHERE o.done = 0 AND i.uid IS NULL")
    .all(conn)
    .await?;
    faults.extend(orphans.into_iter().map(|(uid, target)| format!("operations/{uid} is open, and {target} is gone")));
    let silent: Vec<(String,)> = sql("SELECT i.uid
                                      FROM instances i
                                      WHERE i.delete_time IS NOT NULL
                                        AND NOT EXISTS (
                                            SELECT 1
                                            FROM operations o
                                            WHERE o.target_uid = i.uid AND o.done = 0 AND o.verb = 'delete')")
    .all(conn)
    .await?;
    faults.extend(silent.into_iter().map(|(uid,)| format!("instance {uid} is being deleted without an operation")));
    Ok(())
}

/// Every seed and every cluster's credential is there, and nothing else is.
async fn check_secrets(conn: &mut AnyConnection, instances: &[Instance], faults: &mut Faults) -> Result<()> {
    let rows: Vec<(String,)> = sql("SELECT digest FROM secrets").all(conn).await?;
    let secrets: BTreeSet<&str> = rows.iter().map(|(digest,)| digest.as_str()).collect();
    let seeds: BTreeSet<&str> = instances.iter().map(|instance| instance.intent.seed_digest.as_str()).collect();
    faults.extend(seeds.difference(&secrets).map(|digest| format!("the seed {digest} is missing")));
    let clusters: Vec<(String, String)> =
        sql("SELECT name, credential_digest FROM clusters WHERE credential_digest <> ''").all(conn).await?;
    let lacking = clusters.iter().filter(|(_, digest)| !secrets.contains(digest.as_str()));
    faults.extend(lacking.map(|(name, _)| format!("the credential of {name} is missing")));
    let known = |digest: &str| seeds.contains(digest) || clusters.iter().any(|(_, credential)| credential == digest);
    let strange = secrets.iter().filter(|digest| !known(digest));
    faults.extend(strange.map(|digest| format!("the secret {digest} is nobody's seed or credential")));
    Ok(())
}

/// Nothing lies beyond the counter. What lies before the oldest revision that can be resumed is history from before a
/// restore: listed, never followed.
async fn check_history(conn: &mut AnyConnection, faults: &mut Faults) -> Result<()> {
    let beyond = sql("SELECT COUNT(*)
                      FROM changes
                      WHERE revision > (SELECT revision FROM revision)")
    .number(conn)
    .await?;
    if beyond > 0 {
        faults.push(format!("{beyond} changes lie beyond the newest revision"));
    }
    Ok(())
}
