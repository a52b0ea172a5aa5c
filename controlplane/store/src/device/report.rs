//! What a host says of its devices. Written only where it differs from what is known.
//!
//! A device that a look at all of them did not show is MISSING: not free, and its holder keeps it. It is forgotten only when
//! nobody holds it and it was released, goes by another name now, or is a virtual function, which come and go.

use std::collections::{BTreeMap, BTreeSet};

use croft_core::device::{Device, Gpu, Kind, State};
use croft_core::event::Severity;
use croft_core::id::{DeviceId, HostId};
use croft_core::{Error, Result};
use sqlx::AnyConnection;

use super::elsewhere::{Elsewhere, who};
use super::{Row, select_devices};
use crate::column::{from_json, to_json};
use crate::event::reason;
use crate::host::{self, layout};
use crate::open::Store;
use crate::sql::{insert, sql};
use crate::tx::Tx;

/// Of one host, those that are missing among them. Above it what is missing and nobody holds is forgotten: a host that makes up
/// new names with each report fills no database.
const KEPT_MAX: usize = 8192;
/// Devices that one statement names.
const LISTED: usize = 256;

#[derive(Debug, Clone, PartialEq)]
pub struct DeviceReport {
    /// All there are; `None`: it could not look, and this says nothing at all.
    pub devices: Option<Vec<Device>>,
    /// Of the agent that says so.
    pub boot_id: String,
    /// Of the layout that `layout_problems` answers to.
    pub layout_generation: i64,
    pub layout_problems: Vec<String>,
}

/// What a report changes.
#[derive(Debug, Default)]
struct News {
    /// With what was known before.
    told: Vec<(Device, Option<Device>)>,
    missing: Vec<Device>,
    forgotten: Vec<DeviceId>,
    /// The first since the host started.
    boot: bool,
    layout: bool,
    /// Placement has to look again.
    moves: bool,
}

impl News {
    fn is_none(&self) -> bool {
        let Self { told, missing, forgotten, boot, layout, moves: _ } = self;
        told.is_empty() && missing.is_empty() && forgotten.is_empty() && !boot && !layout
    }
}

async fn news(conn: &mut AnyConnection, host: &HostId, report: &DeviceReport, devices: &[Device]) -> Result<News> {
    let row: Option<(String,)> =
        sql("SELECT devices_boot_id FROM hosts WHERE id = $1").bind(host).optional(conn).await?;
    let (boot_id,) = row.ok_or_else(|| Error::not_found(format!("hosts/{host}")))?;
    let rows: Vec<Row> = sql(select_devices!("WHERE host = $1")).bind(host).all(conn).await?;
    let held: Vec<(String,)> =
        sql("SELECT DISTINCT device FROM device_claims WHERE host = $1").bind(host).all(conn).await?;
    let held: BTreeSet<String> = held.into_iter().map(|(device,)| device).collect();
    let layout = layout::get(conn, host).await?;
    let mut news = News {
        boot: boot_id != report.boot_id,
        layout: (layout.told_generation, &layout.problems) != (report.layout_generation, &report.layout_problems),
        ..News::default()
    };
    news.moves = news.boot;
    let mut told: BTreeMap<&str, &Device> = devices.iter().map(|device| (device.id.as_str(), device)).collect();
    let new = told.len() - rows.iter().filter(|row| told.contains_key(row.device.as_str())).count();
    let crowded = rows.len() + new > KEPT_MAX;
    for row in &rows {
        let known: Device = from_json(&row.body, "devices.body")?;
        match told.remove(row.device.as_str()) {
            Some(device) if row.missing != 0 || *device != known => {
                news.moves |= row.missing != 0 || !device.places_like(&known);
                news.told.push((device.clone(), Some(row.device()?)));
            }
            Some(_) => {}
            None if !held.contains(&row.device)
                && (is_forgotten(row, &known, crowded) || is_renamed(row, &known, devices)) =>
            {
                news.moves = true;
                news.forgotten.push(known.id);
            }
            None if row.missing == 0 => {
                news.moves = true;
                news.missing.push(known);
            }
            None => {}
        }
    }
    news.moves |= !told.is_empty();
    news.told.extend(told.into_values().map(|device| (device.clone(), None)));
    Ok(news)
}

fn is_forgotten(row: &Row, known: &Device, crowded: bool) -> bool {
    row.quarantine.is_none() && (known.kind == Kind::VirtualFunction || row.release_counter > 0 || crowded)
}

/// A stick in another port, a card in another slot: what says that it is this one.
fn is_renamed(row: &Row, known: &Device, told: &[Device]) -> bool {
    let known_by = who(known);
    let is_it = |device: &Device| device.id != known.id && !who(device).is_disjoint(&known_by);
    !known_by.is_empty() && row.quarantine.is_none() && told.iter().any(is_it)
}

impl Store {
    /// `true`: something was new.
    pub async fn device_report(&self, host: &HostId, report: DeviceReport) -> Result<bool> {
        let Some(devices) = report.devices.clone() else { return Ok(false) };
        // The usual report says nothing new, and then waits for no writer.
        if news(&mut *self.snapshot().await?, host, &report, &devices).await?.is_none() {
            return Ok(false);
        }
        let host = host.clone();
        self.transaction(move |tx| {
            Box::pin(async move {
                let news = news(&mut tx.conn, &host, &report, &devices).await?;
                write(tx, &host, &report, &news).await?;
                Ok(!news.is_none())
            })
        })
        .await
    }
}

