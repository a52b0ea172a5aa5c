//! RTX A6000 48 GB: a display card, with its sound function in the same slot and IOMMU group.
//!
//! Unverified: subsystem ids, versions, part numbers. Its vGPU types are not listed here.

use std::sync::LazyLock;

use super::build::*;

pub static RTX_A6000_48GB: Board = Board {
    name: "rtx_a6000_48gb",
    pci: PciShape {
        vendor: 0x10de,
        device: 0x2230,
        subsystem: (0x10de, 0x1459),
        class: 0x030000,
        revision: 0xa1,
        bars: &[
            BarSize { index: 0, bytes: 16 << 20, space: Space::Memory32 },
            BarSize { index: 1, bytes: 64 << 30, space: Space::Memory64 },
            BarSize { index: 3, bytes: 32 << 20, space: Space::Memory64 },
        ],
        driver: Some("nvidia"),
        reset_methods: &["flr", "bus"],
        link_speed: "16.0 GT/s PCIe",
        link_width: 16,
        sriov: None,
    },
    companions: &[PciShape {
        vendor: 0x10de,
        device: 0x1aef,
        subsystem: (0x10de, 0x1459),
        class: 0x040300,
        revision: 0xa1,
        bars: &[BarSize { index: 0, bytes: 16 << 10, space: Space::Memory32 }],
        driver: Some("snd_hda_intel"),
        // The kernel lists `bus` for a function that is alone on its bus when it is found, and .0 was there before.
        reset_methods: &[],
        link_speed: "16.0 GT/s PCIe",
        link_width: 16,
        sriov: None,
    }],
    gpu: Some(GpuShape {
        product: "NVIDIA RTX A6000",
        architecture: Architecture::Ampere,
        part_number: "900-5G133-0300-000",
        vbios: "94.02.5C.00.02",
        inforom: "G133.0500.00.05",
        cores: 10752,
        memory_bus_bits: 384,
        memory_bytes: 49140 << 20,
        memory_reserved_bytes: 470 << 20,
        mig: None,
        vgpu_types: LazyLock::new(Vec::new),
        nvswitch: false,
    }),
};
