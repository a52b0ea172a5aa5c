//! A30 PCIe 24 GB.
//!
//! MIG profiles, ids, placements, sizes and SMs: `nvidia-smi mig -lgip` and `-lgipp` of real boards. NVIDIA's guide gives a 1g no
//! decoder, the listing prints one; here it has none. Unverified: virtual functions, versions, part numbers, ids of vGPU types.

use std::sync::LazyLock;

use super::build::*;

pub static A30_PCIE_24GB: Board = Board {
    name: "a30_pcie_24gb",
    pci: PciShape {
        vendor: 0x10de,
        device: 0x20b7,
        subsystem: (0x10de, 0x1532),
        class: 0x030200,
        revision: 0xa1,
        bars: &[
            BarSize { index: 0, bytes: 16 << 20, space: Space::Memory32 },
            BarSize { index: 1, bytes: 32 << 30, space: Space::Memory64 },
            BarSize { index: 3, bytes: 32 << 20, space: Space::Memory64 },
        ],
        driver: Some("nvidia"),
        reset_methods: &["flr", "bus"],
        link_speed: "16.0 GT/s PCIe",
        link_width: 16,
        sriov: Some(SriovShape {
            total: 16,
            offset: 4,
            stride: 1,
            device: 0x20b7,
            driver: Some("nvidia"),
            reset_methods: &["flr"],
            made_by: MadeBy::SriovManage,
        }),
    },
    companions: &[],
    gpu: Some(GpuShape {
        product: "NVIDIA A30",
        architecture: Architecture::Ampere,
        part_number: "900-21001-0040-000",
        vbios: "92.00.66.00.04",
        inforom: "1001.0205.00.03",
        cores: 3584,
        memory_bus_bits: 3072,
        memory_bytes: 24576 << 20,
        memory_reserved_bytes: 320 << 20,
        mig: Some(MigShape { memory_slices: 4, compute_slices: 4, engines: engines(4, 1, 1), profiles: PROFILES }),
        vgpu_types: LazyLock::new(|| other_types("A30")),
        nvswitch: false,
    }),
};

#[rustfmt::skip]
static PROFILES: &[MigProfile] = &[
    // kind, name, id, MiB, SMs, (compute slices, memory slices, starts), max, (copy engines, encoders), (decoders, JPEG, OFA)
    profile(ProfileKind::Slice1, "1g.6gb", 14, 5952, 14, (1, 1, &[0, 1, 2, 3]), 4, (1, 0), (0, 0, 0)),
    profile(ProfileKind::Slice2, "2g.12gb", 5, 11968, 28, (2, 2, &[0, 2]), 2, (2, 0), (2, 0, 0)),
    profile(ProfileKind::Slice4, "4g.24gb", 0, 24000, 56, (4, 4, &[0]), 1, (4, 0), (4, 1, 1)),
    profile(ProfileKind::Slice1Rev1, "1g.6gb+me", 21, 5952, 14, (1, 1, &[0, 1, 2, 3]), 1, (1, 0), (1, 1, 1)),
    profile(ProfileKind::Slice2Rev1, "2g.12gb+me", 6, 11968, 28, (2, 2, &[0, 2]), 1, (2, 0), (2, 1, 1)),
];
