//! Devices of hosts: what was told of each, and who holds which piece of it.

pub(crate) mod claimed;
mod elsewhere;
pub(crate) mod operator;
pub(crate) mod report;
pub(crate) mod view;

use std::collections::{BTreeMap, BTreeSet};

use croft_core::device::{Assignment, Atom, Device, Holder, Kind, Mode, Promise, Record};
use croft_core::id::{DeviceId, HostId, PoolId};
use croft_core::instance::Instance;
use croft_core::{Error, Result, Timestamp};
use sqlx::AnyConnection;

use self::elsewhere::Elsewhere;
use crate::column::{from_json, from_word, wrong};
use crate::open::Store;
use crate::page::Page;
use crate::sql::{Sql, sql};
use crate::{host, instance, pool};

/// Which devices to list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeviceFilter {
    /// `None`: of all hosts.
    pub host: Option<HostId>,
    /// Empty: all.
    pub kinds: Vec<Kind>,
    /// Only what it matches.
    pub pool: Option<PoolId>,
}

#[derive(sqlx::FromRow)]
pub(crate) struct Row {
    host: String,
    device: String,
    body: String,
    missing: i64,
    quarantine: Option<String>,
    release_counter: i64,
    update_time: i64,
}

/// All of a device's row, and the rest of the statement.
macro_rules! select_devices {
    ($tail:literal) => {
        concat!(
            "SELECT host, device, body, missing, quarantine, release_counter, update_time
             FROM devices ",
            $tail
        )
    };
}
pub(crate) use select_devices;

impl Row {
    /// MISSING once the host told of all others.
    pub fn device(&self) -> Result<Device> {
        let mut device: Device = from_json(&self.body, "devices.body")?;
        if self.missing != 0 {
            device.state = croft_core::device::State::Missing;
            device.reason = MISSING.to_owned();
            device.message = "the host no longer tells of it".to_owned();
        }
        Ok(device)
    }

    fn with_device(self) -> Result<(Self, Device)> {
        let device = self.device()?;
        Ok((self, device))
    }
}

/// The agent's word, which has a page.
const MISSING: &str = "DeviceNotSeen";

#[derive(sqlx::FromRow)]
pub(crate) struct ModeRow {
    pub host: String,
    pub device: String,
    pub mode: String,
    pub framebuffer_mib: i64,
    pub framebuffer_used_mib: i64,
    pub vgpu_size_mib: i64,
    pub mixes: i64,
    pub version: i64,
}

macro_rules! select_gpu_modes {
    ($tail:literal) => {
        concat!(
            "SELECT host, device, mode, framebuffer_mib, framebuffer_used_mib, vgpu_size_mib, mixes, version
             FROM gpu_modes ",
            $tail
        )
    };
}
pub(crate) use select_gpu_modes;

impl ModeRow {
    pub fn mode(&self) -> Result<Mode> {
        from_word(&self.mode, "gpu_modes.mode")
    }

    fn promise(&self) -> Result<Promise> {
        Ok(Promise {
            mode: self.mode()?,
            framebuffer_mib: self.framebuffer_mib,
            framebuffer_used_mib: self.framebuffer_used_mib,
            vgpu_size_mib: self.vgpu_size_mib,
        })
    }
}

pub(crate) fn atom(text: &str) -> Result<Atom> {
    text.parse().map_err(|_| wrong("device_claims.atom", text))
}

/// Only those of one host.
fn of(statement: Sql, host: Option<&HostId>) -> Sql {
    match host {
        None => statement,
        Some(host) => statement.push(" AND host = ").push_bind(host),
    }
}

type Held = BTreeMap<(String, String), Vec<Holder>>;

/// Who holds what, by host and device.
async fn holders(conn: &mut AnyConnection, host: Option<&HostId>) -> Result<Held> {
    let claims = sql("SELECT host, device, atom, instance_uid FROM device_claims WHERE device <> ");
    let rows: Vec<(String, String, String, String)> =
        of(claims.push_bind(host::claimed::CPU), host).push(" ORDER BY host, device").all(conn).await?;
    let uids: BTreeSet<&str> = rows.iter().map(|(.., uid)| uid.as_str()).collect();
    let uids: Vec<_> = uids.into_iter().map(instance::uid).collect::<Result<_>>()?;
    let mut instances = BTreeMap::new();
    for some in uids.chunks(256) {
        for one in instance::by_uids(conn, some).await? {
            instances.insert(one.uid, one);
        }
    }
    let mut held = Held::new();
    for (host, device, text, uid) in rows {
        let (uid, atom) = (instance::uid(&uid)?, atom(&text)?);
        let Some(instance) = instances.get(&uid) else { continue };
        let holders = held.entry((host, device.clone())).or_default();
        match holders.iter_mut().find(|holder| holder.uid == uid) {
            Some(holder) => holder.atoms.push(atom),
            None => holders.push(holder(instance, &DeviceId(device), atom)),
        }
    }
    for holder in held.values_mut().flatten() {
        holder.atoms.sort();
    }
    Ok(held)
}

