//! L40S 48 GB: no MIG, 32 virtual functions (a real host's).
//!
//! The ids of its `B` and `Q` types follow a real host's list; those of its `C` types, versions and part numbers are unverified.

use std::sync::LazyLock;

use super::build::*;

pub static L40S_48GB: Board = Board {
    name: "l40s_48gb",
    pci: PciShape {
        vendor: 0x10de,
        device: 0x26b9,
        subsystem: (0x10de, 0x1851),
        class: 0x030200,
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
        sriov: Some(SriovShape {
            total: 32,
            offset: 4,
            stride: 1,
            device: 0x26b9,
            driver: Some("nvidia"),
            reset_methods: &["flr"],
            made_by: MadeBy::SriovManage,
        }),
    },
    companions: &[],
    gpu: Some(GpuShape {
        product: "NVIDIA L40S",
        architecture: Architecture::Ada,
        part_number: "900-2G133-0080-000",
        vbios: "95.02.66.00.02",
        inforom: "G133.0242.00.03",
        cores: 18176,
        memory_bus_bits: 384,
        memory_bytes: 46068 << 20,
        memory_reserved_bytes: 600 << 20,
        mig: None,
        vgpu_types: LazyLock::new(|| other_types("L40S")),
        nvswitch: false,
    }),
};
