//! Devices: exact pieces with one owner each, charged by what they are, given back by the host's word alone.

mod attaching;
mod charges;
mod elsewhere;
mod operators;
mod overlap;
mod pieces;
mod pools;
mod told;

use croft_core::Result;
use croft_core::device::{Device, Mode, Request};
use croft_core::instance::Instance;
use croft_core::ports::NewInstance;

use crate::bed::{Bed, call, h, small};

const GPU: &str = "0000:41:00.0";
const MODEL: &str = "h100_sxm_80gb";

fn with(id: &str, devices: Vec<Request>) -> NewInstance {
    let mut new = small("acme", id);
    new.spec.devices = devices;
    new
}

impl Bed {
    /// One host with these devices; `acme` may have all of them.
    pub async fn with_devices(devices: Vec<Device>) -> Self {
        let bed = Self::furnished().await;
        bed.devices("h1", devices).await;
        bed.limit("acme", "gpu_memory_mib", 1 << 30).await;
        bed
    }

    async fn have(&self, id: &str, devices: Vec<Request>) -> Result<Instance> {
        self.claim(call(), with(id, devices)).await.map(|(_, instance)| instance)
    }

    async fn mode(&self, device: &str) -> Mode {
        self.record("h1", device).await.promise.unwrap().mode
    }

    async fn version(&self) -> i64 {
        self.store.host_view(&h("h1")).await.unwrap().unwrap().version
    }
}
