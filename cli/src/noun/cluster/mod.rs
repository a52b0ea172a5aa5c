//! `croft cluster`: Kubernetes clusters whose nodes instances may become.

mod manifest;
mod show;

use clap::{ArgGroup, Args, Subcommand};
use croft_proto::v1::{self, cluster::Credential, cluster::InCluster};
use tonic::Code;

use crate::app::App;
use crate::failure::{Failure, Result};
use crate::flags::{Change, Guard, all_pages};
use crate::keys::read_text;
use crate::labels::{LabelEdits, Labels, Mask};
use crate::names;

pub use manifest::print as print_manifest;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Register a cluster that works: of the tenant, or of the platform where no tenant is set (or with --platform)
    #[command(
        after_help = "The plane speaks to the cluster first, and refuses one that cannot be reached or lacks a right.\n\
        What the cluster needs before: croft cluster manifest | kubectl apply -f -\n\n\
        Examples:\n  \
        croft cluster register prod --platform --kubeconfig croft.kubeconfig --shared-with acme,globex\n  \
        croft cluster register own --tenant acme --kubeconfig croft.kubeconfig\n  \
        croft cluster register home --platform --in-cluster"
    )]
    Register(Box<Register>),
    /// Show one cluster: how it is, what is missing there, and when what ends
    #[command(visible_alias = "show")]
    Get { cluster: String },
    /// Show the clusters that a tenant may join, those of the platform too
    List {
        /// All that you may see
        #[arg(short = 'A', long)]
        all: bool,
    },
    /// Change who may join, how nodes reach it, the words about it, or its credential; what joined stays joined
    #[command(after_help = "Example:\n  croft cluster update prod --kubeconfig renewed.kubeconfig")]
    Update(Box<Update>),
    /// Forget a cluster that no instance is a node of; the cluster itself is left alone
    Delete {
        cluster: String,
        #[command(flatten)]
        guard: Guard,
    },
    /// Print what an administrator applies to a cluster before it is registered: a service account, its rights, policies
    #[command(after_help = "Needs no plane. Then make the credential:\n  \
        croft cluster manifest | kubectl apply -f -\n  \
        kubectl -n croft-system create token croft --duration 8760h")]
    Manifest,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("credential").required(true).args(["kubeconfig", "in_cluster"]))]
