//! `croft host layout`: how a host's devices are set up, as a file for a fleet. In the spirit of mig-parted: a file holds named
//! layouts, each a list of entries, each with a filter; what an entry means for one host follows from the host's devices.

mod file;

use std::time::Duration;

use clap::{Args, Subcommand};
use croft_proto::v1;

use self::file::Layout;
use crate::app::App;
use crate::failure::{Failure, Result};
use crate::flags::Change;
use crate::noun::device;
use crate::output::{self, Resource, named, note, table::Column};
use crate::{duration, names};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a host's layout as a file that can be applied
    #[command(after_help = "Example:\n  croft host layout export h1 --as all-mig > layouts.yaml")]
    Export {
        host: String,
        /// What the layout is called in the file
        #[arg(long = "as", value_name = "NAME", default_value = "current")]
        called: String,
    },
    /// Set hosts up as a file says
    #[command(after_help = "Example:\n  croft host layout apply h1 h2 -f layouts.yaml --layout all-mig --wait\n\n\
        Devices that the layout does not name are set up as requests come. Refused where it would take something from \
        an instance. The file's form is in docs/devices.md.")]
    Apply {
        #[command(flatten)]
        chosen: Chosen,
        /// Wait until the hosts say that it is so
        #[arg(long)]
        wait: bool,
        /// How long to wait at most
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration::parse, requires = "wait")]
        timeout: Duration,
        #[command(flatten)]
        change: Change,
    },
    /// Succeed only if hosts are set up as a file says
    #[command(after_help = "Example:\n  croft host layout assert h1 -f layouts.yaml --layout all-mig && echo yes")]
    Assert(Chosen),
}

#[derive(Debug, Args)]
pub struct Chosen {
    #[arg(required = true)]
    hosts: Vec<String>,
    /// The file; `-` reads stdin
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: String,
    /// Which layout of the file; not needed where it has only one
    #[arg(long, value_name = "NAME")]
    layout: Option<String>,
}

named!(v1::HostLayout => "croft.v1.HostLayout");

impl Resource for v1::HostLayout {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("HOST", |layout| host_of(&layout.name).into()),
        Column::new("DEVICES", |layout| layout.devices.len().into()),
        Column::new("SETTLED", |layout| if layout.settled { "yes".into() } else { "no".into() }),
    ];

    fn name(&self) -> &str {
        &self.name
    }
}

fn host_of(layout: &str) -> &str {
    layout.strip_prefix("hosts/").and_then(|rest| rest.strip_suffix("/layout")).unwrap_or(layout)
}

pub async fn run(app: &App, command: Command) -> Result<()> {
    match command {
        Command::Export { host, called } => export(app, &host, &called).await,
        Command::Apply { chosen, wait, timeout, change } => apply(app, &chosen, wait.then_some(timeout), &change).await,
        Command::Assert(chosen) => assert(app, &chosen).await,
    }
}

async fn get(app: &App, host: &str) -> Result<v1::HostLayout> {
    let request = v1::GetHostLayoutRequest { name: format!("{}/layout", names::top("hosts", host)?) };
    app.plane()?.call(request, async |plane, r| plane.hosts().get_host_layout(r).await).await
}

async fn export(app: &App, host: &str, called: &str) -> Result<()> {
    let layout = get(app, host).await?;
    if !app.out.is_table() {
        return app.out.one(&layout);
    }
    output::text(&file::write(called, &layout)?)
}

/// What the layout means for one host.
async fn wanted(app: &App, layout: &Layout, host: &str) -> Result<Vec<v1::DeviceLayout>> {
    let filter = device::List { host: Some(host.to_owned()), ..device::List::default() };
    let (wanted, idle) = layout.resolve(&device::list(app, &filter).await?)?;
    for entry in idle {
        note(&format!("{host}: entry {entry} of the layout matches nothing there"));
    }
    Ok(wanted)
}

async fn apply(app: &App, chosen: &Chosen, wait: Option<Duration>, change: &Change) -> Result<()> {
    let layout = file::read(&chosen.file, chosen.layout.as_deref())?;
    let request_id = change.request_id();
    for host in &chosen.hosts {
        let current = get(app, host).await?;
        let devices = wanted(app, &layout, host).await?;
        if same(&current.devices, &devices) {
            app.out.did(&current, "unchanged")?;
        } else {
            let new = v1::HostLayout { name: current.name, etag: current.etag, devices, ..v1::HostLayout::default() };
            let request = v1::SetHostLayoutRequest {
                layout: Some(new),
                // One id is one body.
                request_id: if chosen.hosts.len() > 1 { format!("{request_id}-{host}") } else { request_id.clone() },
                validate_only: change.dry_run,
            };
            let set = app.plane()?.call(request, async |plane, r| plane.hosts().set_host_layout(r).await).await?;
            app.out.did(&set, &change.say("set"))?;
        }
    }
    match wait.filter(|_| !change.dry_run) {
        Some(timeout) => settled(app, &chosen.hosts, timeout).await,
        None => Ok(()),
    }
}

async fn settled(app: &App, hosts: &[String], timeout: Duration) -> Result<()> {
    const LOOK_EVERY: Duration = Duration::from_secs(1);
    let deadline = std::time::Instant::now() + timeout;
    for host in hosts {
        loop {
            let layout = get(app, host).await?;
            if layout.settled {
                break;
            }
            if std::time::Instant::now() >= deadline {
                let problems = layout.problems.join("\n  ");
                let problems = if problems.is_empty() { "its agent has not answered yet".to_owned() } else { problems };
                return Err(Failure::Timeout(format!("{host} is not as its layout says:\n  {problems}")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

async fn assert(app: &App, chosen: &Chosen) -> Result<()> {
    let layout = file::read(&chosen.file, chosen.layout.as_deref())?;
    let mut differing = Vec::new();
    for host in &chosen.hosts {
        let current = get(app, host).await?;
        let wanted = wanted(app, &layout, host).await?;
        let before = differing.len();
        differing.extend(differences(host, &current.devices, &wanted));
        if differing.len() == before && !current.settled {
            let problems = current.problems.iter().map(|problem| format!("{host}: {problem}"));
            differing.extend(problems);
            if current.problems.is_empty() {
                differing.push(format!("{host}: its agent has not said yet that it is so"));
            }
        }
        if differing.len() == before {
            app.out.did(&current, "is as the file says")?;
        }
    }
    if differing.is_empty() { Ok(()) } else { Err(Failure::local(differing.join("\n"))) }
}

/// Whatever the order.
fn same(one: &[v1::DeviceLayout], other: &[v1::DeviceLayout]) -> bool {
    differences("", one, other).is_empty()
}

fn differences(host: &str, is: &[v1::DeviceLayout], says: &[v1::DeviceLayout]) -> Vec<String> {
    let find = |list: &[v1::DeviceLayout], device: &str| list.iter().find(|one| one.device == device).cloned();
    let shown =
        |one: Option<v1::DeviceLayout>| one.map_or("set up as requests come".to_owned(), |one| file::shown(&one));
    let mut devices: Vec<&str> = is.iter().chain(says).map(|one| one.device.as_str()).collect();
    devices.sort_unstable();
    devices.dedup();
    let differing = devices.into_iter().filter(|device| find(is, device) != find(says, device));
    differing
        .map(|device| {
            let (is, says) = (shown(find(is, device)), shown(find(says, device)));
            format!("{host}: {device}: {is}; the file says {says}")
        })
        .collect()
}
