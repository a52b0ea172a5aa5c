//! The NVSwitch of an HGX H100 or H200 tray: a bridge device that Fabric Manager drives. It goes to nobody's guest.
//! Subsystem id and BAR are unverified.

use super::build::*;

pub static NVSWITCH: Board = Board {
    name: "nvswitch",
    pci: PciShape {
        vendor: 0x10de,
        device: 0x22a3,
        subsystem: (0x10de, 0x1796),
        class: 0x068000,
        revision: 0xa1,
        bars: &[BarSize { index: 0, bytes: 32 << 20, space: Space::Memory32 }],
        driver: Some("nvidia-nvswitch"),
        reset_methods: &["bus"],
        link_speed: "16.0 GT/s PCIe",
        link_width: 2,
        sriov: None,
    },
    companions: &[],
    gpu: None,
};
