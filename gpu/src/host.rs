//! One look at all devices of a host: what plans are made from.

mod probe;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bus::Inventory;
use crate::error::ProbeError;
use crate::gpu::Gpu;
use crate::pci::{PciAddress, PciFunction};
use crate::usb::UsbDevice;

/// What one look found. Devices that an error names are there, and nothing may be planned on them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Host {
    pub pci: Inventory<PciFunction>,
    pub usb: Inventory<UsbDevice>,
    pub gpus: Inventory<Gpu>,
    pub mdevs: Vec<Mdev>,
    /// Per function: the vGPU files of its driver.
    pub vgpus: BTreeMap<PciAddress, VgpuFunction>,
    /// What else makes mediated devices, by name, with the types it makes: parents that are no PCI functions.
    pub mdev_parents: BTreeMap<String, Vec<MdevType>>,
    pub fabric: Fabric,
    /// Processes that have a device's file open, by PCI address, mdev UUID or USB port; and, without a process, what the host
    /// itself uses it for.
    pub holders: BTreeMap<String, Vec<Holder>>,
    /// What the parts without an inventory of their own could not tell: of one device (`pci 0000:41:00.4`, `mdev 8c2a…`), or
    /// the whole part (`mdev`, `holders`), and then of no device.
    pub errors: Vec<ProbeError>,
}

/// A mediated device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mdev {
    pub uuid: String,
    /// A PCI address, or the name of a device that is none (`mtty`).
    pub parent: String,
    pub type_id: String,
    pub iommu_group: Option<u32>,
}

/// What a function's driver says about vGPUs on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VgpuFunction {
    Mdev {
        types: Vec<MdevType>,
    },
    /// `current`: the type that it is, by name from the driver's list of all that the board supports (`current_vgpu_type` has
    /// the id only, and the creatable list need not have it any more); `creatable`: what it may become now; `gpu_instance`:
    /// the id of the instance below a MIG-backed one, where the driver says so.
    Vendor {
        current: Option<VgpuType>,
        creatable: Vec<VgpuType>,
        gpu_instance: Option<u32>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MdevType {
    /// `nvidia-692`, `mtty-1`
    pub id: String,
    /// `GRID A100D-4C`; types of some drivers have none.
    pub name: Option<String>,
    pub available: u32,
    /// `vfio-pci`
    pub device_api: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VgpuType {
    /// Local to this card and driver.
    pub id: u32,
    /// `H100XM-2-20C`, without the driver's prefix (`NVIDIA `, `GRID `).
    pub name: String,
}

/// NVSwitch and who is in charge of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fabric {
    /// No NVSwitch on this machine.
    None,
    /// There is one, and whole GPUs are not to be given away: why.
    Unavailable { why: String },
    /// Fabric Manager in shared NVSwitch mode.
    Shared { partitions: Vec<FabricPartition> },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FabricPartition {
    pub id: u32,
    pub gpus: Vec<PciAddress>,
    pub active: bool,
    /// What could not be told of it: then `gpus` has only those that could, and it is given to nobody.
    #[serde(default)]
    pub unread: Option<String>,
}

/// A process with a device's file open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder {
    pub pid: u32,
    /// `qemu-system-x86_64`
    pub command: String,
    /// From its cgroup: `nvidia-persistenced.service`, `machine-qemu\x2d1\x2dcroft….scope`.
    pub unit: Option<String>,
    /// `/dev/vfio/12`
    pub file: String,
}
