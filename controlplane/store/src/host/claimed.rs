//! What instances take of hosts: rows of `host_claims`, exact pieces in `device_claims`, and their sums on the host.
//!
//! Taken and given back here alone; each time the host's version rises.

use std::collections::BTreeMap;

use croft_core::host::Resources;
use croft_core::id::{HostId, InstanceUid};
use croft_core::placement::device::DeviceClaim;
use croft_core::placement::view::Claim;
use croft_core::{Error, Result};
use sqlx::AnyConnection;

use super::total;
use crate::column::{from_json, to_json};
use crate::device::claimed::{self as device, Piece};
use crate::sql::{insert, sql};

/// The device of which logical CPUs are the atoms.
pub(crate) const CPU: &str = "cpu";

/// One instance's part of one host.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub uid: InstanceUid,
    pub host: HostId,
    pub claim: Claim,
}

#[derive(sqlx::FromRow)]
struct Held {
    host: String,
    claim: String,
    vcpus: i64,
    memory_mib: i64,
    disk_gib: i64,
}

fn sums(parts: impl Iterator<Item = (HostId, Resources)>) -> BTreeMap<HostId, Resources> {
    let mut sums = BTreeMap::new();
    for (host, amount) in parts {
        let sum: &mut Resources = sums.entry(host).or_default();
        *sum = *sum + amount;
    }
    sums
}

