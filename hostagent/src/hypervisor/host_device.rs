//! A device of the host, or a piece of one, as a guest's definition names it.
//!
//! It was found, checked and bound by `crate::devices` before a hypervisor hears of it: nothing here binds anything.

use croft_gpu::pci::PciAddress;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDevice {
    /// Its name in the definition: the id of the request, and for the nth companion of its IOMMU group `{id}_{n}`.
    pub alias: String,
    pub source: Source,
    /// Of the host. `None`: unknown.
    pub numa_node: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A function on vfio-pci.
    Function {
        address: PciAddress,
        rom: Rom,
        /// What its windows above 4 GiB add up to.
        window_mib: u64,
    },
    /// One of NVIDIA's virtual functions, which is a vGPU and stays on its own driver.
    VgpuFunction {
        address: PciAddress,
    },
    Mdev {
        uuid: String,
    },
    /// Numbers of now: another plug, other numbers.
    Usb {
        bus: u16,
        device: u8,
    },
    /// A network card's virtual function on vfio-pci, which is told its MAC through the physical one.
    NicFunction {
        address: PciAddress,
        mac: String,
    },
}

/// Is the guest shown the function's ROM?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rom {
    Shown,
    /// A GPU's is no use to a guest that boots from a disk, and reading it hangs some cards.
    Hidden,
}

impl HostDevice {
    /// The alias of a request's `nth` function: 0 is the one that was asked for.
    #[must_use]
    pub fn alias(request: &str, nth: usize) -> String {
        if nth == 0 { request.to_owned() } else { format!("{request}_{nth}") }
    }

    /// The request that an alias belongs to. Ids of requests have no underscore.
    #[must_use]
    pub fn request_of(alias: &str) -> &str {
        alias.split('_').next().unwrap_or(alias)
    }
}

/// A host device as a domain has it now, in the hypervisor's own sight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    pub alias: String,
    /// Bus and device number of a USB device when it was attached.
    pub usb: Option<(u16, u8)>,
    /// Where on the guest's PCI bus the hypervisor put it; `None`: it is on no such bus.
    pub guest: Option<PciAddress>,
}
