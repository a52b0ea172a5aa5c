//! Delete, start, stop, reboot, reset: one call, an operation back, and perhaps a wait for it.

use std::time::Duration;

use clap::Args;
use croft_proto::v1;

use super::state;
use crate::app::App;
use crate::duration;
use crate::failure::Result;
use crate::flags::{Change, Guard};
use crate::wait::WaitArgs;

#[derive(Debug, Args)]
pub struct Simple {
    instance: String,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    guard: Guard,
}

#[derive(Debug, Args)]
pub struct Delete {
    instance: String,
    /// Pull the plug instead of asking the guest first
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    guard: Guard,
}

#[derive(Debug, Args)]
pub struct Stop {
    instance: String,
    /// How long to wait for the guest before pulling the plug, instead of the instance's own; 0s: at once
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    stop_timeout: Option<Duration>,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    guard: Guard,
}

pub async fn delete(app: &App, delete: Delete) -> Result<()> {
    let name = super::name(app, &delete.instance)?;
    let request = v1::DeleteInstanceRequest {
        name: name.clone(),
        etag: delete.guard.etag.clone(),
        request_id: delete.guard.change.request_id(),
        validate_only: delete.guard.change.dry_run,
        force: delete.force,
    };
    let operation = app.plane()?.call(request, async |plane, r| plane.instances().delete_instance(r).await).await?;
    let change = &delete.guard.change;
    let operation = delete.wait.maybe(app, operation).await?;
    if delete.wait.wait && !change.dry_run {
        return app.out.did_to(&name, "deleted");
    }
    begun(app, &name, &operation, change, "deleted")
}

pub async fn stop(app: &App, stop: Stop) -> Result<()> {
    let name = super::name(app, &stop.instance)?;
    let request = v1::StopInstanceRequest {
        name: name.clone(),
        etag: stop.guard.etag.clone(),
        request_id: stop.guard.change.request_id(),
        validate_only: stop.guard.change.dry_run,
        timeout: stop.stop_timeout.map(duration::to_proto),
    };
    let operation = app.plane()?.call(request, async |plane, r| plane.instances().stop_instance(r).await).await?;
    finish(app, name, operation, &stop.wait, &stop.guard.change, "stopped").await
}

/// Start, reboot and reset differ in nothing but the message's name.
macro_rules! simple {
    ($verb:ident, $request:ident, $rpc:ident, $did:literal) => {
        pub async fn $verb(app: &App, simple: Simple) -> Result<()> {
            let name = super::name(app, &simple.instance)?;
            let request = v1::$request {
                name: name.clone(),
                etag: simple.guard.etag.clone(),
                request_id: simple.guard.change.request_id(),
                validate_only: simple.guard.change.dry_run,
            };
            let operation = app.plane()?.call(request, async |plane, r| plane.instances().$rpc(r).await).await?;
            finish(app, name, operation, &simple.wait, &simple.guard.change, $did).await
        }
    };
}

simple!(start, StartInstanceRequest, start_instance, "started");
simple!(reboot, RebootInstanceRequest, reboot_instance, "rebooted");
simple!(reset, ResetInstanceRequest, reset_instance, "reset");

/// After waiting: the instance as it is now. Without: the operation, with which one can wait later.
pub async fn finish(
    app: &App,
    name: String,
    operation: v1::Operation,
    wait: &WaitArgs,
    change: &Change,
    did: &str,
) -> Result<()> {
    let operation = wait.maybe(app, operation).await?;
    if !wait.wait || change.dry_run {
        return begun(app, &name, &operation, change, did);
    }
    let instance = super::get(app, name).await?;
    app.out.did(&instance, &format!("{did}: {}", state::sentence(&instance)))
}

fn begun(app: &App, name: &str, operation: &v1::Operation, change: &Change, did: &str) -> Result<()> {
    if !app.out.is_table() {
        return app.out.one(operation);
    }
    if change.dry_run {
        return app.out.did_to(name, &format!("would be {did} (dry run: nothing was changed)"));
    }
    let id = crate::names::id(&operation.name);
    let so_far = if operation.done { "done" } else { "begun" };
    app.out.did_to(name, &format!("{}: {so_far} (operation {id})", operation.verb))
}