pub struct Register {
    cluster: String,
    /// For every tenant that is named, whatever tenant the context names
    #[arg(long)]
    platform: bool,
    /// One context with server, CA and credential in it; `-` reads stdin. Kept encrypted and never shown again
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<String>,
    /// The plane runs in this cluster as a pod: use its service account
    #[arg(long)]
    in_cluster: bool,
    /// Tenants that may join a cluster of the platform, each with those below it; goes with --platform
    #[arg(long, value_name = "TENANT,…", value_delimiter = ',')]
    shared_with: Vec<String>,
    #[command(flatten)]
    reach: Reach,
    #[arg(long, default_value = "", hide_default_value = true, help = "A word for people")]
    description: String,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
struct Reach {
    /// How nodes reach the API server, where that differs from how the plane does: https://HOST:PORT
    #[arg(long, value_name = "URL")]
    node_server: Option<String>,
    /// The cluster's DNS service, for kubelets; may be given again. Without it, what the cluster says of itself
    #[arg(long = "dns", value_name = "IP")]
    dns: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Update {
    cluster: String,
    /// A new credential, of the same cluster; `-` reads stdin
    #[arg(long, value_name = "FILE", conflicts_with = "in_cluster")]
    kubeconfig: Option<String>,
    /// From now on, the service account of the plane's own pod
    #[arg(long)]
    in_cluster: bool,
    /// Let these tenants join
    #[arg(long, value_name = "TENANT,…", value_delimiter = ',')]
    share_with: Vec<String>,
    /// Let these tenants join no more; what joined stays
    #[arg(long, value_name = "TENANT,…", value_delimiter = ',')]
    unshare: Vec<String>,
    #[command(flatten)]
    reach: Reach,
    #[arg(long, help = "A word for people")]
    description: Option<String>,
    #[command(flatten)]
    labels: LabelEdits,
    #[command(flatten)]
    change: Change,
}

pub async fn run(app: &App, command: Command) -> Result<()> {
    match command {
        Command::Register(register) => self::register(app, *register).await,
        Command::Get { cluster } => {
            let cluster = get(app, resolve(app, &cluster).await?).await?;
            app.out.one(&cluster)?;
            if app.out.is_table() { show::details(&cluster) } else { Ok(()) }
        }
        Command::List { all } => list(app, all).await,
        Command::Update(update) => self::update(app, *update).await,
        Command::Delete { cluster, guard } => delete(app, &cluster, guard).await,
        Command::Manifest => print_manifest(),
    }
}

fn credential(kubeconfig: Option<&str>, in_cluster: bool) -> Result<Option<Credential>> {
    match kubeconfig {
        Some(file) => Ok(Some(Credential::Kubeconfig(read_text(file, "the kubeconfig")?))),
        None if in_cluster => Ok(Some(Credential::InCluster(InCluster {}))),
        None => Ok(None),
    }
}

fn tenants(ids: &[String]) -> Result<Vec<String>> {
    ids.iter().filter(|id| !id.is_empty()).map(|id| names::top("tenants", id)).collect()
}

async fn register(app: &App, register: Register) -> Result<()> {
    let platform = register.platform || !register.shared_with.is_empty();
    let (parent, id) = owner(app, &register.cluster, platform)?;
    let cluster = v1::Cluster {
        metadata: register.labels.metadata(),
        description: register.description,
        tenants: tenants(&register.shared_with)?,
        credential: credential(register.kubeconfig.as_deref(), register.in_cluster)?,
        node_server: register.reach.node_server.unwrap_or_default(),
        cluster_dns: register.reach.dns,
        ..v1::Cluster::default()
    };
    let request = v1::RegisterClusterRequest {
        parent,
        cluster_id: id,
        cluster: Some(cluster),
        request_id: register.change.request_id(),
        validate_only: register.change.dry_run,
    };
    let made = app.plane()?.call(request, async |plane, r| plane.clusters().register_cluster(r).await).await?;
    app.out.did(&made, &register.change.say("registered"))?;
    show::warn(&made);
    Ok(())
}

/// The parent and the id that a name stands for at registration.
pub fn owner(app: &App, cluster: &str, platform: bool) -> Result<(String, String)> {
    let parent = if cluster.contains('/') {
        full(app, cluster)?;
        names::parent_of(cluster)
    } else if platform {
        String::new()
    } else {
        app.chosen.tenant_if_any()?.unwrap_or_default()
    };
    if platform && !parent.is_empty() {
        let why = "belongs to a tenant and those below it; --platform and --shared-with do not go with it";
        return Err(Failure::usage(format!("{cluster} {why}")));
    }
    Ok((parent, names::id(cluster).to_owned()))
}

fn full(app: &App, cluster: &str) -> Result<String> {
    names::top("clusters", cluster).or_else(|_| names::within(|| app.tenant(), "clusters", cluster))
}

/// The full name: a short one is the tenant's own cluster, if it has one of that name, else the platform's.
pub async fn resolve(app: &App, cluster: &str) -> Result<String> {
    if cluster.contains('/') {
        return full(app, cluster);
    }
    let platform = names::top("clusters", cluster)?;
    let Some(tenant) = app.chosen.tenant_if_any()? else {
        return Ok(platform);
    };
    match get(app, format!("{tenant}/clusters/{cluster}")).await {
        Ok(own) => Ok(own.name),
        Err(Failure::Refused(status)) if status.code() == Code::NotFound => Ok(platform),
        Err(failure) => Err(failure),
    }
}

pub async fn get(app: &App, name: String) -> Result<v1::Cluster> {
    let request = v1::GetClusterRequest { name };
    app.plane()?.call(request, async |plane, r| plane.clusters().get_cluster(r).await).await
}

async fn list(app: &App, all: bool) -> Result<()> {
    let parent = app.tenant_or_all(all, "-")?;
    let plane = app.plane()?;
    let clusters = all_pages(async |page_token| {
        let request = v1::ListClustersRequest { parent: parent.clone(), page_token, page_size: 0 };
        let page = plane.call(request, async |plane, r| plane.clusters().list_clusters(r).await).await?;
        Ok((page.clusters, page.next_page_token))
    });
    app.out.list("clusters", &clusters.await?)
}

async fn update(app: &App, update: Update) -> Result<()> {
    let mut cluster = get(app, resolve(app, &update.cluster).await?).await?;
    let mut mask = Mask::default();
    cluster.credential = credential(update.kubeconfig.as_deref(), update.in_cluster)?;
    match cluster.credential {
        Some(Credential::Kubeconfig(_)) => mask.add("kubeconfig"),
        Some(Credential::InCluster(_)) => mask.add("in_cluster"),
        None => {}
    }
    if !update.share_with.is_empty() || !update.unshare.is_empty() {
        let unshared = tenants(&update.unshare)?;
        cluster.tenants.retain(|tenant| !unshared.contains(tenant));
        for tenant in tenants(&update.share_with)? {
            if !cluster.tenants.contains(&tenant) {
                cluster.tenants.push(tenant);
            }
        }
        mask.add("tenants");
    }
    if let Some(node_server) = update.reach.node_server {
        cluster.node_server = node_server;
        mask.add("node_server");
    }
    if !update.reach.dns.is_empty() {
        cluster.cluster_dns = update.reach.dns.into_iter().filter(|address| !address.is_empty()).collect();
        mask.add("cluster_dns");
    }
    if let Some(description) = update.description {
        cluster.description = description;
        mask.add("description");
    }
    update.labels.apply(&mut cluster.metadata, &mut mask);
    let request = v1::UpdateClusterRequest {
        cluster: Some(cluster),
        update_mask: mask.finish()?,
        request_id: update.change.request_id(),
        validate_only: update.change.dry_run,
    };
    let cluster = app.plane()?.call(request, async |plane, r| plane.clusters().update_cluster(r).await).await?;
    app.out.did(&cluster, &update.change.say("updated"))?;
    show::warn(&cluster);
    Ok(())
}

async fn delete(app: &App, cluster: &str, guard: Guard) -> Result<()> {
    let name = resolve(app, cluster).await?;
    let request = v1::DeleteClusterRequest {
        name: name.clone(),
        request_id: guard.change.request_id(),
        validate_only: guard.change.dry_run,
        etag: guard.etag.clone(),
    };
    app.plane()?.call(request, async |plane, r| plane.clusters().delete_cluster(r).await).await?;
    app.out.did_to(&name, &guard.change.say("deleted"))
}
