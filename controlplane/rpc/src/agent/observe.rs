//! Truth comes in: into the store where it differs from what is known, and then whoever may act on it is woken.

use croft_core::id::HostId;
use croft_core::{Error, Result};
use croft_proto::agent::v1 as wire;
use croft_store::{DeviceReport, HostReport};

use crate::api::Api;
use crate::convert;

/// The parts of a session that observations are read against.
#[derive(Debug)]
pub struct Observer {
    pub api: Api,
    pub host: HostId,
    pub features: Vec<String>,
    pub boot_id: String,
    /// The epoch in the agent's journal: what it says was true in that one.
    pub epoch: i64,
}

impl Observer {
    pub async fn observe(&self, observation: wire::Observation) -> Result<()> {
        let wire::Observation { host, instances, complete, images } = observation;
        if let Some(host) = host {
            self.host(host).await?;
        }
        for image in images {
            self.image(image).await?;
        }
        if !instances.is_empty() || complete {
            self.instances(instances, complete).await?;
        }
        Ok(())
    }

    async fn host(&self, mut observation: wire::HostObservation) -> Result<()> {
        let devices = DeviceReport {
            // A look that failed says nothing of any device.
            devices: observation.devices_seen.then(|| convert::device::report_into(observation.devices.split_off(0))),
            boot_id: self.boot_id.clone(),
            layout_generation: observation.layout_generation,
            layout_problems: convert::layout::problems_into(observation.layout_problems.split_off(0)),
        };
        let report = HostReport {
            capacity: convert::host::capacity_into(observation.capacity.unwrap_or_default()),
            foreign: observation.foreign.map(convert::host::foreign_into),
            info: convert::info::into(&observation.info.unwrap_or_default())?,
            features: self.features.clone(),
            conditions: convert::observed::conditions_into(observation.conditions),
            boot_id: self.boot_id.clone(),
        };
        let host_moved = self.api.store().host_report(&self.host, report).await?;
        let devices_moved = self.api.store().device_report(&self.host, devices).await?;
        if host_moved || devices_moved {
            self.api.deps.wake.hosts();
        }
        Ok(())
    }

    async fn image(&self, observation: wire::ImageObservation) -> Result<()> {
        let Some((uid, copy)) = convert::observed::image_into(&self.host, observation) else {
            tracing::warn!(host = %self.host, "a report of an image without a uid or a state was dropped");
            return Ok(());
        };
        match self.api.store().image_copy_put(uid, copy).await {
            // Deleted while the host still had it.
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn instances(&self, instances: Vec<wire::InstanceObservation>, complete: bool) -> Result<()> {
        let all = instances.len();
        let seen: Vec<_> = instances.into_iter().filter_map(convert::observed::into).collect();
        // What cannot be read was seen all the same: a census with a line missing is none.
        let complete = complete && seen.len() == all;
        if seen.len() < all {
            tracing::warn!(host = %self.host, dropped = all - seen.len(), "reports without a uid or a phase were dropped");
        }
        for uid in self.api.store().instance_observe(&self.host, self.epoch, seen, complete).await? {
            self.api.deps.wake.instance(uid);
        }
        Ok(())
    }
}
