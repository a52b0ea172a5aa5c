//! H100 SXM5 80 GB.
//!
//! MIG, memory and identity: captured from a real board (driver 580.159.04, in a guest, MIG off). Unverified: the number of
//! virtual functions and where they start, compute instances, the ids of vGPU types.

use std::sync::LazyLock;

use super::build::*;

pub static H100_SXM_80GB: Board = Board {
    name: "h100_sxm_80gb",
    pci: PciShape {
        vendor: 0x10de,
        device: 0x2330,
        subsystem: (0x10de, 0x16c1),
        class: 0x030200,
        revision: 0xa1,
        bars: &[
            BarSize { index: 0, bytes: 16 << 20, space: Space::Memory64 },
            BarSize { index: 2, bytes: 128 << 30, space: Space::Memory64 },
            BarSize { index: 4, bytes: 32 << 20, space: Space::Memory64 },
        ],
        driver: Some("nvidia"),
        reset_methods: &["flr", "bus"],
        link_speed: "32.0 GT/s PCIe",
        link_width: 16,
        sriov: Some(SriovShape {
            total: 32,
            offset: 2,
            stride: 1,
            device: 0x2330,
            driver: Some("nvidia"),
            reset_methods: &["flr"],
            made_by: MadeBy::SriovManage,
        }),
    },
    companions: &[],
    gpu: Some(GpuShape {
        product: "NVIDIA H100 80GB HBM3",
        architecture: Architecture::Hopper,
        part_number: "695-2G520-0200-000",
        vbios: "96.00.DA.00.0C",
        inforom: "G520.0200.00.05",
        cores: 16896,
        memory_bus_bits: 5120,
        memory_bytes: 85_520_809_984,
        memory_reserved_bytes: 503_316_480,
        mig: Some(MigShape { memory_slices: 8, compute_slices: 7, engines: engines(7, 7, 1), profiles: PROFILES }),
        vgpu_types: LazyLock::new(|| hopper_types("H100XM", 1360)),
        nvswitch: true,
    }),
};

#[rustfmt::skip]
static PROFILES: &[MigProfile] = &[
    // kind, name, id, MiB, SMs, (compute slices, memory slices, starts), max, (copy engines, encoders), (decoders, JPEG, OFA)
    profile(ProfileKind::Slice1, "1g.10gb", 19, 9984, 16, (1, 1, &[0, 1, 2, 3, 4, 5, 6]), 7, (1, 0), (1, 1, 0)),
    profile(ProfileKind::Slice2, "2g.20gb", 14, 20096, 32, (2, 2, &[0, 2, 4]), 3, (2, 0), (2, 2, 0)),
    profile(ProfileKind::Slice3, "3g.40gb", 9, 40448, 60, (3, 4, &[0, 4]), 2, (3, 0), (3, 3, 0)),
    profile(ProfileKind::Slice4, "4g.40gb", 5, 40448, 64, (4, 4, &[0]), 1, (4, 0), (4, 4, 0)),
    profile(ProfileKind::Slice7, "7g.80gb", 0, 81152, 132, (7, 8, &[0]), 1, (8, 0), (7, 7, 1)),
    profile(ProfileKind::Slice1Rev1, "1g.10gb+me", 20, 9984, 16, (1, 1, &[0, 1, 2, 3, 4, 5, 6]), 1, (1, 0), (1, 1, 1)),
    profile(ProfileKind::Slice1Rev2, "1g.20gb", 15, 20096, 26, (1, 2, &[0, 2, 4, 6]), 4, (1, 0), (1, 1, 0)),
];
