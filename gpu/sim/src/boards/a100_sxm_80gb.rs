//! A100 SXM4 80 GB.
//!
//! MIG profiles, ids, sizes and SMs: `nvidia-smi mig -lgip` of real boards and NVIDIA's user guide. The ids of vGPU types: a
//! real host's list, but for `1-20C`. Virtual functions start at function 4 (Kata's documentation); that there are 16, versions
//! and part numbers are unverified.

use std::sync::LazyLock;

use super::build::*;

pub static A100_SXM_80GB: Board = Board {
    name: "a100_sxm_80gb",
    pci: PciShape {
        vendor: 0x10de,
        device: 0x20b2,
        subsystem: (0x10de, 0x1463),
        class: 0x030200,
        revision: 0xa1,
        bars: &[
            BarSize { index: 0, bytes: 16 << 20, space: Space::Memory32 },
            BarSize { index: 1, bytes: 128 << 30, space: Space::Memory64 },
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
            device: 0x20b2,
            driver: Some("nvidia"),
            reset_methods: &["flr"],
            made_by: MadeBy::SriovManage,
        }),
    },
    companions: &[],
    gpu: Some(GpuShape {
        product: "NVIDIA A100-SXM4-80GB",
        architecture: Architecture::Ampere,
        part_number: "692-2G506-0210-002",
        vbios: "92.00.45.00.05",
        inforom: "G506.0210.00.04",
        cores: 6912,
        memory_bus_bits: 5120,
        memory_bytes: 81920 << 20,
        memory_reserved_bytes: 571 << 20,
        mig: Some(MigShape { memory_slices: 8, compute_slices: 7, engines: engines(5, 1, 1), profiles: PROFILES }),
        vgpu_types: LazyLock::new(|| other_types("A100D")),
        nvswitch: true,
    }),
};

#[rustfmt::skip]
static PROFILES: &[MigProfile] = &[
    // kind, name, id, MiB, SMs, (compute slices, memory slices, starts), max, (copy engines, encoders), (decoders, JPEG, OFA)
    profile(ProfileKind::Slice1, "1g.10gb", 19, 9728, 14, (1, 1, &[0, 1, 2, 3, 4, 5, 6]), 7, (1, 0), (0, 0, 0)),
    profile(ProfileKind::Slice2, "2g.20gb", 14, 19968, 28, (2, 2, &[0, 2, 4]), 3, (2, 0), (1, 0, 0)),
    profile(ProfileKind::Slice3, "3g.40gb", 9, 40192, 42, (3, 4, &[0, 4]), 2, (3, 0), (2, 0, 0)),
    profile(ProfileKind::Slice4, "4g.40gb", 5, 40192, 56, (4, 4, &[0]), 1, (4, 0), (2, 0, 0)),
    profile(ProfileKind::Slice7, "7g.80gb", 0, 80896, 98, (7, 8, &[0]), 1, (7, 0), (5, 1, 1)),
    profile(ProfileKind::Slice1Rev1, "1g.10gb+me", 20, 9728, 14, (1, 1, &[0, 1, 2, 3, 4, 5, 6]), 1, (1, 0), (1, 1, 1)),
    profile(ProfileKind::Slice1Rev2, "1g.20gb", 15, 19968, 14, (1, 2, &[0, 2, 4, 6]), 4, (1, 0), (1, 0, 0)),
];
