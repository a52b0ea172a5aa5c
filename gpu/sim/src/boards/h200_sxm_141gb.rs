//! H200 SXM5 141 GB.
//!
//! MIG, memory and identity: captured from a real board (driver 580.159.04, in a guest, MIG off). The ids of vGPU types start
//! at 1414 as listed on one real host (`H200X-1-18C` 1414, `H200X-141C` 1428). Unverified: the number of virtual functions and
//! where they start, compute instances.

use std::sync::LazyLock;

use super::build::*;

pub static H200_SXM_141GB: Board = Board {
    name: "h200_sxm_141gb",
    pci: PciShape {
        vendor: 0x10de,
        device: 0x2335,
        subsystem: (0x10de, 0x18bf),
        class: 0x030200,
        revision: 0xa1,
        bars: &[
            BarSize { index: 0, bytes: 16 << 20, space: Space::Memory64 },
            BarSize { index: 2, bytes: 256 << 30, space: Space::Memory64 },
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
            device: 0x2335,
            driver: Some("nvidia"),
            reset_methods: &["flr"],
            made_by: MadeBy::SriovManage,
        }),
    },
    companions: &[],
    gpu: Some(GpuShape {
        product: "NVIDIA H200",
        architecture: Architecture::Hopper,
        part_number: "692-2G520-0282-000",
        vbios: "96.00.A5.00.1A",
        inforom: "G520.0282.02.02",
        cores: 16896,
        memory_bus_bits: 6016,
        memory_bytes: 150_754_820_096,
        memory_reserved_bytes: 644_939_776,
        mig: Some(MigShape { memory_slices: 8, compute_slices: 7, engines: engines(7, 7, 1), profiles: PROFILES }),
        vgpu_types: LazyLock::new(|| hopper_types("H200X", 1414)),
        nvswitch: true,
    }),
};

#[rustfmt::skip]
static PROFILES: &[MigProfile] = &[
    // kind, name, id, MiB, SMs, (compute slices, memory slices, starts), max, (copy engines, encoders), (decoders, JPEG, OFA)
    profile(ProfileKind::Slice1, "1g.18gb", 19, 16384, 16, (1, 1, &[0, 1, 2, 3, 4, 5, 6]), 7, (1, 0), (1, 1, 0)),
    profile(ProfileKind::Slice2, "2g.35gb", 14, 33280, 32, (2, 2, &[0, 2, 4]), 3, (2, 0), (2, 2, 0)),
    profile(ProfileKind::Slice3, "3g.71gb", 9, 71424, 60, (3, 4, &[0, 4]), 2, (3, 0), (3, 3, 0)),
    profile(ProfileKind::Slice4, "4g.71gb", 5, 71424, 64, (4, 4, &[0]), 1, (4, 0), (4, 4, 0)),
    profile(ProfileKind::Slice7, "7g.141gb", 0, 143360, 132, (7, 8, &[0]), 1, (8, 0), (7, 7, 1)),
    profile(ProfileKind::Slice1Rev1, "1g.18gb+me", 20, 16384, 16, (1, 1, &[0, 1, 2, 3, 4, 5, 6]), 1, (1, 0), (1, 1, 1)),
    profile(ProfileKind::Slice1Rev2, "1g.35gb", 15, 33280, 26, (1, 2, &[0, 2, 4, 6]), 4, (1, 0), (1, 1, 0)),
];
