//! `croft instance`: virtual machines. This file is the table of contents; a verb that grows has its own.

mod attach;
mod console;
mod create;
pub mod devices;
pub mod explain;
mod list;
mod mirror;
mod node;
mod port_forward;
mod power;
mod rebuild;
mod ssh;
pub mod state;
mod stream;
mod table;
mod update;
mod watch;

use clap::Subcommand;
use croft_proto::v1;

use crate::app::App;
use crate::failure::Result;
use crate::names;
use crate::output;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an instance and start it
    Create(Box<create::Create>),
    /// Show one instance
    Get { instance: String },
    /// Show instances
    List(list::List),
    /// Change labels, annotations, restart policy or stop timeout; the shape of a VM never changes
    Update(update::Update),
    /// Delete an instance and its disk
    Delete(power::Delete),
    /// Start a stopped instance
    Start(power::Simple),
    /// Stop an instance: ask the guest, and pull the plug when it does not in time
    Stop(power::Stop),
    /// Ask the guest to restart
    Reboot(power::Simple),
    /// Press the reset button, without asking the guest
    Reset(power::Simple),
    /// Throw the root disk away, and make a new one from the image; all else stays
    Rebuild(rebuild::Rebuild),
    /// Follow changes of one instance, or of all
    Watch(watch::Watch),
    /// Say what an instance waits for, and what stands in the way on each host
    Explain { instance: String },
    /// Give an instance one more device
    Attach(attach::Attach),
    /// Take a device away from an instance, and clean it for the next one
    Detach(attach::Detach),
    /// Talk to the guest's serial console, or read its log
    Console(console::Console),
    /// Reach ports of the guest from here
    PortForward(port_forward::PortForward),
    /// Log in by SSH, through the plane
    Ssh(ssh::Ssh),
}

pub async fn run(app: &App, command: Command) -> Result<()> {
    match command {
        Command::Create(create) => create::run(app, *create).await,
        Command::Get { instance } => show(app, &instance).await,
        Command::List(list) => list::run(app, list).await,
        Command::Update(update) => update::run(app, update).await,
        Command::Delete(delete) => power::delete(app, delete).await,
        Command::Start(simple) => power::start(app, simple).await,
        Command::Stop(stop) => power::stop(app, stop).await,
        Command::Reboot(simple) => power::reboot(app, simple).await,
        Command::Reset(simple) => power::reset(app, simple).await,
        Command::Rebuild(rebuild) => rebuild::run(app, rebuild).await,
        Command::Watch(watch) => watch::run(app, watch).await,
        Command::Explain { instance } => explain::existing(app, &instance).await,
        Command::Attach(attach) => attach::attach(app, attach).await,
        Command::Detach(detach) => attach::detach(app, detach).await,
        Command::Console(console) => console::run(app, console).await,
        Command::PortForward(forward) => port_forward::run(app, forward).await,
        Command::Ssh(ssh) => ssh::run(app, ssh).await,
    }
}

/// The full name that an argument stands for.
fn name(app: &App, instance: &str) -> Result<String> {
    names::within(|| app.tenant(), "instances", instance)
}

pub async fn get(app: &App, name: String) -> Result<v1::Instance> {
    let request = v1::GetInstanceRequest { name };
    app.plane()?.call(request, async |plane, r| plane.instances().get_instance(r).await).await
}

/// The row, and below it for people what is wrong, and what it holds.
async fn show(app: &App, instance: &str) -> Result<()> {
    let instance = get(app, name(app, instance)?).await?;
    app.out.one(&instance)?;
    if !app.out.is_table() {
        return Ok(());
    }
    let Some(status) = &instance.status else { return Ok(()) };
    let parts = [status.reason.as_str(), status.message.as_str()];
    let why: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if !why.is_empty() {
        output::line(&format!("  {}", why.join(": ")))?;
    }
    for condition in status.conditions.iter().filter(|condition| !condition.message.is_empty()) {
        let (kind, is) = (&condition.r#type, condition.status().as_str_name());
        output::line(&format!("  {kind} is {is} ({}): {}", condition.reason, condition.message))?;
    }
    if let Some(line) = node::sentence(&instance) {
        output::line(&format!("  {line}"))?;
    }
    for given in &status.devices {
        output::line(&format!("  {}", devices::sentence(given)))?;
    }
    Ok(())
}
