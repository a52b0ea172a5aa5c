//! `croft instance rebuild`: what is on the root disk is lost, so it is asked for twice.

use clap::Args;
use croft_proto::v1;

use super::power::finish;
use crate::app::App;
use crate::confirm;
use crate::failure::Result;
use crate::flags::Guard;
use crate::wait::WaitArgs;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  croft instance rebuild web --wait\n  croft instance rebuild train-1 --elsewhere --yes"
)]
pub struct Rebuild {
    instance: String,
    /// On another host than now; refused while none has room
    #[arg(long)]
    elsewhere: bool,
    /// Do not ask: everything on the root disk is lost
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    guard: Guard,
}

pub async fn run(app: &App, rebuild: Rebuild) -> Result<()> {
    let name = super::name(app, &rebuild.instance)?;
    let change = &rebuild.guard.change;
    if !rebuild.yes && !change.dry_run {
        confirm::ask(&format!("Everything on the root disk of {name} will be lost. Rebuild it?"))?;
    }
    let request = v1::RebuildInstanceRequest {
        name: name.clone(),
        etag: rebuild.guard.etag.clone(),
        request_id: change.request_id(),
        validate_only: change.dry_run,
        elsewhere: rebuild.elsewhere,
    };
    let operation = app.plane()?.call(request, async |plane, r| plane.instances().rebuild_instance(r).await).await?;
    finish(app, name, operation, &rebuild.wait, change, "rebuilt").await
}
