//! `croft network`: networks that operators define and grant. Tenants without one get their own filtered NAT network.

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
    /// Define a network on a bridge that the hosts have
    #[command(after_help = "Example:\n  croft network create storage --bridge br-storage --vlan 120 --grant acme")]
    Create(Create),
    /// Show one network
    Get { network: String },
    /// Show the networks that you may see
    List,
    /// Change who may attach, the description, labels or annotations
    Update(Update),
    /// Delete a network that no instance is attached to
    Delete {
        network: String,
        #[command(flatten)]
        guard: Guard,
    },
}

#[derive(Debug, Args)]
pub struct Create {
    network: String,
    /// The bridge's name on the hosts; never changes
    #[arg(long)]
    bridge: String,
    /// 1 to 4094 on a VLAN-aware bridge; 0: untagged. Never changes
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    vlan: i32,
    /// A tenant that may attach, and every tenant below it; may be given again
    #[arg(long = "grant", value_name = "TENANT")]
    grants: Vec<String>,
    #[arg(long, default_value = "", hide_default_value = true, help = "A word for people")]
    description: String,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
pub struct Update {
    network: String,
    /// Let this tenant attach; may be given again
    #[arg(long = "grant", value_name = "TENANT")]
    grants: Vec<String>,
    /// Let this tenant attach no more; may be given again
    #[arg(long = "revoke", value_name = "TENANT")]
    revokes: Vec<String>,
    #[arg(long, help = "A word for people")]
    description: Option<String>,
    #[command(flatten)]
    labels: LabelEdits,
    #[command(flatten)]
    change: Change,
}

named!(v1::Network => "croft.v1.Network");

impl Resource for v1::Network {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("NAME", |network| names::id(&network.name).into()),
        Column::new("BRIDGE", |network| network.bridge.as_str().into()),
        Column::new("VLAN", |network| if network.vlan == 0 { "untagged".into() } else { network.vlan.into() }),
        Column::new("GRANTED TO", |network| {
            let ids: Vec<_> = network.granted_tenants.iter().map(|name| names::id(name)).collect();
            cell::few(&ids, 4)
        }),
        Column::new("AGE", |network| age::since(network.metadata.as_ref().and_then(|m| m.create_time.as_ref()))),
        Column::wide("DESCRIPTION", |network| network.description.as_str().into()),
        Column::wide("LABELS", |network| cell::labels(network.metadata.as_ref())),
    ];

    fn name(&self) -> &str {
        &self.name
    }
}

pub async fn run(app: &App, command: Command) -> Result<()> {
    match command {
        Command::Create(create) => self::create(app, create).await,
        Command::Get { network } => app.out.one(&get(app, names::top("networks", &network)?).await?),
        Command::List => list(app).await,
        Command::Update(update) => self::update(app, update).await,
        Command::Delete { network, guard } => delete(app, &network, guard).await,
    }
}

fn tenants(ids: &[String]) -> Result<Vec<String>> {
    ids.iter().map(|id| names::top("tenants", id)).collect()
}

async fn create(app: &App, create: Create) -> Result<()> {
    let network = v1::Network {
        metadata: create.labels.metadata(),
        description: create.description,
        bridge: create.bridge,
        vlan: create.vlan,
        granted_tenants: tenants(&create.grants)?,
        ..v1::Network::default()
    };
    let request = v1::CreateNetworkRequest {
        network_id: names::id(&names::top("networks", &create.network)?).to_owned(),
        network: Some(network),
        request_id: create.change.request_id(),
        validate_only: create.change.dry_run,
    };
    let made = app.plane()?.call(request, async |plane, r| plane.networks().create_network(r).await).await?;
    app.out.did(&made, &create.change.say("created"))
}

pub async fn get(app: &App, name: String) -> Result<v1::Network> {
    let request = v1::GetNetworkRequest { name };
    app.plane()?.call(request, async |plane, r| plane.networks().get_network(r).await).await
}

async fn list(app: &App) -> Result<()> {
    let plane = app.plane()?;
    let networks = all_pages(async |page_token| {
        let request = v1::ListNetworksRequest { page_token, page_size: 0 };
        let page = plane.call(request, async |plane, r| plane.networks().list_networks(r).await).await?;
        Ok((page.networks, page.next_page_token))
    });
    app.out.list("networks", &networks.await?)
}

async fn update(app: &App, update: Update) -> Result<()> {
    let mut network = get(app, names::top("networks", &update.network)?).await?;
    let mut mask = Mask::default();
    if !update.grants.is_empty() || !update.revokes.is_empty() {
        let revoked = tenants(&update.revokes)?;
        network.granted_tenants.retain(|tenant| !revoked.contains(tenant));
        for tenant in tenants(&update.grants)? {
            if !network.granted_tenants.contains(&tenant) {
                network.granted_tenants.push(tenant);
            }
        }
        mask.add("granted_tenants");
    }
    if let Some(description) = update.description {
        network.description = description;
        mask.add("description");
    }
    update.labels.apply(&mut network.metadata, &mut mask);
    let request = v1::UpdateNetworkRequest {
        network: Some(network),
        update_mask: mask.finish()?,
        request_id: update.change.request_id(),
        validate_only: update.change.dry_run,
    };
    let network = app.plane()?.call(request, async |plane, r| plane.networks().update_network(r).await).await?;
    app.out.did(&network, &update.change.say("updated"))
}

async fn delete(app: &App, network: &str, guard: Guard) -> Result<()> {
    let name = names::top("networks", network)?;
    let request = v1::DeleteNetworkRequest {
        name: name.clone(),
        request_id: guard.change.request_id(),
        validate_only: guard.change.dry_run,
        etag: guard.etag.clone(),
    };
    app.plane()?.call(request, async |plane, r| plane.networks().delete_network(r).await).await?;
    app.out.did_to(&name, &guard.change.say("deleted"))
}
