//! Machines that people own, by a short name: for a first try, and for tests.

use super::hardware::{Hardware, Slot, UsbPlug};
use super::host::SimHost;
use crate::boards::{
    self, A100_SXM_80GB, Board, H100_SXM_80GB, H200_SXM_141GB, L40S_48GB, NIC_IGB, NVME, NVSWITCH, RTX_A6000_48GB,
    RTX_PRO_6000_96GB, T4_16GB,
};
use crate::driver;
use crate::state::{FabricManager, Flavour};

/// Every name that [`SimHost::preset`] knows.
pub const PRESETS: [&str; 7] = ["h100x8", "h200x8", "a100x4", "rtxpro6000x4", "l40sx2", "t4x4", "devbox"];

impl SimHost {
    /// The machine of that name; `None`: there is none in [`PRESETS`].
    #[must_use]
    pub fn preset(name: &str) -> Option<Hardware> {
        Some(match name {
            "h100x8" => tray(&H100_SXM_80GB),
            "h200x8" => tray(&H200_SXM_141GB),
            // An older kernel: its vGPUs are mediated devices.
            "a100x4" => Hardware { flavour: Flavour::VgpuMdev, ..server(&A100_SXM_80GB, 4) },
            "rtxpro6000x4" => server(&RTX_PRO_6000_96GB, 4),
            "l40sx2" => server(&L40S_48GB, 2),
            // Turing: mediated devices of the boards themselves.
            "t4x4" => Hardware { flavour: Flavour::VgpuMdev, ..server(&T4_16GB, 4) },
            "devbox" => devbox(),
            _ => return None,
        })
    }
}

/// Half of the cards on each of two sockets, far enough apart that routing ids of their functions never meet.
fn server(board: &Board, cards: u8) -> Hardware {
    let gpus = (0..cards).map(|n| Slot::new(board, 0x11 + n * 0x10).on_node(2 * n / cards));
    Hardware::new(gpus.chain([Slot::new(&NIC_IGB, 0xe1).on_node(1)]).collect())
}

/// Eight GPUs behind four NVSwitches, whose Fabric Manager gives out partitions.
fn tray(board: &Board) -> Hardware {
    let mut hardware = server(board, 8);
    let gpus: Vec<_> = hardware.slots[..8].iter().map(Slot::address).collect();
    hardware.slots.extend((0..4).map(|n| Slot::new(&NVSWITCH, 0xa1 + n * 0x10).on_node(1)));
    hardware.fabric = Some(driver::tray(FabricManager::SharedNvswitch, &gpus));
    hardware
}

/// One of everything: a GPU that can be cut, a display card with a companion, a network card and a drive that make functions
/// (the drive behind a port that keeps nothing apart), and three USB devices of which two differ by their serial number alone.
fn devbox() -> Hardware {
    let slots = vec![
        Slot::new(&H100_SXM_80GB, 0x41).on_node(0),
        Slot::new(&RTX_A6000_48GB, 0x61).on_node(0),
        Slot::new(&NIC_IGB, 0x81).on_node(0),
        Slot::new(&NVME, 0xa1).on_node(0).without_acs(),
    ];
    let usb = vec![
        UsbPlug::new("1-1", &boards::usb::LICENCE_DONGLE, Some("DONGLE-0001")),
        UsbPlug::new("1-2", &boards::usb::LICENCE_DONGLE, Some("DONGLE-0002")),
        UsbPlug::new("1-3", &boards::usb::SECURITY_KEY, None),
    ];
    Hardware { usb, ..Hardware::new(slots) }
}
