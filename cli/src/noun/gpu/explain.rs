//! `croft gpu explain`: where a piece could be had now. The plane answers for the smallest VM that asks for it, by the very
//! checks of a create: quota, then host by host.

use clap::Args;
use croft_proto::v1::{self, instance_spec::BootSource};

use crate::app::App;
use crate::failure::{Failure, Result};
use crate::noun::image;
use crate::noun::instance::{devices, explain};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  croft gpu explain mig=2g.20gb\n  croft gpu explain h100_sxm_80gb:4 --tenant acme\n  \
    croft gpu explain vgpu=H100XM-2-20C"
)]
pub struct Explain {
    /// As `instance create --gpu` takes it
    #[arg(value_name = "WHAT", value_parser = devices::gpu)]
    wanted: v1::DeviceRequest,
    /// The image of the VM that is thought of [default: the first that the tenant can see]
    #[arg(long)]
    image: Option<String>,
}

pub async fn run(app: &App, wanted: Explain) -> Result<()> {
    let image = match &wanted.image {
        Some(image) => image::resolve(app, image).await?,
        None => first_image(app).await?,
    };
    let spec = v1::InstanceSpec {
        vcpus: 1,
        memory_mib: 64,
        boot_source: Some(BootSource::Image(image)),
        devices: vec![wanted.wanted],
        ..v1::InstanceSpec::default()
    };
    let request = v1::CreateInstanceRequest {
        parent: app.tenant()?,
        instance_id: "gpu-explain".to_owned(),
        instance: Some(v1::Instance { spec: Some(spec), ..v1::Instance::default() }),
        request_id: String::new(),
        validate_only: true,
    };
    explain::possible(app, request).await
}

async fn first_image(app: &App) -> Result<String> {
    let request = v1::ListImagesRequest { parent: app.tenant()?, page_size: 1, ..Default::default() };
    let page = app.plane()?.call(request, async |plane, r| plane.images().list_images(r).await).await?;
    let first = page.images.into_iter().next().map(|image| image.name);
    first.ok_or_else(|| {
        Failure::usage("the tenant sees no image yet, and a VM needs one; register one with `croft image create`")
    })
}
