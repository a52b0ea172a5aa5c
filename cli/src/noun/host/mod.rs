//! `croft host`: the machines underneath. For platform operators.

mod drain;
mod layout;
pub mod preflight;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use croft_proto::v1::{self, host::State};

use crate::app::App;
use crate::failure::{Failure, Result};
use crate::flags::{Change, Guard, RequestId, all_pages};
use crate::labels::{LabelEdits, Mask};
use crate::output::cell::{self, Mood, Text};
use crate::output::{self, Resource, age, named, note, table::Column};
use crate::{duration, names, size};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show all hosts
    List,
    /// Show one host
    Get { host: String },
    /// Change labels, annotations, reserve or overhead
    #[command(
        after_help = "Example:\n  croft host update h1 --label rack=7 --reserve-memory 4GiB --reserve-disk 50GiB"
    )]
    Update(Update),
    /// Place nothing new there; what runs goes on
    Cordon {
        host: String,
        #[command(flatten)]
        request: RequestId,
    },
    /// Place there again
    Uncordon {
        host: String,
        #[command(flatten)]
        request: RequestId,
    },
    /// For maintenance: place nothing new there, and stop what runs
    Drain(drain::Drain),
    /// End the maintenance: what was stopped for it starts again
    Undrain(drain::Undrain),
    /// Say that the machine is off for certain, and let go of all that ran there
    #[command(after_help = "Only after you made sure that the machine has no power. A machine that still runs would \
        run its instances twice.\n\nExample:\n  croft host fence h1 --confirm-powered-off")]
    Fence {
        host: String,
        /// I made sure that this machine is off
        #[arg(long)]
        confirm_powered_off: bool,
        #[command(flatten)]
        request: RequestId,
    },
    /// Forget a host that has no instances; its certificate is refused from then on
    Delete {
        host: String,
        #[command(flatten)]
        guard: Guard,
    },
    /// Print a one-time token with which exactly this host may enrol
    #[command(after_help = "Example:\n  croft host enrol-token h1 --ca-out ca.pem > h1.token\n  \
        # on h1, with both files there:\n  \
        croft-hostagent enrol --server plane.example.org:7443 --ca-file ca.pem --token \"$(cat h1.token)\" --host-id h1")]
    EnrolToken(EnrolToken),
    /// How its devices are set up when nobody holds them
    #[command(subcommand)]
    Layout(layout::Command),
    /// Say whether this machine is fit to be a host, and what would make it so; changes nothing, needs no plane
    #[command(after_help = "Example:\n  sudo croft host preflight --server plane.example.org:7443 --level warn")]
    Preflight(preflight::Preflight),
}

#[derive(Debug, Args)]
pub struct Update {
    host: String,
    #[command(flatten)]
    labels: LabelEdits,
    /// vCPUs that stay free
    #[arg(long, value_name = "N")]
    reserve_vcpus: Option<i64>,
    /// Memory that stays free
    #[arg(long, value_name = "SIZE", value_parser = size::memory_mib)]
    reserve_memory: Option<i64>,
    /// Disk that stays free
    #[arg(long, value_name = "SIZE", value_parser = size::disk_gib)]
    reserve_disk: Option<i64>,
    /// What each instance costs in memory beside its own
    #[arg(long, value_name = "SIZE", value_parser = size::memory_mib)]
    overhead_memory: Option<i64>,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
pub struct EnrolToken {
    /// 1 to 63 of a-z, 0-9, . and -
    host: String,
    /// For how long it is good: at most 24h; without it 1h
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    ttl: Option<Duration>,
    /// Write the plane's CA certificate to this file
    #[arg(long, value_name = "FILE")]
    ca_out: Option<PathBuf>,
    #[command(flatten)]
    request: RequestId,
}

named!(
    v1::Host => "croft.v1.Host",
    v1::CreateEnrolmentTokenResponse => "croft.v1.CreateEnrolmentTokenResponse",
);

impl Resource for v1::Host {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("NAME", |host| names::id(&host.name).into()),
        Column::new("STATE", state),
        Column::new("VCPUS", |host| taken(host, |r| r.vcpus, capacity(host).vcpus, |n| n.to_string())),
        Column::new("MEMORY", |host| taken(host, |r| r.memory_mib, capacity(host).memory_mib, size::show_mib)),
        Column::new("DISK", |host| taken(host, |r| r.disk_gib, capacity(host).disk_gib, |n| format!("{n}GiB"))),
        Column::new("TYPE", |host| info(host, |info| &info.domain_type)),
        Column::new("AGENT", |host| info(host, |info| &info.agent_version)),
        Column::new("AGE", |host| age::since(host.metadata.as_ref().and_then(|m| m.create_time.as_ref()))),
        Column::wide("LEASE", |host| age::until(host.lease_expire_time.as_ref())),
        Column::wide("EPOCH", |host| host.epoch.into()),
        Column::wide("OS", |host| info(host, |info| &info.os)),
        Column::wide("KERNEL", |host| info(host, |info| &info.kernel)),
        Column::wide("CPU", |host| info(host, |info| &info.cpu_model)),
        Column::wide("FOREIGN", |host| {
            host.info.as_ref().map(|info| cell::few(&info.foreign_domains, 3)).unwrap_or_else(|| "".into())
        }),
        Column::wide("LABELS", |host| cell::labels(host.metadata.as_ref())),
    ];

