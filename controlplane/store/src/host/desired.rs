//! What a host should run, and what must not be there: one snapshot at (epoch, revision).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use croft_core::device::Layout;
use croft_core::id::{DeviceId, HostId, ImageUid, InstanceUid, NetworkId, TenantId};
use croft_core::image::Image;
use croft_core::instance::Instance;
use croft_core::instance::machine::is_buried;
use croft_core::join::machine::{disk_told, power_told};
use croft_core::network::{self, Network};
use croft_core::tenant::Tenant;
use croft_core::{Error, Result};
use sqlx::AnyConnection;

use crate::open::Store;
use crate::sql::sql;
use crate::{change, image, instance, tenant};

#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    pub epoch: i64,
    pub revision: i64,
    /// With the networks of its interfaces, the default one excluded.
    pub instances: Vec<(Instance, Image, Tenant, Vec<Network>)>,
    pub tombstones: Vec<Tombstone>,
    pub disk_reserve_gib: i64,
    pub layout: Layout,
    /// Devices whose hardware of now is accepted, each with its counter.
    pub releases: Vec<(DeviceId, i64)>,
}

/// What must not be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tombstone {
    pub uid: InstanceUid,
    /// Of the delete; 0: it was fenced.
    pub generation: i64,
    /// Pull the plug at once.
    pub force: bool,
    pub stop_timeout: Duration,
}

/// What instances refer to, each read once.
struct Referred {
    images: BTreeMap<ImageUid, Image>,
    tenants: BTreeMap<TenantId, Tenant>,
    networks: BTreeMap<NetworkId, Network>,
}

impl Referred {
    async fn read(conn: &mut AnyConnection, instances: &[Instance]) -> Result<Self> {
        let images: BTreeSet<ImageUid> = instances.iter().map(|instance| instance.spec.image_uid).collect();
        let tenants: BTreeSet<&TenantId> = instances.iter().map(|instance| &instance.tenant).collect();
        let networks: BTreeSet<NetworkId> = instances.iter().flat_map(networks_of).cloned().collect();
        let mut read = BTreeMap::new();
        for id in tenants {
            read.insert(id.clone(), tenant::require(conn, id).await?);
        }
        let images = image::by_uids(conn, &images.into_iter().collect::<Vec<_>>()).await?;
        let networks = crate::network::by_ids(conn, &networks.into_iter().collect::<Vec<_>>()).await?;
        Ok(Self {
            images: images.into_iter().map(|image| (image.uid, image)).collect(),
            tenants: read,
            networks: networks.into_iter().map(|network| (network.id.clone(), network)).collect(),
        })
    }

    fn join(&self, instance: Instance) -> Result<(Instance, Image, Tenant, Vec<Network>)> {
        // Foreign keys hold all three.
        let lost = |what: &str| Error::internal(format!("{} refers to {what} that is not there", instance.name()));
        let image = self.images.get(&instance.spec.image_uid).cloned().ok_or_else(|| lost("an image"))?;
        let tenant = self.tenants.get(&instance.tenant).cloned().ok_or_else(|| lost("a tenant"))?;
        let networks = networks_of(&instance)
            .map(|id| self.networks.get(id).cloned().ok_or_else(|| lost("a network")))
            .collect::<Result<_>>()?;
        Ok((instance, image, tenant, networks))
    }
}

pub(crate) fn networks_of(instance: &Instance) -> impl Iterator<Item = &NetworkId> {
    instance.spec.interfaces.iter().map(|interface| &interface.network).filter(|id| id.as_str() != network::DEFAULT)
}

fn of_deleted(instance: &Instance) -> Tombstone {
    Tombstone {
        uid: instance.uid,
        generation: instance.meta.generation,
        force: instance.intent.delete_force,
        stop_timeout: instance.intent.effective_stop_timeout(),
    }
}

/// As its host is told of it.
fn as_told(mut instance: Instance) -> Instance {
    instance.intent.disk_generation = disk_told(&instance);
    (instance.intent.power, instance.intent.power_generation) = power_told(&instance);
    instance
}

impl Store {
    pub async fn host_desired(&self, id: &HostId) -> Result<Desired> {
        let mut tx = self.snapshot().await?;
        let host = super::require(&mut tx, id).await?;
        let revision = change::revision(&mut tx).await?;
        let (leaving, staying): (Vec<Instance>, Vec<Instance>) =
            instance::on_host(&mut tx, id).await?.into_iter().partition(is_buried);
        let staying: Vec<Instance> = staying.into_iter().map(as_told).collect();
        let referred = Referred::read(&mut tx, &staying).await?;
        let fenced: Vec<(String,)> =
            sql("SELECT instance_uid FROM fenced WHERE host = $1 ORDER BY instance_uid").bind(id).all(&mut tx).await?;
        let mut tombstones: Vec<_> = leaving.iter().map(of_deleted).collect();
        for (uid,) in fenced {
            let uid = instance::uid(&uid)?;
            tombstones.push(Tombstone { uid, generation: 0, force: true, stop_timeout: Duration::ZERO });
        }
        let releases: Vec<(String, i64)> = sql("SELECT device, release_counter
                                                FROM devices
                                                WHERE host = $1 AND release_counter > 0
                                                ORDER BY device")
        .bind(id)
        .all(&mut tx)
        .await?;
        let releases = releases.into_iter().map(|(device, counter)| (DeviceId(device), counter)).collect();
        Ok(Desired {
            epoch: host.epoch,
            revision,
            instances: staying.into_iter().map(|one| referred.join(one)).collect::<Result<_>>()?,
            tombstones,
            disk_reserve_gib: host.reserve.disk_gib,
            layout: super::layout::get(&mut tx, id).await?,
            releases,
        })
    }
}
