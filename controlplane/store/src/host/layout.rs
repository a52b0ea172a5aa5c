//! How operators want a host's devices divided, and what the host says of it.

use croft_core::audit::Call;
use croft_core::device::{Atom, DeviceLayout, Kind, Layout, Mode, Record};
use croft_core::id::{DeviceId, HostId};
use croft_core::validate::Violations;
use croft_core::{Error, Reason, Result};
use sqlx::AnyConnection;

use crate::call::{About, Done};
use crate::column::{from_json, to_json};
use crate::device;
use crate::open::Store;
use crate::sql::sql;

#[derive(sqlx::FromRow)]
struct Row {
    generation: i64,
    devices: String,
    told_generation: i64,
    problems: String,
}

/// An empty one when none was set.
pub(crate) async fn get(conn: &mut AnyConnection, host: &HostId) -> Result<Layout> {
    let row: Option<Row> = sql("SELECT generation, devices, told_generation, problems
                                FROM host_layouts
                                WHERE host = $1")
    .bind(host)
    .optional(conn)
    .await?;
    let Some(row) = row else { return Ok(Layout::empty(host)) };
    Ok(Layout {
        host: host.clone(),
        generation: row.generation,
        devices: from_json(&row.devices, "host_layouts.devices")?,
        told_generation: row.told_generation,
        problems: from_json(&row.problems, "host_layouts.problems")?,
    })
}

/// What the host said of it.
pub(crate) async fn told(conn: &mut AnyConnection, host: &HostId, generation: i64, problems: &[String]) -> Result<()> {
    sql("INSERT INTO host_layouts (host, generation, devices, told_generation, problems)
         VALUES ($1, 0, '[]', $2, $3)
         ON CONFLICT (host)
         DO UPDATE SET told_generation = excluded.told_generation, problems = excluded.problems")
    .bind(host)
    .bind(generation)
    .bind(to_json(problems)?)
    .run(conn)
    .await?;
    Ok(())
}

impl Store {
    /// An empty one when none was set.
    pub async fn host_layout_get(&self, host: &HostId) -> Result<Layout> {
        let mut tx = self.snapshot().await?;
        super::require(&mut tx, host).await?;
        get(&mut tx, host).await
    }

    /// `devices` were checked ([`Layout::check`]) but for what the host has. Refused where somebody holds what it would take
    /// away. An empty etag matches everything.
    pub async fn host_layout_set(
        &self,
        call: &Call,
        host: &HostId,
        etag: &str,
        devices: Vec<DeviceLayout>,
    ) -> Result<Done<Layout>> {
        let (host, etag) = (host.clone(), etag.to_owned());
        let done = self
            .mutate(call, About::platform(format!("hosts/{host}/layout")), move |tx| {
                Box::pin(async move {
                    super::require(&mut tx.conn, &host).await?;
                    let mut layout = get(&mut tx.conn, &host).await?;
                    layout.check_etag(&etag)?;
                    check(&mut tx.conn, &host, &layout.devices, &devices).await?;
                    layout.devices = devices;
                    layout.generation += 1;
                    sql("INSERT INTO host_layouts (host, generation, devices, told_generation, problems)
                         VALUES ($1, $2, $3, 0, '[]')
                         ON CONFLICT (host)
                         DO UPDATE SET generation = excluded.generation, devices = excluded.devices")
                    .bind(&host)
                    .bind(layout.generation)
                    .bind(to_json(&layout.devices)?)
                    .run(&mut tx.conn)
                    .await?;
                    super::moved(&mut tx.conn, &host).await?;
                    Ok(layout)
                })
            })
            .await?;
        match done {
            Done::Replayed(then) => Ok(Done::Replayed(self.host_layout_get(&then.host).await.unwrap_or(then))),
            new => Ok(new),
        }
    }
}

async fn check(conn: &mut AnyConnection, host: &HostId, before: &[DeviceLayout], after: &[DeviceLayout]) -> Result<()> {
    let mut violations = Violations::new();
    let mut records = Vec::new();
    for (at, one) in after.iter().enumerate() {
        match device::record(conn, host, &one.device).await? {
            Some(record) => {
                check_kind(at, one, &record, &mut violations);
                records.push((one, record));
            }
            None => violations.add(
                format!("layout.devices[{at}].device"),
                format!("hosts/{host} has no device {}; `croft device list` shows those that it has", one.device),
            ),
        }
    }
    violations.finish()?;
    for (one, record) in &records {
        check_free(record, one.gpu_mode, one.virtual_functions)?;
    }
    // What is listed no longer has no functions any more.
    let left = |id: &DeviceId| after.iter().all(|one| one.device != *id);
    for one in before.iter().filter(|one| one.virtual_functions > 0 && left(&one.device)) {
        if let Some(record) = device::record(conn, host, &one.device).await? {
            check_free(&record, None, 0)?;
        }
    }
    Ok(())
}

fn check_kind(at: usize, one: &DeviceLayout, record: &Record, violations: &mut Violations) {
    let is_gpu = record.device.kind == Kind::Gpu;
    violations.check(
        one.gpu_mode.is_none() || is_gpu,
        &format!("layout.devices[{at}].gpu_mode"),
        format!("{} is no GPU", one.device),
    );
    let total = record.device.functions_total;
    violations.check(
        one.virtual_functions == 0 || (!is_gpu && one.virtual_functions <= total),
        &format!("layout.devices[{at}].virtual_functions"),
        match is_gpu {
            true => "a GPU's virtual functions follow its mode".to_owned(),
            false => format!("{} can have at most {total}, not {}", record.name(), one.virtual_functions),
        },
    );
}

/// Nobody holds what the layout would take away.
fn check_free(record: &Record, gpu_mode: Option<Mode>, functions: u16) -> Result<()> {
    let held = record.promise.map_or(Mode::Idle, |promise| promise.mode);
    let other_mode = gpu_mode
        .is_some_and(|mode| held != Mode::Idle && held != mode && !(mode == Mode::Idle && held == Mode::Passthrough));
    let mut atoms = record.holders.iter().flat_map(|holder| &holder.atoms);
    let cut_off = record.device.kind != Kind::Gpu
        && atoms.any(|atom| match atom {
            Atom::Function(index) => *index >= functions,
            Atom::Whole => functions > 0,
            Atom::Mig(_) => false,
        });
    if !other_mode && !cut_off {
        return Ok(());
    }
    let holders: Vec<&str> = record.holders.iter().map(|holder| holder.name.as_str()).collect();
    let message = format!("{} is held by {}; delete or detach that first", record.name(), holders.join(", "));
    Err(Error::precondition(Reason::DeviceInUse, record.name(), message))
}
