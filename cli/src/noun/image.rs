//! `croft image`: what instances boot from. An image's bytes never change: register a new one.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use croft_proto::v1::{self, disk_image::Format, image::Boot, image::Firmware};
use tonic::Code;

use crate::app::App;
use crate::failure::{Failure, Result};
use crate::flags::{Change, Guard, all_pages};
use crate::labels::Labels;
use crate::output::cell::{self, Mood, Text};
use crate::output::{Resource, age, named, table::Column};
use crate::{names, size};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Register an image: of the tenant, or of the platform where no tenant is set (or with --platform)
    #[command(after_help = "Examples:\n  \
        croft image create debian-13 --platform --uri https://images.example.org/debian-13.qcow2 \\\n    \
            --sha256 9f86d0… --format qcow2 --min-disk-gib 3\n  \
        croft image create tiny --kernel-uri https://…/vmlinuz --kernel-sha256 … --initrd-uri https://…/initrd.img \\\n    \
            --initrd-sha256 … --cmdline 'console=ttyS0'")]
    Create(Box<Create>),
    /// Show one image, and how each host stands with it
    Get { image: String },
    /// Show the images that a tenant may boot, those of the platform too
    List {
        /// All that you may see
        #[arg(short = 'A', long)]
        all: bool,
        /// Only those of the platform
        #[arg(long, conflicts_with = "all")]
        platform: bool,
    },
    /// Delete an image that no instance boots from; hosts drop their copies
    Delete {
        image: String,
        #[command(flatten)]
        guard: Guard,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").required(true).args(["uri", "kernel_uri"]).multiple(true))]
pub struct Create {
    image: String,
    /// For every tenant, whatever tenant the context names
    #[arg(long)]
    platform: bool,
    /// The disk: https://…, or file:///… below the hosts' image directory (platform admins only)
    #[arg(long, requires_all = ["sha256", "format"])]
    uri: Option<String>,
    /// The disk's SHA-256, 64 hex digits
    #[arg(long, requires = "uri")]
    sha256: Option<String>,
    /// What the disk is; declared, never guessed
    #[arg(long, value_enum, requires = "uri")]
    format: Option<FormatArg>,
    /// What the guest's disk must at least be
    #[arg(long, value_name = "GIB", requires = "uri", value_parser = min_disk)]
    min_disk_gib: Option<i32>,
    /// Boot by BIOS instead of UEFI
    #[arg(long, conflicts_with = "kernel_uri")]
    bios: bool,
    /// Boot this kernel directly; --uri is then its root disk, if it has one
    #[arg(long, requires = "kernel_sha256")]
    kernel_uri: Option<String>,
    #[arg(long, requires = "kernel_uri", help = "The kernel's SHA-256")]
    kernel_sha256: Option<String>,
    #[arg(long, requires_all = ["kernel_uri", "initrd_sha256"], help = "The initial RAM disk")]
    initrd_uri: Option<String>,
    #[arg(long, requires = "initrd_uri", help = "The initial RAM disk's SHA-256")]
    initrd_sha256: Option<String>,
    #[arg(long, requires = "kernel_uri", help = "The kernel's command line")]
    cmdline: Option<String>,
    #[arg(long, default_value = "", hide_default_value = true, help = "A word for people")]
    description: String,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatArg {
    Qcow2,
    Raw,
}

fn min_disk(text: &str) -> Result<i32, String> {
    i32::try_from(size::disk_gib(text)?).map_err(|_| format!("`{text}` is too much"))
}

named!(v1::Image => "croft.v1.Image");

impl Resource for v1::Image {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("NAME", |image| names::id(&image.name).into()),
        Column::new("OWNER", |image| match names::tenant_of(&image.name) {
            "" => "platform".into(),
            tenant => tenant.into(),
        }),
        Column::new("BOOT", boot),
        Column::new("MIN DISK", |image| {
            disk(image).map(|d| format!("{}GiB", d.min_disk_gib)).unwrap_or_default().into()
        }),
        Column::new("HOSTS", hosts),
        Column::new("AGE", |image| age::since(image.metadata.as_ref().and_then(|m| m.create_time.as_ref()))),
        Column::wide("SHA256", |image| {
            let digest = file(image).map(|file| file.sha256.as_str()).unwrap_or_default();
            digest.get(..12).unwrap_or(digest).into()
        }),
        Column::wide("URI", |image| file(image).map(|file| file.uri.clone()).unwrap_or_default().into()),
        Column::wide("LABELS", |image| cell::labels(image.metadata.as_ref())),
    ];

    fn name(&self) -> &str {
        &self.name
    }
}

fn disk(image: &v1::Image) -> Option<&v1::DiskImage> {
    match image.boot.as_ref()? {
        Boot::Disk(disk) => Some(disk),
        Boot::Kernel(kernel) => kernel.root.as_ref(),
    }
}

fn file(image: &v1::Image) -> Option<&v1::ImageFile> {
    match image.boot.as_ref()? {
        Boot::Disk(disk) => disk.file.as_ref(),
        Boot::Kernel(kernel) => kernel.kernel.as_ref(),
    }
}

fn boot(image: &v1::Image) -> Text {
    let firmware = if image.firmware() == Firmware::Bios { "bios" } else { "uefi" };
    match &image.boot {
        Some(Boot::Disk(disk)) => format!("{},{firmware}", disk.format().as_str_name().to_ascii_lowercase()).into(),
        Some(Boot::Kernel(_)) => "kernel".into(),
        None => "".into(),
    }
}

/// `2/3 ready`, or what went wrong.
fn hosts(image: &v1::Image) -> Text {
    use v1::image::host_copy::State;
    let count = |state| image.copies.iter().filter(|copy| copy.state() == state).count();
    let (ready, failed) = (count(State::Ready), count(State::Failed));
    match image.copies.len() {
        0 => "".into(),
        all if failed > 0 => Text::new(format!("{ready}/{all} ready, {failed} failed"), Mood::Bad),
        all if ready < all => Text::new(format!("{ready}/{all} ready"), Mood::Busy),
        all => Text::new(format!("{ready}/{all} ready"), Mood::Good),
    }
}

pub async fn run(app: &App, command: Command) -> Result<()> {
    match command {
        Command::Create(create) => self::create(app, *create).await,
        Command::Get { image } => {
            let image = get(app, resolve(app, &image).await?).await?;
            app.out.one(&image)?;
            if app.out.is_table() { copies(&image) } else { Ok(()) }
        }
        Command::List { all, platform } => list(app, all, platform).await,
        Command::Delete { image, guard } => delete(app, &image, guard).await,
    }
}

/// The hosts that have trouble with it, below the table.
fn copies(image: &v1::Image) -> Result<()> {
    image.copies.iter().filter(|copy| !copy.reason.is_empty()).try_for_each(|copy| {
        crate::output::line(&format!("  {}: {}: {}", names::id(&copy.host), copy.reason, copy.message))
    })
}

async fn create(app: &App, create: Create) -> Result<()> {
    let (parent, id) = owner(app, &create.image, create.platform)?;
    let disk = create.uri.map(|uri| v1::DiskImage {
        file: Some(v1::ImageFile { uri, sha256: create.sha256.unwrap_or_default() }),
        format: match create.format {
            Some(FormatArg::Qcow2) => Format::Qcow2.into(),
            Some(FormatArg::Raw) => Format::Raw.into(),
            None => Format::Unspecified.into(),
        },
        min_disk_gib: create.min_disk_gib.unwrap_or_default(),
    });
    let boot = match create.kernel_uri {
        None => disk.map(Boot::Disk),
        Some(uri) => Some(Boot::Kernel(v1::KernelImage {
            kernel: Some(v1::ImageFile { uri, sha256: create.kernel_sha256.unwrap_or_default() }),
            initrd: create
                .initrd_uri
                .map(|uri| v1::ImageFile { uri, sha256: create.initrd_sha256.unwrap_or_default() }),
            root: disk,
            cmdline: create.cmdline.unwrap_or_default(),
        })),
    };
    let image = v1::Image {
        metadata: create.labels.metadata(),
        description: create.description,
        firmware: if create.bios { Firmware::Bios.into() } else { Firmware::Unspecified.into() },
        boot,
        ..v1::Image::default()
    };
    let request = v1::CreateImageRequest {
        parent,
        image_id: id,
        image: Some(image),
        request_id: create.change.request_id(),
        validate_only: create.change.dry_run,
    };
    let made = app.plane()?.call(request, async |plane, r| plane.images().create_image(r).await).await?;
    app.out.did(&made, &create.change.say("created"))
}

/// The parent and the id that a name stands for at creation.
pub fn owner(app: &App, image: &str, platform: bool) -> Result<(String, String)> {
    let parent = if image.contains('/') {
        names::top("images", image).or_else(|_| names::within(|| app.tenant(), "images", image))?;
        names::parent_of(image)
    } else if platform {
        String::new()
    } else {
        app.chosen.tenant_if_any()?.unwrap_or_default()
    };
    if platform && !parent.is_empty() {
        return Err(Failure::usage(format!("{image} belongs to a tenant; --platform does not go with it")));
    }
    Ok((parent, names::id(image).to_owned()))
}

/// The full name: a short one is the tenant's own image, if it has one of that name, else the platform's.
pub async fn resolve(app: &App, image: &str) -> Result<String> {
    if image.contains('/') {
        return names::top("images", image).or_else(|_| names::within(|| app.tenant(), "images", image));
    }
    let platform = names::top("images", image)?;
    let Some(tenant) = app.chosen.tenant_if_any()? else {
        return Ok(platform);
    };
    match get(app, format!("{tenant}/images/{image}")).await {
        Ok(own) => Ok(own.name),
        Err(Failure::Refused(status)) if status.code() == Code::NotFound => Ok(platform),
        Err(failure) => Err(failure),
    }
}

pub async fn get(app: &App, name: String) -> Result<v1::Image> {
    let request = v1::GetImageRequest { name };
    app.plane()?.call(request, async |plane, r| plane.images().get_image(r).await).await
}

async fn list(app: &App, all: bool, platform: bool) -> Result<()> {
    let parent = match (all, platform) {
        (_, true) => String::new(),
        (all, false) => app.tenant_or_all(all, "-")?,
    };
    let plane = app.plane()?;
    let images = all_pages(async |page_token| {
        let request = v1::ListImagesRequest { parent: parent.clone(), page_token, page_size: 0 };
        let page = plane.call(request, async |plane, r| plane.images().list_images(r).await).await?;
        Ok((page.images, page.next_page_token))
    });
    app.out.list("images", &images.await?)
}

async fn delete(app: &App, image: &str, guard: Guard) -> Result<()> {
    let name = resolve(app, image).await?;
    let request = v1::DeleteImageRequest {
        name: name.clone(),
        request_id: guard.change.request_id(),
        validate_only: guard.change.dry_run,
        etag: guard.etag.clone(),
    };
    app.plane()?.call(request, async |plane, r| plane.images().delete_image(r).await).await?;
    app.out.did_to(&name, &guard.change.say("deleted"))
}
