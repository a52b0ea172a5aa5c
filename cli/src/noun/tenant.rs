//! `croft tenant`: the tree of tenants.

use clap::{Args, Subcommand};
use croft_proto::v1;

use crate::app::App;
use crate::failure::Result;
use crate::flags::{Change, Guard, all_pages};
use crate::labels::{LabelEdits, Labels, Mask};
use crate::names;
use crate::output::{Resource, age, cell, named, table::Column};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a tenant
    #[command(
        after_help = "Example:\n  croft tenant create acme-research --parent acme --display-name 'Acme Research'"
    )]
    Create(Create),
    /// Show one tenant
    Get { tenant: String },
    /// Show tenants
    List {
        /// Only the children of this tenant
        #[arg(long)]
        parent: Option<String>,
    },
    /// Change display name, labels or annotations; the parent never changes
    Update(Update),
    /// Delete a tenant that has no children, instances or images
    Delete {
        tenant: String,
        #[command(flatten)]
        guard: Guard,
    },
}

#[derive(Debug, Args)]
pub struct Create {
    /// 1 to 40 of a-z, 0-9 and -, beginning with a letter
    tenant: String,
    /// The tenant above it; what it uses counts there, too
    #[arg(long)]
    parent: Option<String>,
    #[arg(long, default_value = "", hide_default_value = true, help = "A name for people")]
    display_name: String,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
pub struct Update {
    tenant: String,
    #[arg(long, help = "A name for people")]
    display_name: Option<String>,
    #[command(flatten)]
    labels: LabelEdits,
    #[command(flatten)]
    change: Change,
}

named!(v1::Tenant => "croft.v1.Tenant");

impl Resource for v1::Tenant {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("NAME", |tenant| names::id(&tenant.name).into()),
        Column::new("PARENT", |tenant| names::id(&tenant.parent).into()),
        Column::new("DISPLAY NAME", |tenant| tenant.display_name.as_str().into()),
        Column::new("AGE", |tenant| age::since(tenant.metadata.as_ref().and_then(|m| m.create_time.as_ref()))),
        Column::wide("UID", |tenant| cell::uid(tenant.metadata.as_ref())),
        Column::wide("LABELS", |tenant| cell::labels(tenant.metadata.as_ref())),
    ];

    fn name(&self) -> &str {
        &self.name
    }
}

pub async fn run(app: &App, command: Command) -> Result<()> {
    match command {
        Command::Create(create) => self::create(app, create).await,
        Command::Get { tenant } => app.out.one(&get(app, names::top("tenants", &tenant)?).await?),
        Command::List { parent } => list(app, parent).await,
        Command::Update(update) => self::update(app, update).await,
        Command::Delete { tenant, guard } => delete(app, &tenant, guard).await,
    }
}

async fn create(app: &App, create: Create) -> Result<()> {
    let tenant = v1::Tenant {
        parent: create.parent.as_deref().map(|parent| names::top("tenants", parent)).transpose()?.unwrap_or_default(),
        display_name: create.display_name,
        metadata: create.labels.metadata(),
        ..v1::Tenant::default()
    };
    let request = v1::CreateTenantRequest {
        tenant_id: names::id(&names::top("tenants", &create.tenant)?).to_owned(),
        tenant: Some(tenant),
        request_id: create.change.request_id(),
        validate_only: create.change.dry_run,
    };
    let made = app.plane()?.call(request, async |plane, r| plane.tenants().create_tenant(r).await).await?;
    app.out.did(&made, &create.change.say("created"))
}

pub async fn get(app: &App, name: String) -> Result<v1::Tenant> {
    let request = v1::GetTenantRequest { name };
    app.plane()?.call(request, async |plane, r| plane.tenants().get_tenant(r).await).await
}

async fn list(app: &App, parent: Option<String>) -> Result<()> {
    let parent = parent.as_deref().map(|parent| names::top("tenants", parent)).transpose()?.unwrap_or_default();
    let plane = app.plane()?;
    let tenants = all_pages(async |page_token| {
        let request = v1::ListTenantsRequest { parent: parent.clone(), page_token, page_size: 0 };
        let page = plane.call(request, async |plane, r| plane.tenants().list_tenants(r).await).await?;
        Ok((page.tenants, page.next_page_token))
    });
    app.out.list("tenants", &tenants.await?)
}

async fn update(app: &App, update: Update) -> Result<()> {
    let mut tenant = get(app, names::top("tenants", &update.tenant)?).await?;
    let mut mask = Mask::default();
    if let Some(display_name) = update.display_name {
        tenant.display_name = display_name;
        mask.add("display_name");
    }
    update.labels.apply(&mut tenant.metadata, &mut mask);
    let request = v1::UpdateTenantRequest {
        tenant: Some(tenant),
        update_mask: mask.finish()?,
        request_id: update.change.request_id(),
        validate_only: update.change.dry_run,
    };
    let tenant = app.plane()?.call(request, async |plane, r| plane.tenants().update_tenant(r).await).await?;
    app.out.did(&tenant, &update.change.say("updated"))
}

async fn delete(app: &App, tenant: &str, guard: Guard) -> Result<()> {
    let name = names::top("tenants", tenant)?;
    let request = v1::DeleteTenantRequest {
        name: name.clone(),
        request_id: guard.change.request_id(),
        validate_only: guard.change.dry_run,
        etag: guard.etag.clone(),
    };
    app.plane()?.call(request, async |plane, r| plane.tenants().delete_tenant(r).await).await?;
    app.out.did_to(&name, &guard.change.say("deleted"))
}
