//! The NVMe controller with SR-IOV that QEMU emulates (`sriov_max_vfs=4`).

use super::build::*;

pub static NVME: Board = Board {
    name: "nvme",
    pci: PciShape {
        vendor: 0x1b36,
        device: 0x0010,
        subsystem: (0x1af4, 0x1100),
        class: 0x010802,
        revision: 0x02,
        bars: &[BarSize { index: 0, bytes: 16 << 10, space: Space::Memory64 }],
        driver: Some("nvme"),
        reset_methods: &["flr", "bus"],
        link_speed: "2.5 GT/s PCIe",
        link_width: 1,
        sriov: Some(SriovShape {
            total: 4,
            offset: 1,
            stride: 1,
            device: 0x0010,
            driver: Some("nvme"),
            reset_methods: &["flr"],
            made_by: MadeBy::Numvfs,
        }),
    },
    companions: &[],
    gpu: None,
};