    fn name(&self) -> &str {
        &self.name
    }
}

fn state(host: &v1::Host) -> Text {
    let mood = match host.state() {
        State::Ready if host.cordoned || host.maintenance.is_some() => Mood::Doubtful,
        State::Ready => Mood::Good,
        State::Unreachable => Mood::Doubtful,
        State::Fenced => Mood::Bad,
        State::Unspecified | State::Enrolled => Mood::Plain,
    };
    let cordoned = if host.cordoned { ",CORDONED" } else { "" };
    let phase = host.maintenance.as_ref().map(|maintenance| format!(",{}", maintenance.phase().as_str_name()));
    Text::new(format!("{}{cordoned}{}", host.state().as_str_name(), phase.unwrap_or_default()), mood)
}

fn capacity(host: &v1::Host) -> v1::Capacity {
    host.capacity.clone().unwrap_or_default()
}

/// What cannot be placed any more, of what there is: `6/16`. Claims, foreign domains and reserve all count.
fn taken(host: &v1::Host, amount: fn(&v1::Resources) -> i64, total: i64, show: fn(i64) -> String) -> Text {
    let parts = [&host.claimed, &host.foreign, &host.reserve];
    let taken: i64 = parts.into_iter().flatten().map(amount).sum();
    format!("{}/{}", show(taken), show(total)).into()
}

fn info(host: &v1::Host, field: fn(&v1::HostInfo) -> &String) -> Text {
    host.info.as_ref().map(|info| field(info).as_str()).unwrap_or_default().into()
}

pub async fn run(app: &App, command: Command) -> Result<()> {
    match command {
        Command::List => list(app).await,
        Command::Get { host } => get_one(app, &host).await,
        Command::Update(update) => self::update(app, update).await,
        Command::Cordon { host, request } => {
            let request = v1::CordonHostRequest { name: names::top("hosts", &host)?, request_id: request.get() };
            let host = app.plane()?.call(request, async |plane, r| plane.hosts().cordon_host(r).await).await?;
            app.out.did(&host, "cordoned")
        }
        Command::Uncordon { host, request } => {
            let request = v1::UncordonHostRequest { name: names::top("hosts", &host)?, request_id: request.get() };
            let host = app.plane()?.call(request, async |plane, r| plane.hosts().uncordon_host(r).await).await?;
            app.out.did(&host, "uncordoned")
        }
        Command::Drain(drain) => self::drain::drain(app, drain).await,
        Command::Undrain(undrain) => self::drain::undrain(app, undrain).await,
        Command::Fence { host, confirm_powered_off, request } => fence(app, &host, confirm_powered_off, &request).await,
        Command::Delete { host, guard } => delete(app, &host, guard).await,
        Command::EnrolToken(enrol) => enrol_token(app, enrol).await,
        Command::Layout(command) => layout::run(app, command).await,
        Command::Preflight(command) => preflight::run(&app.out, command),
    }
}

async fn list(app: &App) -> Result<()> {
    let plane = app.plane()?;
    let hosts = all_pages(async |page_token| {
        let request = v1::ListHostsRequest { page_token, page_size: 0 };
        let page = plane.call(request, async |plane, r| plane.hosts().list_hosts(r).await).await?;
        Ok((page.hosts, page.next_page_token))
    });
    app.out.list("hosts", &hosts.await?)
}

