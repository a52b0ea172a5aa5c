//! What differs between the drivers of a simulated kernel.

use croft_gpu::pci::PciAddress;

use super::machine::{Function, Machine};
use super::shape::Shape;

pub(crate) const NVIDIA: &str = "nvidia";
pub(crate) const VFIO_PCI: &str = "vfio-pci";
pub(crate) const XHCI_HCD: &str = "xhci_hcd";

/// Loaded on every machine, whatever sits in it.
pub(crate) const ALWAYS: [&str; 5] = [VFIO_PCI, "pci-stub", "pci-pf-stub", "pcieport", XHCI_HCD];

/// What a driver does when `sriov_numvfs` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numvfs {
    /// It has no `sriov_configure`: the kernel answers ENOENT.
    Refuses,
    Makes,
    /// vfio-pci: only with its parameter `enable_sriov`; ENOENT without.
    IfEnabled,
}

/// What becomes of the virtual functions when the driver leaves the physical one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtUnbind {
    /// They stay, and the kernel logs "driver left SR-IOV enabled after remove".
    Leaves,
    /// igb, as seen in the lab.
    TakesThemAway,
}

pub(crate) fn numvfs(driver: &str) -> Numvfs {
    match driver {
        // nvidia.ko has none: its functions are made by `sriov-manage` alone.
        NVIDIA => Numvfs::Refuses,
        VFIO_PCI => Numvfs::IfEnabled,
        "pci-pf-stub" | "igb" | "nvme" => Numvfs::Makes,
        _ => Numvfs::Refuses,
    }
}

pub(crate) fn at_unbind(driver: &str) -> AtUnbind {
    match driver {
        // NVIDIA's is a guess on the safe side: nobody has been seen to unbind one with functions, and none is of use after.
        "igb" | NVIDIA => AtUnbind::TakesThemAway,
        _ => AtUnbind::Leaves,
    }
}

/// Drivers that a group may have beside a function which a guest holds (`driver_managed_dma`).
pub(crate) fn lets_group_be_used(driver: &str) -> bool {
    [VFIO_PCI, "pci-stub", "pcieport"].contains(&driver)
}

/// Does this function hand itself to guests under this driver? NVIDIA's does so with its virtual functions, where the kernel
/// is new enough for them to be VFIO devices themselves.
pub(crate) fn makes_vfio_device(driver: &str, function: &Function, machine: &Machine) -> bool {
    let vendor = machine.flavour == crate::state::Flavour::VgpuVendor;
    driver == VFIO_PCI || (driver == NVIDIA && function.is_virtual() && vendor)
}

/// What is loaded for a card: the drivers of its functions, and of the virtual ones that it may make.
pub(crate) fn of(shape: &Shape) -> impl Iterator<Item = &'static str> {
    let own = shape.facts().and_then(|facts| facts.driver);
    own.into_iter().chain(shape.sriov().and_then(|sriov| sriov.driver))
}

/// Does the driver's table, or what was written to its `new_id`, have this function? An override decides alone.
pub(crate) fn matches(machine: &Machine, driver: &str, address: PciAddress) -> bool {
    let Some(function) = machine.functions.get(&address) else { return false };
    match &function.driver_override {
        Some(wanted) => wanted == driver,
        None => has_id(machine, driver, address),
    }
}

pub(crate) fn has_id(machine: &Machine, driver: &str, address: PciAddress) -> bool {
    let Some(facts) = machine.facts(address) else { return false };
    let dynamic = machine.dynamic_ids.get(driver).is_some_and(|ids| ids.contains(&(facts.vendor, facts.device)));
    dynamic || facts.driver == Some(driver)
}
