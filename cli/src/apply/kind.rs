//! What each kind can do: be read, created, updated; and which of its fields may change.

use croft_proto::v1::{self, instance_spec::Power};
use serde_json::Value;
use tonic::Code;
use uuid::Uuid;

use super::document::Document;
use crate::app::App;
use crate::failure::{Failure, Result};
use crate::labels::Mask;
use crate::names;
use crate::noun::{cluster, image, instance, network, pool, quota, tenant};
use crate::output::Named;
use crate::output::proto_json;

/// In the order in which they are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Tenant,
    Quota,
    Network,
    Pool,
    Image,
    Cluster,
    Instance,
}

/// What is there now.
#[derive(Debug, Clone)]
pub struct Live {
    pub value: Value,
    etag: String,
}

impl Live {
    pub fn new<M: prost::Message>(name: &str, message: &M, etag: &str) -> Result<Self> {
        Ok(Self { value: proto_json::to_value(name, message)?, etag: etag.to_owned() })
    }

    fn is_unlimited(&self) -> bool {
        self.value.get("limit").is_none_or(Value::is_null)
    }

    fn of<M: Named>(message: &M, metadata: Option<&v1::Metadata>) -> Result<Self> {
        Self::new(M::MESSAGE, message, metadata.map(|metadata| metadata.etag.as_str()).unwrap_or_default())
    }
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Tenant, Self::Quota, Self::Network, Self::Pool, Self::Image, Self::Cluster, Self::Instance];

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    pub fn of_name(name: &str) -> Option<Self> {
        match name.split('/').collect::<Vec<_>>()[..] {
            ["tenants", _] => Some(Self::Tenant),
            ["networks", _] => Some(Self::Network),
            ["pools", _] => Some(Self::Pool),
            ["images", _] | ["tenants", _, "images", _] => Some(Self::Image),
            ["clusters", _] | ["tenants", _, "clusters", _] => Some(Self::Cluster),
            ["tenants", _, "instances", _] => Some(Self::Instance),
            ["tenants", _, "quotas", ..] => Some(Self::Quota),
            _ => None,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Tenant => "Tenant",
            Self::Quota => "Quota",
            Self::Network => "Network",
            Self::Pool => "Pool",
            Self::Image => "Image",
            Self::Cluster => "Cluster",
            Self::Instance => "Instance",
        }
    }

    pub fn message(self) -> &'static str {
        match self {
            Self::Tenant => v1::Tenant::MESSAGE,
            Self::Quota => v1::Quota::MESSAGE,
            Self::Network => v1::Network::MESSAGE,
            Self::Pool => v1::Pool::MESSAGE,
            Self::Image => v1::Image::MESSAGE,
            Self::Cluster => v1::Cluster::MESSAGE,
            Self::Instance => v1::Instance::MESSAGE,
        }
    }

    /// Every field has a place and a value that fits, before anything is sent.
    pub fn check(self, document: &Document) -> Result<()> {
        match self {
            Self::Tenant => document.parse::<v1::Tenant>().map(drop),
            Self::Quota => document.parse::<v1::Quota>().map(drop),
            Self::Network => document.parse::<v1::Network>().map(drop),
            Self::Pool => document.parse::<v1::Pool>().map(drop),
            Self::Image => document.parse::<v1::Image>().map(drop),
            Self::Cluster => document.parse::<v1::Cluster>().map(drop),
            Self::Instance => document.parse::<v1::Instance>().map(drop),
        }
    }

    /// Paths that an update may name.
    pub fn mutable(self) -> &'static [&'static str] {
        match self {
            Self::Tenant => &["display_name", LABELS, ANNOTATIONS],
            Self::Quota => &["limit", LABELS, ANNOTATIONS],
            Self::Network => &["description", "granted_tenants", LABELS, ANNOTATIONS],
            Self::Pool => &["description", "match", LABELS, ANNOTATIONS],
            Self::Image => &[],
            Self::Cluster => &["description", "tenants", "node_server", "cluster_dns", LABELS, ANNOTATIONS],
            Self::Instance => &[LABELS, ANNOTATIONS, "spec.restart", "spec.stop_timeout", "spec.node.repair", POWER],
        }
    }

    /// What to do about a field that may not.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Tenant => "a tenant's parent is for ever",
            Self::Quota => "only limit, labels and annotations are yours to set",
            Self::Network => "bridge and VLAN are for ever: make another network",
            Self::Pool => "everything but its name may change",
            Self::Image => "an image never changes: register a new one",
            Self::Cluster => "a new credential is given with `croft cluster update --kubeconfig`",
            Self::Instance => {
                "the shape of a VM is fixed at creation: delete it and make it again (devices come and go with `croft instance \
                               attach` and `detach`)"
            }
        }
    }
}

