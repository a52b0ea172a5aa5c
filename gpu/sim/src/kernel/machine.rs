//! What the kernel of a simulated machine knows since it was booted, in `kernel.json`. Plain data and questions to it.
//!
//! The files below `/sys`, `/proc` and `/dev` are made from this and from nothing else (`super::tree`).

use std::collections::{BTreeMap, BTreeSet};

use croft_gpu::pci::PciAddress;
use serde::{Deserialize, Serialize};

use super::hardware::{Iommu, UsbPlug, Vfio};
use super::shape::{Facts, Shape};
use crate::state::Flavour;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub boot_id: String,
    pub iommu: Iommu,
    pub vfio: Vfio,
    pub flavour: Flavour,
    pub driver_version: String,
    pub functions: BTreeMap<PciAddress, Function>,
    /// Loaded, with a directory of their own.
    pub drivers: BTreeSet<String>,
    /// By driver: what was written to its `new_id`.
    pub dynamic_ids: BTreeMap<String, BTreeSet<(u16, u16)>>,
    /// `vfio_pci.enable_sriov`
    pub enable_sriov: bool,
    /// By UUID.
    pub mdevs: BTreeMap<String, Mdev>,
    /// By port.
    pub usb: BTreeMap<String, UsbState>,
    /// Of `/dev/bus/usb/001/DDD`: the number that the next device gets.
    pub next_usb_number: u8,
    /// What the NVIDIA driver shows of each of its GPUs.
    pub gpus: BTreeMap<PciAddress, GpuView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Function {
    pub shape: Shape,
    /// The directory of what it hangs on, below `/sys/devices`: `pci0000:40/0000:40:01.1`.
    pub above: String,
    pub numa_node: Option<u8>,
    /// Tells two cards of one kind apart.
    pub serial: u32,
    pub driver: Option<String>,
    pub driver_override: Option<String>,
    pub group: Option<u32>,
    pub reset_methods: Vec<String>,
    pub sriov: Option<Sriov>,
    /// Of a virtual function: whose it is.
    pub physical: Option<PciAddress>,
    /// N of `vfioN`, while a VFIO driver has it.
    pub vfio: Option<u32>,
}

/// The capability of a physical function, and what was made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sriov {
    pub autoprobe: bool,
    /// `virtfn0`, `virtfn1`, …
    pub functions: Vec<PciAddress>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mdev {
    pub parent: PciAddress,
    /// The id of its vGPU type.
    pub type_id: u32,
    pub group: u32,
    pub vfio: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UsbState {
    pub plug: UsbPlug,
    pub number: u8,
    /// An unauthorized device has no configuration, hence no interface and no driver.
    pub authorized: bool,
}

/// What the files of NVIDIA's driver say of one GPU that it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GpuView {
    pub minor: u32,
    pub uuid: String,
    #[serde(default)]
    pub unbind_locked: bool,
    pub product: String,
    pub vbios: String,
    /// GPU instances, and the compute instances of each.
    pub instances: BTreeMap<u32, Vec<u32>>,
    /// All vGPU types of the board in its present mode: name by id, as the driver writes it.
    pub types: BTreeMap<u32, String>,
    pub functions: BTreeMap<PciAddress, VgpuView>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VgpuView {
    pub current: u32,
    /// The GPU instance below a MIG-backed one.
    pub instance: Option<u32>,
    /// And how many of each.
    pub creatable: BTreeMap<u32, u32>,
}

impl Function {
    /// Its directory, below `/sys/devices`.
    pub fn directory(&self, address: PciAddress) -> String {
        format!("{}/{address}", self.above)
    }

    pub fn is_virtual(&self) -> bool {
        self.physical.is_some()
    }

    pub fn virtual_functions(&self) -> &[PciAddress] {
        self.sriov.as_ref().map_or(&[], |sriov| &sriov.functions)
    }

    /// How many virtual functions it can have: 0 where a guest is shown a function without the capability.
    pub fn total_functions(&self) -> u16 {
        self.sriov.as_ref().and(self.shape.sriov()).map_or(0, |shape| shape.total)
    }

    pub fn is_on(&self, driver: &str) -> bool {
        self.driver.as_deref() == Some(driver)
    }
}

impl Machine {
    pub fn facts(&self, address: PciAddress) -> Option<Facts> {
        self.functions.get(&address)?.shape.facts()
    }

    /// The lowest number that no group has, as the kernel hands them out.
    pub fn free_group(&self) -> u32 {
        let functions = self.functions.values().filter_map(|function| function.group);
        lowest_free(functions.chain(self.mdevs.values().map(|mdev| mdev.group)))
    }

    pub fn free_vfio(&self) -> u32 {
        let functions = self.functions.values().filter_map(|function| function.vfio);
        lowest_free(functions.chain(self.mdevs.values().map(|mdev| mdev.vfio)))
    }

    /// The functions of a group.
    pub fn members(&self, group: u32) -> impl Iterator<Item = (PciAddress, &Function)> {
        let all = self.functions.iter().filter(move |(_, function)| function.group == Some(group));
        all.map(|(address, function)| (*address, function))
    }

    /// Groups that have a file in `/dev/vfio`: a VFIO driver has one of their functions, or they are a mediated device's.
    pub fn vfio_groups(&self) -> BTreeSet<u32> {
        let functions = self.functions.values().filter(|function| function.vfio.is_some());
        functions.filter_map(|function| function.group).chain(self.mdevs.values().map(|mdev| mdev.group)).collect()
    }

    /// Files through which a guest has the function.
    pub fn files(&self, address: PciAddress) -> Vec<String> {
        let Some(function) = self.functions.get(&address) else { return Vec::new() };
        let mut files = Vec::new();
        if let (Some(vfio), Some(group)) = (function.vfio, function.group) {
            files.extend([format!("/dev/vfio/{group}"), format!("/dev/vfio/devices/vfio{vfio}")]);
        }
        files
    }

    /// The same of a mediated device.
    pub fn mdev_files(mdev: &Mdev) -> Vec<String> {
        vec![format!("/dev/vfio/{}", mdev.group), format!("/dev/vfio/devices/vfio{}", mdev.vfio)]
    }

    /// What the driver shows of a virtual function of its, or of a board that makes none.
    pub fn vgpu(&self, function: PciAddress) -> Option<(&GpuView, &VgpuView)> {
        let physical = self.functions.get(&function)?.physical.unwrap_or(function);
        let gpu = self.gpus.get(&physical)?;
        Some((gpu, gpu.functions.get(&function)?))
    }
}

fn lowest_free(taken: impl Iterator<Item = u32>) -> u32 {
    let taken: BTreeSet<u32> = taken.collect();
    (0..).find(|number| !taken.contains(number)).unwrap_or(u32::MAX)
}
