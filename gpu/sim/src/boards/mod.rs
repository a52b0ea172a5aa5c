//! Boards and devices as their makers sell them: one file per product, named after it. Data only.

mod mig;
mod pci;
mod vgpu;

use std::sync::LazyLock;

pub use mig::{Engines, MigProfile, MigShape, ProfileKind};
pub use pci::{BarSize, MadeBy, PciShape, Space, SriovShape};
pub use vgpu::{VgpuKind, VgpuType};

/// One product that sits in a PCI slot: a GPU, or an ordinary card.
#[derive(Debug)]
pub struct Board {
    /// Croft's word for the model (`h100_sxm_80gb`).
    pub name: &'static str,
    pub pci: PciShape,
    /// Further functions of the same slot (.1, .2, …), which share its IOMMU group.
    pub companions: &'static [PciShape],
    /// `None`: no GPU, the NVIDIA driver has nothing to do with it.
    pub gpu: Option<GpuShape>,
}

/// What the driver tells about a GPU that sysfs does not.
#[derive(Debug)]
pub struct GpuShape {
    /// `NVIDIA H100 80GB HBM3`
    pub product: &'static str,
    pub architecture: Architecture,
    pub part_number: &'static str,
    pub vbios: &'static str,
    pub inforom: &'static str,
    pub cores: u32,
    pub memory_bus_bits: u32,
    pub memory_bytes: u64,
    /// Of them, what the driver keeps for itself.
    pub memory_reserved_bytes: u64,
    /// `None`: the board has no MIG.
    pub mig: Option<MigShape>,
    /// Empty: the vGPU host driver makes none of this board that are listed here.
    pub vgpu_types: LazyLock<Vec<VgpuType>>,
    /// NVSwitch joins it with its neighbours.
    pub nvswitch: bool,
}

/// In NVML's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Architecture {
    Turing = 6,
    Ampere = 7,
    Ada = 8,
    Hopper = 9,
    Blackwell = 10,
}

pub static ALL: &[&Board] = &[];

#[must_use]
pub fn by_name(name: &str) -> Option<&'static Board> {
    ALL.iter().copied().find(|board| board.name == name)
}
