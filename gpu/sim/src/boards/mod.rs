//! Boards and devices as their makers sell them: one file per product, named after it. Data only.

mod a100_sxm_40gb;
mod a100_sxm_80gb;
mod a30_pcie_24gb;
mod b200_sxm_180gb;
mod build;
mod h100_sxm_80gb;
mod h200_sxm_141gb;
mod l40s_48gb;
mod mig;
mod nic_igb;
mod nvme;
mod nvswitch;
mod pci;
mod rtx_a6000_48gb;
mod rtx_pro_6000_96gb;
mod t4_16gb;
pub mod usb;
mod vgpu;

use std::sync::LazyLock;

pub use a30_pcie_24gb::A30_PCIE_24GB;
pub use a100_sxm_40gb::A100_SXM_40GB;
pub use a100_sxm_80gb::A100_SXM_80GB;
pub use b200_sxm_180gb::B200_SXM_180GB;
pub use h100_sxm_80gb::H100_SXM_80GB;
pub use h200_sxm_141gb::H200_SXM_141GB;
pub use l40s_48gb::L40S_48GB;
pub use mig::{Engines, MigProfile, MigShape, ProfileKind};
pub use nic_igb::NIC_IGB;
pub use nvme::NVME;
pub use nvswitch::NVSWITCH;
pub use pci::{BarSize, MadeBy, PciShape, Space, SriovShape};
pub use rtx_a6000_48gb::RTX_A6000_48GB;
pub use rtx_pro_6000_96gb::RTX_PRO_6000_96GB;
pub use t4_16gb::T4_16GB;
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

pub static ALL: &[&Board] = &[
    &A100_SXM_40GB,
    &A100_SXM_80GB,
    &A30_PCIE_24GB,
    &B200_SXM_180GB,
    &H100_SXM_80GB,
    &H200_SXM_141GB,
    &L40S_48GB,
    &NIC_IGB,
    &NVME,
    &NVSWITCH,
    &RTX_A6000_48GB,
    &RTX_PRO_6000_96GB,
    &T4_16GB,
];

#[must_use]
pub fn by_name(name: &str) -> Option<&'static Board> {
    ALL.iter().copied().find(|board| board.name == name)
}

#[cfg(test)]
mod tests {
    use croft_gpu::geometry::{self, Media};

    use super::*;

    /// NVIDIA's rule: shares of memory and of the board, each rounded up, of the nominal size.
    fn named(mig: &MigShape, profile: &MigProfile, total_bytes: u64) -> String {
        let eighths = (profile.memory_mib << 20).saturating_mul(8).div_ceil(total_bytes);
        let gib = (eighths as f64 / 8.0 * total_bytes.div_ceil(1 << 30) as f64).round();
        assert!(profile.memory_slices <= mig.memory_slices);
        let suffix = match profile.kind {
            ProfileKind::Slice1Rev1 | ProfileKind::Slice2Rev1 => "+me",
            ProfileKind::Slice1AllMe | ProfileKind::Slice2AllMe => "+me.all",
            ProfileKind::Slice1NoMe | ProfileKind::Slice2NoMe => "-me",
            kind if kind.graphics() => "+gfx",
            _ => "",
        };
        format!("{}g.{gib}gb{suffix}", profile.compute_slices)
    }

    #[test]
    fn every_profile_has_the_name_that_its_size_gives() {
        let mut seen = 0;
        for gpu in ALL.iter().filter_map(|board| board.gpu.as_ref()) {
            let Some(mig) = &gpu.mig else { continue };
            for profile in mig.profiles {
                assert_eq!(named(mig, profile, gpu.memory_bytes), profile.name, "{}", gpu.product);
                seen += 1;
            }
        }
        assert!(seen > 50, "{seen} profiles");
    }

    #[test]
    fn every_board_is_one_that_can_be_cut() {
        for board in ALL {
            assert!(std::ptr::eq(by_name(board.name).unwrap(), *board), "{} is listed twice", board.name);
            let Some(mig) = board.gpu.as_ref().and_then(|gpu| gpu.mig.as_ref()) else { continue };
            assert!(mig.profiles.is_sorted_by_key(|profile| profile.kind), "{}: NVML's order", board.name);
            let profiles = mig.profiles.iter().map(|profile| geometry::Profile {
                name: profile.name.to_owned(),
                memory_slices: profile.memory_slices,
                starts: profile.starts.to_vec(),
                compute_slices: profile.compute_slices,
                media: Media::of(profile.name),
            });
            let cut = geometry::Board::new(mig.memory_slices, mig.compute_slices, profiles.collect());
            cut.unwrap_or_else(|error| panic!("{}: {error}", board.name));
            for profile in mig.profiles {
                assert_eq!(mig.profile(profile.id).map(|found| found.name), Some(profile.name), "{}", board.name);
                assert!(profile.memory_slices.is_power_of_two());
                assert!(profile.starts.iter().all(|start| start % profile.memory_slices == 0));
            }
        }
    }

    #[test]
    fn vgpu_types_stand_on_profiles_of_their_board_and_have_ids_of_their_own() {
        for board in ALL {
            let Some(gpu) = &board.gpu else { continue };
            for (at, vgpu) in gpu.vgpu_types.iter().enumerate() {
                assert!(gpu.vgpu_types[..at].iter().all(|other| other.id != vgpu.id && other.name != vgpu.name));
                let VgpuKind::MigBacked { profile } = &vgpu.kind else { continue };
                let profile = gpu.mig.as_ref().and_then(|mig| mig.profile_named(profile));
                let profile = profile.unwrap_or_else(|| panic!("{} stands on no profile of {}", vgpu.name, board.name));
                assert_eq!(vgpu.max % profile.max, 0, "{}", vgpu.name);
            }
        }
    }

    #[test]
    fn the_ids_that_somebody_saw_are_the_ones_given() {
        let id = |board: &Board, name: &str| {
            let types = &board.gpu.as_ref().unwrap().vgpu_types;
            types.iter().find(|vgpu| vgpu.name == name).unwrap_or_else(|| panic!("no {name}")).id
        };
        assert_eq!(id(&H200_SXM_141GB, "H200X-1-18C"), 1414);
        assert_eq!(id(&H200_SXM_141GB, "H200X-141C"), 1428);
        assert_eq!(id(&A100_SXM_80GB, "A100D-7-80C"), 703);
        assert_eq!(id(&A100_SXM_80GB, "A100D-80C"), 698);
        assert_eq!(id(&L40S_48GB, "L40S-48Q"), 1156);
        assert_eq!(id(&RTX_PRO_6000_96GB, "RTX Pro 6000 Blackwell DC-3Q"), 0x5ef);
        assert_eq!(id(&RTX_PRO_6000_96GB, "RTX Pro 6000 Blackwell DC-1-24Q"), 0x619);
    }
}
