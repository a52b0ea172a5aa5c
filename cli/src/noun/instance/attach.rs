//! `croft instance attach` and `detach`: one device more for an instance that exists, or one less.

use clap::Args;
use croft_proto::v1;

use super::devices::Devices;
use super::power;
use crate::app::App;
use crate::failure::{Failure, Result};
use crate::flags::Guard;
use crate::wait::WaitArgs;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  croft instance attach web --usb pool=hsm --wait\n  \
    croft instance attach web --device pool=nic-vf --id storage-nic\n\n\
    Whole GPUs and vGPUs need a cold start: stop the instance first.")]
pub struct Attach {
    instance: String,
    #[command(flatten)]
    devices: Devices,
    /// What it is called in the instance [default: the plane makes one up]
    #[arg(long = "id", value_name = "ID", default_value = "", hide_default_value = true)]
    device_id: String,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    guard: Guard,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  croft instance detach web gpu-0 --wait\n\n`croft instance get` shows the ids.")]
pub struct Detach {
    instance: String,
    /// The device's id in the instance
    device: String,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    guard: Guard,
}

pub async fn attach(app: &App, attach: Attach) -> Result<()> {
    let name = super::name(app, &attach.instance)?;
    let mut requests = attach.devices.requests(app).await?.into_iter();
    let (Some(mut device), None) = (requests.next(), requests.next()) else {
        return Err(Failure::usage("one at a time: give exactly one of --gpu, --device, --usb"));
    };
    device.id = attach.device_id;
    let request = v1::AttachDeviceRequest {
        name: name.clone(),
        device: Some(device),
        etag: attach.guard.etag.clone(),
        request_id: attach.guard.change.request_id(),
        validate_only: attach.guard.change.dry_run,
    };
    let operation = app.plane()?.call(request, async |plane, r| plane.instances().attach_device(r).await).await?;
    power::finish(app, name, operation, &attach.wait, &attach.guard.change, "attached").await
}

pub async fn detach(app: &App, detach: Detach) -> Result<()> {
    let name = super::name(app, &detach.instance)?;
    let request = v1::DetachDeviceRequest {
        name: name.clone(),
        device_id: detach.device,
        etag: detach.guard.etag.clone(),
        request_id: detach.guard.change.request_id(),
        validate_only: detach.guard.change.dry_run,
    };
    let operation = app.plane()?.call(request, async |plane, r| plane.instances().detach_device(r).await).await?;
    power::finish(app, name, operation, &detach.wait, &detach.guard.change, "detached").await
}