/// `false`: a host has moved on from its version in `versions`, or is gone; what was written must be rolled back.
pub(crate) async fn take(conn: &mut AnyConnection, taken: &[Taken], versions: &BTreeMap<HostId, i64>) -> Result<bool> {
    for (host, sum) in sums(taken.iter().map(|one| (one.host.clone(), total(&one.claim)))) {
        let touched = sql("UPDATE hosts
                           SET version = version + 1, claimed_vcpus = claimed_vcpus + $3,
                               claimed_memory_mib = claimed_memory_mib + $4, claimed_disk_gib = claimed_disk_gib + $5
                           WHERE id = $1 AND version = $2")
        .bind(&host)
        .bind(versions.get(&host).copied().unwrap_or_default())
        .bind(sum.vcpus)
        .bind(sum.memory_mib)
        .bind(sum.disk_gib)
        .run(conn)
        .await?;
        if touched == 0 {
            return Ok(false);
        }
    }
    let rows: Vec<(&Taken, String)> = taken.iter().map(|one| Ok((one, to_json(&one.claim)?))).collect::<Result<_>>()?;
    insert(
        conn,
        "INSERT INTO host_claims (instance_uid, host, claim, vcpus, memory_mib, disk_gib)",
        "",
        &rows,
        |row, (one, claim)| {
            let Resources { vcpus, memory_mib, disk_gib } = total(&one.claim);
            row.cell(one.uid).cell(&one.host).cell(claim).cell(vcpus).cell(memory_mib).cell(disk_gib)
        },
    )
    .await?;
    let atoms: Vec<(&Taken, i32)> =
        taken.iter().flat_map(|one| one.claim.dedicated.iter().map(move |cpu| (one, *cpu))).collect();
    insert(conn, "INSERT INTO device_claims (host, device, atom, instance_uid)", "", &atoms, |row, (one, cpu)| {
        row.cell(&one.host).cell(CPU).cell(cpu.to_string()).cell(one.uid)
    })
    .await?;
    let pieces: Vec<Piece<'_>> = taken
        .iter()
        .flat_map(|one| one.claim.devices.iter().map(|claim| Piece { host: &one.host, uid: one.uid, claim }))
        .collect();
    device::take(conn, &pieces).await
}

/// More devices for one that is here. `false`: the host, or a GPU, has moved on; what was written must be rolled back.
pub(crate) async fn grow(
    conn: &mut AnyConnection,
    uid: InstanceUid,
    host: &HostId,
    claims: &[DeviceClaim],
    version: i64,
) -> Result<bool> {
    let touched = sql("UPDATE hosts SET version = version + 1 WHERE id = $1 AND version = $2")
        .bind(host)
        .bind(version)
        .run(conn)
        .await?;
    let Some(mut claim) = of(conn, uid, host).await?.filter(|_| touched > 0) else { return Ok(false) };
    let pieces: Vec<Piece<'_>> = claims.iter().map(|claim| Piece { host, uid, claim }).collect();
    if !device::take(conn, &pieces).await? {
        return Ok(false);
    }
    claim.devices.extend_from_slice(claims);
    write(conn, uid, &claim).await?;
    Ok(true)
}

/// Without what one request of it holds.
pub(crate) async fn shrink(conn: &mut AnyConnection, uid: InstanceUid, host: &HostId, request: &str) -> Result<()> {
    let Some(mut claim) = of(conn, uid, host).await? else { return Ok(()) };
    let (gone, kept): (Vec<_>, Vec<_>) = claim.devices.into_iter().partition(|one| one.request == request);
    claim.devices = kept;
    device::delete(conn, host, uid, &gone).await?;
    let gone: Vec<(HostId, DeviceClaim)> = gone.into_iter().map(|one| (host.clone(), one)).collect();
    device::give_back(conn, &gone).await?;
    write(conn, uid, &claim).await?;
    super::moved(conn, host).await
}

async fn of(conn: &mut AnyConnection, uid: InstanceUid, host: &HostId) -> Result<Option<Claim>> {
    let row: Option<(String,)> = sql("SELECT claim FROM host_claims WHERE instance_uid = $1 AND host = $2")
        .bind(uid)
        .bind(host)
        .optional(conn)
        .await?;
    row.map(|(text,)| from_json(&text, "host_claims.claim")).transpose()
}

async fn write(conn: &mut AnyConnection, uid: InstanceUid, claim: &Claim) -> Result<()> {
    sql("UPDATE host_claims SET claim = $2 WHERE instance_uid = $1").bind(uid).bind(to_json(claim)?).run(conn).await?;
    Ok(())
}

/// Lets go of everything that these hold of hosts; those that hold nothing are left as they are.
pub(crate) async fn give_back(conn: &mut AnyConnection, uids: &[InstanceUid]) -> Result<()> {
    if uids.is_empty() {
        return Ok(());
    }
    sql("DELETE FROM device_claims WHERE instance_uid IN ").list(uids).run(conn).await?;
    let held: Vec<Held> = sql("DELETE FROM host_claims WHERE instance_uid IN ")
        .list(uids)
        .push(" RETURNING host, claim, vcpus, memory_mib, disk_gib")
        .all(conn)
        .await?;
    let mut devices = Vec::new();
    for row in &held {
        let claim: Claim = from_json(&row.claim, "host_claims.claim")?;
        devices.extend(claim.devices.into_iter().map(|one| (HostId(row.host.clone()), one)));
    }
    device::give_back(conn, &devices).await?;
    let parts = held.into_iter().map(|row| {
        (HostId(row.host), Resources { vcpus: row.vcpus, memory_mib: row.memory_mib, disk_gib: row.disk_gib })
    });
    for (host, sum) in sums(parts) {
        let touched = sql("UPDATE hosts
                           SET version = version + 1, claimed_vcpus = claimed_vcpus - $2,
                               claimed_memory_mib = claimed_memory_mib - $3, claimed_disk_gib = claimed_disk_gib - $4
                           WHERE id = $1")
        .bind(&host)
        .bind(sum.vcpus)
        .bind(sum.memory_mib)
        .bind(sum.disk_gib)
        .run(conn)
        .await?;
        if touched != 1 {
            return Err(Error::internal(format!("hosts/{host} has claims and no row")));
        }
    }
    Ok(())
}

/// Which of a host's logical CPUs somebody has to himself.
pub(crate) async fn dedicated(conn: &mut AnyConnection, hosts: &[HostId]) -> Result<Vec<(HostId, i32)>> {
    let rows: Vec<(String, String)> = sql("SELECT host, atom FROM device_claims WHERE device = ")
        .push_bind(CPU)
        .push(" AND host IN ")
        .list(hosts)
        .all(conn)
        .await?;
    rows.into_iter().map(|(host, atom)| Ok((HostId(host), from_json(&atom, "device_claims.atom")?))).collect()
}
