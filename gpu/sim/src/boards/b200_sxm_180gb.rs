//! B200 SXM 180 GB.
//!
//! Names, counts and engines: NVIDIA's user guide. **Unverified**: profile ids (NVIDIA publishes no listing; Hopper's are used),
//! sizes in MiB, SMs, placements, virtual functions, versions. No vGPU types: none are published for it.

use std::sync::LazyLock;

use super::build::*;

pub static B200_SXM_180GB: Board = Board {
    name: "b200_sxm_180gb",
    pci: PciShape {
        vendor: 0x10de,
        device: 0x2901,
        subsystem: (0x10de, 0x1999),
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
        sriov: None,
    },
    companions: &[],
    gpu: Some(GpuShape {
        product: "NVIDIA B200",
        architecture: Architecture::Blackwell,
        part_number: "692-2G525-0220-000",
        vbios: "97.00.82.00.12",
        inforom: "G525.0220.00.03",
        cores: 18944,
        memory_bus_bits: 8192,
        memory_bytes: 183359 << 20,
        memory_reserved_bytes: 712 << 20,
        mig: Some(MigShape { memory_slices: 8, compute_slices: 7, engines: engines(7, 7, 1), profiles: PROFILES }),
        vgpu_types: LazyLock::new(Vec::new),
        nvswitch: true,
    }),
};

#[rustfmt::skip]
static PROFILES: &[MigProfile] = &[
    // kind, name, id, MiB, SMs, (compute slices, memory slices, starts), max, (copy engines, encoders), (decoders, JPEG, OFA)
    profile(ProfileKind::Slice1, "1g.23gb", 19, 22016, 18, (1, 1, &[0, 1, 2, 3, 4, 5, 6]), 7, (2, 0), (1, 1, 0)),
    profile(ProfileKind::Slice2, "2g.45gb", 14, 44800, 36, (2, 2, &[0, 2, 4]), 3, (3, 0), (2, 2, 0)),
    profile(ProfileKind::Slice3, "3g.90gb", 9, 90112, 70, (3, 4, &[0, 4]), 2, (6, 0), (3, 3, 0)),
    profile(ProfileKind::Slice4, "4g.90gb", 5, 90112, 72, (4, 4, &[0]), 1, (8, 0), (4, 4, 0)),
    profile(ProfileKind::Slice7, "7g.180gb", 0, 182272, 148, (7, 8, &[0]), 1, (16, 0), (7, 7, 1)),
    profile(ProfileKind::Slice1Rev1, "1g.23gb+me", 20, 22016, 18, (1, 1, &[0, 1, 2, 3, 4, 5, 6]), 1, (2, 0), (1, 1, 1)),
    profile(ProfileKind::Slice1Rev2, "1g.45gb", 15, 44800, 30, (1, 2, &[0, 2, 4, 6]), 4, (2, 0), (1, 1, 0)),
];
