//! RTX PRO 6000 Blackwell Server Edition 96 GB.
//!
//! Profiles, ids, sizes, engines: listings of real boards. Virtual functions start at function 2. MIG survives `sriov-manage`, and
//! only `+gfx` instances carry vGPUs: measured with the vGPU host driver. Unverified: placements (derived), the number of virtual
//! functions, versions, most ids of vGPU types.

use std::sync::LazyLock;

use super::build::*;

pub static RTX_PRO_6000_96GB: Board = Board {
    name: "rtx_pro_6000_96gb",
    pci: PciShape {
        vendor: 0x10de,
        device: 0x2bb5,
        subsystem: (0x10de, 0x204e),
        class: 0x030200,
        revision: 0xa1,
        bars: &[
            BarSize { index: 0, bytes: 16 << 20, space: Space::Memory32 },
            BarSize { index: 1, bytes: 128 << 30, space: Space::Memory64 },
            BarSize { index: 3, bytes: 32 << 20, space: Space::Memory64 },
        ],
        driver: Some("nvidia"),
        reset_methods: &["flr", "bus"],
        link_speed: "32.0 GT/s PCIe",
        link_width: 16,
        sriov: Some(SriovShape {
            total: 32,
            offset: 2,
            stride: 1,
            device: 0x2bb5,
            driver: Some("nvidia"),
            reset_methods: &["flr"],
            made_by: MadeBy::SriovManage,
        }),
    },
    companions: &[],
    gpu: Some(GpuShape {
        product: "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        architecture: Architecture::Blackwell,
        part_number: "900-2G153-0000-000",
        vbios: "98.02.55.00.01",
        inforom: "G153.0000.00.01",
        cores: 24064,
        memory_bus_bits: 512,
        memory_bytes: 97887 << 20,
        memory_reserved_bytes: 637 << 20,
        mig: Some(MigShape { memory_slices: 4, compute_slices: 4, engines: engines(4, 4, 1), profiles: PROFILES }),
        vgpu_types: LazyLock::new(|| other_types("RTX Pro 6000 Blackwell DC")),
        nvswitch: false,
    }),
};

#[rustfmt::skip]
static PROFILES: &[MigProfile] = &[
    // kind, name, id, MiB, SMs, (compute slices, memory slices, starts), max, (copy engines, encoders), (decoders, JPEG, OFA)
    profile(ProfileKind::Slice1, "1g.24gb", 14, 24192, 46, (1, 1, &[0, 1, 2, 3]), 4, (1, 1), (1, 1, 0)),
    profile(ProfileKind::Slice2, "2g.48gb", 5, 48512, 94, (2, 2, &[0, 2]), 2, (2, 2), (2, 2, 0)),
    profile(ProfileKind::Slice4, "4g.96gb", 0, 97280, 188, (4, 4, &[0]), 1, (4, 4), (4, 4, 1)),
    profile(ProfileKind::Slice1Rev1, "1g.24gb+me", 21, 24192, 46, (1, 1, &[0, 1, 2, 3]), 1, (1, 1), (1, 1, 1)),
    profile(ProfileKind::Slice1Gfx, "1g.24gb+gfx", 47, 24192, 46, (1, 1, &[0, 1, 2, 3]), 4, (1, 1), (1, 1, 0)),
    profile(ProfileKind::Slice2Gfx, "2g.48gb+gfx", 35, 48512, 94, (2, 2, &[0, 2]), 2, (2, 2), (2, 2, 0)),
    profile(ProfileKind::Slice4Gfx, "4g.96gb+gfx", 32, 97280, 188, (4, 4, &[0]), 1, (4, 4), (4, 4, 1)),
    profile(ProfileKind::Slice1NoMe, "1g.24gb-me", 67, 24192, 46, (1, 1, &[0, 1, 2, 3]), 4, (1, 0), (0, 0, 0)),
    profile(ProfileKind::Slice2NoMe, "2g.48gb-me", 66, 48512, 94, (2, 2, &[0, 2]), 2, (2, 0), (0, 0, 0)),
    profile(ProfileKind::Slice1AllMe, "1g.24gb+me.all", 65, 24192, 46, (1, 1, &[0, 1, 2, 3]), 1, (1, 4), (4, 4, 1)),
    profile(ProfileKind::Slice2AllMe, "2g.48gb+me.all", 64, 48512, 94, (2, 2, &[0, 2]), 1, (2, 4), (4, 4, 1)),
];
