//! `croft instance update`: the little that may change while a VM lives.

use std::time::Duration;

use clap::Args;
use croft_proto::v1;

use super::create::RestartArg;
use super::node::RepairArg;
use crate::app::App;
use crate::duration;
use crate::failure::Result;
use crate::flags::Change;
use crate::labels::{LabelEdits, Mask};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  croft instance update web --label tier=front --label old- --restart always")]
pub struct Update {
    instance: String,
    /// When to start it again by itself
    #[arg(long, value_enum)]
    restart: Option<RestartArg>,
    /// How long a stop waits for the guest
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    stop_timeout: Option<Duration>,
    /// What to do when its node is not well while the VM runs
    #[arg(long, value_enum)]
    node_repair: Option<RepairArg>,
    #[command(flatten)]
    labels: LabelEdits,
    #[command(flatten)]
    change: Change,
}

pub async fn run(app: &App, update: Update) -> Result<()> {
    let mut instance = super::get(app, super::name(app, &update.instance)?).await?;
    let mut mask = Mask::default();
    let spec = instance.spec.get_or_insert_default();
    if let Some(restart) = update.restart {
        spec.restart = restart.restart().into();
        mask.add("spec.restart");
    }
    if let Some(timeout) = update.stop_timeout {
        spec.stop_timeout = Some(duration::to_proto(timeout));
        mask.add("spec.stop_timeout");
    }
    if let Some(repair) = update.node_repair {
        spec.node.get_or_insert_default().repair = repair.repair().into();
        mask.add("spec.node.repair");
    }
    update.labels.apply(&mut instance.metadata, &mut mask);
    let request = v1::UpdateInstanceRequest {
        instance: Some(instance),
        update_mask: mask.finish()?,
        request_id: update.change.request_id(),
        validate_only: update.change.dry_run,
    };
    let instance = app.plane()?.call(request, async |plane, r| plane.instances().update_instance(r).await).await?;
    app.out.did(&instance, &update.change.say("updated"))
}