fn holder(instance: &Instance, device: &DeviceId, atom: Atom) -> Holder {
    let pieces = instance.placement.iter().flat_map(|placement| &placement.devices);
    let pieces: Vec<&Assignment> = pieces.filter(|one| one.device == *device).collect();
    let words = |of: fn(&Assignment) -> &String| -> Vec<String> {
        let words: BTreeSet<&String> = pieces.iter().map(|one| of(one)).filter(|word| !word.is_empty()).collect();
        words.into_iter().cloned().collect()
    };
    Holder {
        uid: instance.uid,
        name: instance.name(),
        atoms: vec![atom],
        mig_profiles: words(|one| &one.mig_profile),
        vgpu_types: words(|one| &one.vgpu_type),
    }
}

async fn records(conn: &mut AnyConnection, rows: Vec<Row>, host: Option<&HostId>) -> Result<Vec<Record>> {
    let mut held = holders(conn, host).await?;
    let elsewhere = Elsewhere::read(conn, host).await?;
    let modes: Vec<ModeRow> = of(sql(select_gpu_modes!("WHERE 1 = 1")), host).all(conn).await?;
    let mut promises: BTreeMap<(String, String), Promise> = BTreeMap::new();
    for row in modes {
        let promise = row.promise()?;
        promises.insert((row.host, row.device), promise);
    }
    rows.into_iter()
        .map(|row| {
            let device = elsewhere.mark(&row.host, row.device()?);
            let key = (row.host, row.device);
            Ok(Record {
                promise: promises.remove(&key),
                holders: held.remove(&key).unwrap_or_default(),
                host: HostId(key.0),
                device,
                quarantine: row.quarantine,
                release_counter: row.release_counter,
                update_time: Timestamp(row.update_time),
            })
        })
        .collect()
}

pub(crate) async fn record(conn: &mut AnyConnection, host: &HostId, id: &DeviceId) -> Result<Option<Record>> {
    let rows: Vec<Row> = sql(select_devices!("WHERE host = $1 AND device = $2")).bind(host).bind(id).all(conn).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    Ok(records(conn, rows, Some(host)).await?.pop())
}

pub(crate) async fn require(conn: &mut AnyConnection, host: &HostId, id: &DeviceId) -> Result<Record> {
    record(conn, host, id).await?.ok_or_else(|| Error::not_found(format!("hosts/{host}/devices/{id}")))
}

impl Store {
    pub async fn device_get(&self, host: &HostId, id: &DeviceId) -> Result<Option<Record>> {
        record(&mut *self.snapshot().await?, host, id).await
    }

    /// By host and id.
    pub async fn device_list(&self, filter: &DeviceFilter, page: &Page) -> Result<(Vec<Record>, Option<String>)> {
        let list = format!("devices {filter:?}");
        let [host, id] = page.after::<2>(&list)?.unwrap_or_default();
        let mut tx = self.snapshot().await?;
        let after = sql(select_devices!("WHERE (host, device) > ($1, $2)")).bind(host).bind(id);
        let rows: Vec<Row> = of(after, filter.host.as_ref()).push(" ORDER BY host, device").all(&mut tx).await?;
        let mut records = records(&mut tx, rows, filter.host.as_ref()).await?;
        records.retain(|one| filter.kinds.is_empty() || filter.kinds.contains(&one.device.kind));
        if let Some(id) = &filter.pool {
            let Some(pool) = pool::get(&mut tx, id).await? else {
                return Err(Error::not_found(format!("pools/{id}")));
            };
            let labels = host::labels(&mut tx).await?;
            records.retain(|one| {
                labels.get(&one.host).is_some_and(|labels| pool.matches.holds(&one.host, labels, &one.device))
            });
        }
        let next = page.cut(&list, &mut records, |one| [one.host.to_string(), one.device.id.to_string()]);
        Ok((records, next))
    }

    /// By host and id: for metrics.
    pub async fn device_all(&self) -> Result<Vec<Record>> {
        let mut tx = self.snapshot().await?;
        let rows: Vec<Row> = sql(select_devices!("ORDER BY host, device")).all(&mut tx).await?;
        records(&mut tx, rows, None).await
    }
}
