//! Intel 82576 (`igb`): the SR-IOV network card that QEMU emulates. All of it was read from a kernel that runs on one.

use super::build::*;

pub static NIC_IGB: Board = Board {
    name: "nic_igb",
    pci: PciShape {
        vendor: 0x8086,
        device: 0x10c9,
        subsystem: (0x8086, 0xa02c),
        class: 0x020000,
        revision: 0x01,
        bars: &[
            BarSize { index: 0, bytes: 128 << 10, space: Space::Memory32 },
            BarSize { index: 1, bytes: 4 << 20, space: Space::Memory32 },
            BarSize { index: 2, bytes: 32, space: Space::Io },
            BarSize { index: 3, bytes: 16 << 10, space: Space::Memory32 },
        ],
        driver: Some("igb"),
        reset_methods: &["flr", "pm", "bus"],
        link_speed: "2.5 GT/s PCIe",
        link_width: 1,
        sriov: Some(SriovShape {
            total: 7,
            // 01:00.0 has 01:10.0, 01:10.2, …
            offset: 0x80,
            stride: 2,
            device: 0x10ca,
            driver: Some("igbvf"),
            reset_methods: &["flr"],
            made_by: MadeBy::Numvfs,
        }),
    },
    companions: &[],
    gpu: None,
};
