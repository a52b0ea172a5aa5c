//! A100 SXM4 40 GB.
//!
//! MIG profiles, ids, sizes and SMs: `nvidia-smi mig -lgip` of real boards and NVIDIA's user guide. Virtual functions start at
//! function 4 (Kata's documentation); that there are 16, versions and part numbers are unverified.

use std::sync::LazyLock;

use super::build::*;

pub static A100_SXM_40GB: Board = Board {
    name: "a100_sxm_40gb",
    pci: PciShape {
        vendor: 0x10de,
        device: 0x20b0,
        subsystem: (0x10de, 0x134f),
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
            total: 16,
            offset: 4,
            stride: 1,
            device: 0x20b0,
            driver: Some("nvidia"),
            reset_methods: &["flr"],
            made_by: MadeBy::SriovManage,
        }),
    },
    companions: &[],
    gpu: Some(GpuShape {
        product: "NVIDIA A100-SXM4-40GB",
        architecture: Architecture::Ampere,
        part_number: "692-2G506-0200-002",
        vbios: "92.00.45.00.03",
        inforom: "G506.0200.00.04",
        cores: 6912,
        memory_bus_bits: 5120,
        memory_bytes: 40960 << 20,
        memory_reserved_bytes: 440 << 20,
        mig: Some(MigShape { memory_slices: 8, compute_slices: 7, engines: engines(5, 1, 1), profiles: PROFILES }),
        vgpu_types: LazyLock::new(|| other_types("A100")),
        nvswitch: true,
    }),
};

#[rustfmt::skip]
static PROFILES: &[MigProfile] = &[
    // kind, name, id, MiB, SMs, (compute slices, memory slices, starts), max, (copy engines, encoders), (decoders, JPEG, OFA)
    profile(ProfileKind::Slice1, "1g.5gb", 19, 4864, 14, (1, 1, &[0, 1, 2, 3, 4, 5, 6]), 7, (1, 0), (0, 0, 0)),
    profile(ProfileKind::Slice2, "2g.10gb", 14, 9984, 28, (2, 2, &[0, 2, 4]), 3, (2, 0), (1, 0, 0)),
    profile(ProfileKind::Slice3, "3g.20gb", 9, 20096, 42, (3, 4, &[0, 4]), 2, (3, 0), (2, 0, 0)),
    profile(ProfileKind::Slice4, "4g.20gb", 5, 20096, 56, (4, 4, &[0]), 1, (4, 0), (2, 0, 0)),
    profile(ProfileKind::Slice7, "7g.40gb", 0, 40320, 98, (7, 8, &[0]), 1, (7, 0), (5, 1, 1)),
    profile(ProfileKind::Slice1Rev1, "1g.5gb+me", 20, 4864, 14, (1, 1, &[0, 1, 2, 3, 4, 5, 6]), 1, (1, 0), (1, 1, 1)),
    profile(ProfileKind::Slice1Rev2, "1g.10gb", 15, 9984, 14, (1, 2, &[0, 2, 4, 6]), 4, (1, 0), (1, 0, 0)),
];