const LABELS: &str = "metadata.labels";
const ANNOTATIONS: &str = "metadata.annotations";
/// Changed by start and stop, not by an update.
const POWER: &str = "spec.power";

pub async fn read(app: &App, document: &Document) -> Result<Option<Live>> {
    let name = document.name.clone();
    let live = match document.kind {
        Kind::Tenant => tenant::get(app, name).await.and_then(|it| Live::of(&it, it.metadata.as_ref())),
        Kind::Quota => quota::get(app, name).await.and_then(|it| Live::of(&it, it.metadata.as_ref())),
        Kind::Network => network::get(app, name).await.and_then(|it| Live::of(&it, it.metadata.as_ref())),
        Kind::Pool => pool::get(app, name).await.and_then(|it| Live::of(&it, it.metadata.as_ref())),
        Kind::Image => image::get(app, name).await.and_then(|it| Live::of(&it, it.metadata.as_ref())),
        Kind::Cluster => cluster::get(app, name).await.and_then(|it| Live::of(&it, it.metadata.as_ref())),
        Kind::Instance => instance::get(app, name).await.and_then(|it| Live::of(&it, it.metadata.as_ref())),
    };
    match live {
        // Every quota can be read; one without a limit is as good as missing to who wants one.
        Ok(live) if document.kind == Kind::Quota && live.is_unlimited() && document.sets_limit() => Ok(None),
        Ok(live) => Ok(Some(live)),
        Err(Failure::Refused(status)) if status.code() == Code::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

pub async fn create(app: &App, document: &Document, validate_only: bool) -> Result<Option<v1::Operation>> {
    let plane = app.plane()?;
    let (parent, id) = (names::parent_of(&document.name), names::id(&document.name).to_owned());
    let request_id = request_id();
    match document.kind {
        Kind::Tenant => {
            let tenant = Some(document.parse()?);
            let request = v1::CreateTenantRequest { tenant_id: id, tenant, request_id, validate_only };
            plane.call(request, async |plane, r| plane.tenants().create_tenant(r).await).await?;
        }
        // The limit in any case: one that the file leaves out is unlimited.
        Kind::Quota => {
            let mut paths = vec!["limit".to_owned()];
            let said = |path: &str| document.declared.pointer(&format!("/{}", path.replace('.', "/"))).is_some();
            paths.extend([LABELS, ANNOTATIONS].into_iter().filter(|path| said(path)).map(str::to_owned));
            set_quota(app, document.parse()?, &paths, validate_only).await?;
        }
        Kind::Network => {
            let network = Some(document.parse()?);
            let request = v1::CreateNetworkRequest { network_id: id, network, request_id, validate_only };
            plane.call(request, async |plane, r| plane.networks().create_network(r).await).await?;
        }
        Kind::Pool => {
            let pool = Some(document.parse()?);
            let request = v1::CreatePoolRequest { pool_id: id, pool, request_id, validate_only };
            plane.call(request, async |plane, r| plane.pools().create_pool(r).await).await?;
        }
        Kind::Image => {
            let image = Some(document.parse()?);
            let request = v1::CreateImageRequest { parent, image_id: id, image, request_id, validate_only };
            plane.call(request, async |plane, r| plane.images().create_image(r).await).await?;
        }
        Kind::Cluster => {
            let cluster = Some(document.parse()?);
            let request = v1::RegisterClusterRequest { parent, cluster_id: id, cluster, request_id, validate_only };
            plane.call(request, async |plane, r| plane.clusters().register_cluster(r).await).await?;
        }
        Kind::Instance => {
            let instance = Some(document.parse()?);
            let request = v1::CreateInstanceRequest { parent, instance_id: id, instance, request_id, validate_only };
            let operation = plane.call(request, async |plane, r| plane.instances().create_instance(r).await).await?;
            return Ok(Some(operation));
        }
    }
    Ok(None)
}

/// Writes only if nothing changed since `live` was read.
pub async fn update(
    app: &App,
    document: &Document,
    live: &Live,
    paths: &[String],
    validate_only: bool,
) -> Result<Option<v1::Operation>> {
    let plane = app.plane()?;
    let request_id = request_id();
    let mask: Vec<_> = paths.iter().filter(|path| *path != POWER).cloned().collect();
    let update_mask = Some(prost_types::FieldMask { paths: mask.clone() });
    match document.kind {
        Kind::Tenant => {
            let mut tenant: v1::Tenant = document.parse()?;
            guard(&mut tenant.metadata, live);
            let request = v1::UpdateTenantRequest { tenant: Some(tenant), update_mask, request_id, validate_only };
            plane.call(request, async |plane, r| plane.tenants().update_tenant(r).await).await?;
        }
        Kind::Quota => {
            let mut quota: v1::Quota = document.parse()?;
            guard(&mut quota.metadata, live);
            set_quota(app, quota, paths, validate_only).await?;
        }
        Kind::Network => {
            let mut network: v1::Network = document.parse()?;
            guard(&mut network.metadata, live);
            let request = v1::UpdateNetworkRequest { network: Some(network), update_mask, request_id, validate_only };
            plane.call(request, async |plane, r| plane.networks().update_network(r).await).await?;
        }
        Kind::Pool => {
            let mut pool: v1::Pool = document.parse()?;
            guard(&mut pool.metadata, live);
            let request = v1::UpdatePoolRequest { pool: Some(pool), update_mask, request_id, validate_only };
            plane.call(request, async |plane, r| plane.pools().update_pool(r).await).await?;
        }
        Kind::Cluster => {
            let mut cluster: v1::Cluster = document.parse()?;
            // What the update does not name is not sent, least of all a secret.
            cluster.credential = None;
            guard(&mut cluster.metadata, live);
            let request = v1::UpdateClusterRequest { cluster: Some(cluster), update_mask, request_id, validate_only };
            plane.call(request, async |plane, r| plane.clusters().update_cluster(r).await).await?;
        }
        // It has no mutable field, so nobody gets here with a difference.
        Kind::Image => {}
        Kind::Instance => {
            let mut instance: v1::Instance = document.parse()?;
            if !mask.is_empty() {
                guard(&mut instance.metadata, live);
                let instance = Some(instance.clone());
                let request = v1::UpdateInstanceRequest { instance, update_mask, request_id, validate_only };
                plane.call(request, async |plane, r| plane.instances().update_instance(r).await).await?;
            }
            if mask.len() < paths.len() {
                return power(app, document, &instance, validate_only).await.map(Some);
            }
        }
    }
    Ok(None)
}

async fn power(app: &App, document: &Document, wanted: &v1::Instance, validate_only: bool) -> Result<v1::Operation> {
    let plane = app.plane()?;
    let (name, request_id, etag) = (document.name.clone(), request_id(), String::new());
    match wanted.spec.as_ref().map(v1::InstanceSpec::power) {
        Some(Power::Stopped) => {
            let request = v1::StopInstanceRequest { name, etag, request_id, validate_only, timeout: None };
            plane.call(request, async |plane, r| plane.instances().stop_instance(r).await).await
        }
        Some(Power::Running) => {
            let request = v1::StartInstanceRequest { name, etag, request_id, validate_only };
            plane.call(request, async |plane, r| plane.instances().start_instance(r).await).await
        }
        Some(Power::Unspecified) | None => {
            Err(Failure::usage(format!("{}: spec.power: RUNNING or STOPPED", document.place)))
        }
    }
}

/// A limit that is named and null, or left out, means unlimited.
async fn set_quota(app: &App, quota: v1::Quota, paths: &[String], validate_only: bool) -> Result<()> {
    let mut mask = Mask::default();
    paths.iter().for_each(|path| mask.add(path));
    quota::set_one(app, quota, mask, validate_only, request_id()).await.map(drop)
}

/// The file's own etag, if it has one, else that of what was just compared.
fn guard(metadata: &mut Option<v1::Metadata>, live: &Live) {
    let metadata = metadata.get_or_insert_default();
    if metadata.etag.is_empty() {
        metadata.etag.clone_from(&live.etag);
    }
}

fn request_id() -> String {
    Uuid::now_v7().to_string()
}
