//! T4 16 GB: Turing, so no SR-IOV; its mediated devices stand on the board itself.
//!
//! The ids of its vGPU types, versions and part numbers are unverified.

use std::sync::LazyLock;

use super::build::*;

pub static T4_16GB: Board = Board {
    name: "t4_16gb",
    pci: PciShape {
        vendor: 0x10de,
        device: 0x1eb8,
        subsystem: (0x10de, 0x12a2),
        class: 0x030200,
        revision: 0xa1,
        bars: &[
            BarSize { index: 0, bytes: 16 << 20, space: Space::Memory32 },
            BarSize { index: 1, bytes: 256 << 20, space: Space::Memory64 },
            BarSize { index: 3, bytes: 32 << 20, space: Space::Memory64 },
        ],
        driver: Some("nvidia"),
        reset_methods: &["flr", "bus"],
        link_speed: "8.0 GT/s PCIe",
        link_width: 16,
        sriov: None,
    },
    companions: &[],
    gpu: Some(GpuShape {
        product: "Tesla T4",
        architecture: Architecture::Turing,
        part_number: "900-2G183-0000-001",
        vbios: "90.04.96.00.9F",
        inforom: "G183.0200.00.02",
        cores: 2560,
        memory_bus_bits: 256,
        memory_bytes: 15360 << 20,
        memory_reserved_bytes: 349 << 20,
        mig: None,
        vgpu_types: LazyLock::new(|| other_types("T4")),
        nvswitch: false,
    }),
};