async fn get(app: &App, name: String) -> Result<v1::Host> {
    let request = v1::GetHostRequest { name };
    app.plane()?.call(request, async |plane, r| plane.hosts().get_host(r).await).await
}

async fn get_one(app: &App, host: &str) -> Result<()> {
    let host = get(app, names::top("hosts", host)?).await?;
    app.out.one(&host)?;
    if !app.out.is_table() {
        return Ok(());
    }
    if let Some(maintenance) = &host.maintenance {
        output::line(&format!("  {}", drain::sentence(maintenance)))?;
    }
    for condition in host.conditions.iter().filter(|condition| !condition.message.is_empty()) {
        output::line(&format!("  {} ({}): {}", condition.r#type, condition.reason, condition.message))?;
    }
    for error in host.info.iter().flat_map(|info| &info.probe_errors) {
        output::line(&format!("  not probed: {error}"))?;
    }
    Ok(())
}

async fn update(app: &App, update: Update) -> Result<()> {
    let mut host = get(app, names::top("hosts", &update.host)?).await?;
    let mut mask = Mask::default();
    let reserve = [update.reserve_vcpus, update.reserve_memory, update.reserve_disk];
    if reserve.iter().any(Option::is_some) {
        let current = host.reserve.get_or_insert_default();
        let [vcpus, memory, disk] = reserve;
        current.vcpus = vcpus.unwrap_or(current.vcpus);
        current.memory_mib = memory.unwrap_or(current.memory_mib);
        current.disk_gib = disk.unwrap_or(current.disk_gib);
        mask.add("reserve");
    }
    if let Some(overhead) = update.overhead_memory {
        host.overhead_memory_mib = overhead;
        mask.add("overhead_memory_mib");
    }
    update.labels.apply(&mut host.metadata, &mut mask);
    let request = v1::UpdateHostRequest {
        host: Some(host),
        update_mask: mask.finish()?,
        request_id: update.change.request_id(),
        validate_only: update.change.dry_run,
    };
    let host = app.plane()?.call(request, async |plane, r| plane.hosts().update_host(r).await).await?;
    app.out.did(&host, &update.change.say("updated"))
}

async fn fence(app: &App, host: &str, confirm_powered_off: bool, request: &RequestId) -> Result<()> {
    let name = names::top("hosts", host)?;
    if !confirm_powered_off {
        return Err(Failure::usage(format!(
            "fencing lets go of everything that ran on {name}. Make sure that the machine is off, then say so with \
             --confirm-powered-off"
        )));
    }
    let request = v1::FenceHostRequest { name, confirm_powered_off, request_id: request.get() };
    let host = app.plane()?.call(request, async |plane, r| plane.hosts().fence_host(r).await).await?;
    app.out.did(&host, &format!("fenced, epoch {}", host.epoch))
}

async fn delete(app: &App, host: &str, guard: Guard) -> Result<()> {
    let name = names::top("hosts", host)?;
    let request = v1::DeleteHostRequest {
        name: name.clone(),
        request_id: guard.change.request_id(),
        validate_only: guard.change.dry_run,
        etag: guard.etag.clone(),
    };
    app.plane()?.call(request, async |plane, r| plane.hosts().delete_host(r).await).await?;
    app.out.did_to(&name, &guard.change.say("deleted"))
}

async fn enrol_token(app: &App, enrol: EnrolToken) -> Result<()> {
    let request = v1::CreateEnrolmentTokenRequest {
        host_id: names::id(&names::top("hosts", &enrol.host)?).to_owned(),
        ttl: enrol.ttl.map(duration::to_proto),
        request_id: enrol.request.get(),
    };
    let made = app.plane()?.call(request, async |plane, r| plane.hosts().create_enrolment_token(r).await).await?;
    if let Some(file) = &enrol.ca_out {
        std::fs::write(file, &made.ca_pem)
            .map_err(|error| Failure::local(format!("cannot write {}: {error}", file.display())))?;
    }
    if app.out.is_table() {
        note(&format!("for {} only, once, until {}:", enrol.host, age::exact(made.expire_time.as_ref()).as_str()));
    }
    let token = made.token.clone();
    app.out.message(&made, &token)
}