async fn write(tx: &mut Tx, host: &HostId, report: &DeviceReport, news: &News) -> Result<()> {
    put(tx, host, &news.told).await?;
    for (device, before) in &news.told {
        if let Some(before) = before.as_ref().filter(|before| before.state != device.state) {
            announce(tx, host, before.state, device);
        }
    }
    let missing: Vec<&DeviceId> = news.missing.iter().map(|device| &device.id).collect();
    for some in missing.chunks(LISTED) {
        sql("UPDATE devices SET missing = 1, update_time = $2 WHERE host = $1 AND device IN ")
            .bind(host)
            .bind(tx.now)
            .list(some)
            .run(&mut tx.conn)
            .await?;
    }
    for device in &news.missing {
        if device.state != State::Missing {
            let gone =
                Device { state: State::Missing, message: "the host no longer tells of it".into(), ..device.clone() };
            announce(tx, host, device.state, &gone);
        }
    }
    announce_elsewhere(tx, host, &news.told).await?;
    for some in news.forgotten.chunks(LISTED) {
        sql("DELETE FROM devices WHERE host = $1 AND device IN ").bind(host).list(some).run(&mut tx.conn).await?;
    }
    if news.boot {
        sql("UPDATE hosts SET devices_boot_id = $2 WHERE id = $1")
            .bind(host)
            .bind(&report.boot_id)
            .run(&mut tx.conn)
            .await?;
    }
    if news.layout {
        layout::told(&mut tx.conn, host, report.layout_generation, &report.layout_problems).await?;
    }
    if news.moves {
        host::moved(&mut tx.conn, host).await?;
    }
    Ok(())
}

/// Once, when it comes: what is closed or claimed by another name.
async fn announce_elsewhere(tx: &mut Tx, host: &HostId, told: &[(Device, Option<Device>)]) -> Result<()> {
    let came = |before: &Option<Device>| before.as_ref().is_none_or(|before| before.state == State::Missing);
    let come: Vec<&Device> = told.iter().filter(|(_, before)| came(before)).map(|(device, _)| device).collect();
    if come.is_empty() {
        return Ok(());
    }
    let elsewhere = Elsewhere::read(&mut tx.conn, Some(host)).await?;
    for device in come {
        let marked = elsewhere.mark(host.as_str(), device.clone());
        if marked.state != device.state {
            announce(tx, host, device.state, &marked);
        }
    }
    Ok(())
}

fn announce(tx: &mut Tx, host: &HostId, before: State, device: &Device) {
    let why = if device.message.is_empty() { &device.reason } else { &device.message };
    let (from, to) = (before.as_str(), device.state.as_str());
    let message = if why.is_empty() { format!("{from} to {to}") } else { format!("{from} to {to}: {why}") };
    let severity = if device.state == State::Available { Severity::Info } else { Severity::Warning };
    tx.event(None, &format!("hosts/{host}/devices/{}", device.id), reason::DEVICE_CHANGED, &message, severity);
}

/// Devices with what was known of each before, a few statements for all of them.
async fn put(tx: &mut Tx, host: &HostId, told: &[(Device, Option<Device>)]) -> Result<()> {
    let now = tx.now;
    let bodies: Vec<(&Device, String)> =
        told.iter().map(|(device, _)| Ok((device, to_json(device)?))).collect::<Result<_>>()?;
    insert(
        &mut tx.conn,
        "INSERT INTO devices (host, device, body, create_time, update_time)",
        " ON CONFLICT (host, device)
          DO UPDATE SET body = excluded.body, missing = 0, update_time = excluded.update_time",
        &bodies,
        |row, (device, body)| row.cell(host).cell(&device.id).cell(body).cell(now).cell(now),
    )
    .await?;
    let gpus: Vec<(&Device, &Gpu)> =
        told.iter().filter_map(|(device, _)| Some((device, device.gpu.as_ref()?))).collect();
    // Never below what is promised: that is given back first.
    insert(
        &mut tx.conn,
        "INSERT INTO gpu_modes (host, device, mode, framebuffer_mib, framebuffer_used_mib, vgpu_size_mib, mixes, version)",
        " ON CONFLICT (host, device)
          DO UPDATE SET framebuffer_mib = CASE WHEN excluded.framebuffer_mib > gpu_modes.framebuffer_used_mib
                                               THEN excluded.framebuffer_mib
                                               ELSE gpu_modes.framebuffer_used_mib END,
                        mixes = excluded.mixes
          WHERE gpu_modes.framebuffer_mib <> excluded.framebuffer_mib OR gpu_modes.mixes <> excluded.mixes",
        &gpus,
        |row, (device, gpu)| {
            let framebuffer_mib = gpu.shared_framebuffer_mib().max(0);
            let row = row.cell(host).cell(&device.id).cell("IDLE").cell(framebuffer_mib);
            row.cell(0).cell(0).cell(gpu.heterogeneous_capable).cell(1)
        },
    )
    .await
}
