//! What is screwed and plugged into a simulated machine. Outlives a reboot; everything else is the kernel's.

use std::io;
use std::path::Path;

use croft_gpu::pci::PciAddress;
use serde::{Deserialize, Serialize};

use super::shape::Shape;
use crate::boards::Board;
use crate::boards::usb::{Serial, UsbBoard};
use crate::state::{Fabric, Flavour, directory};

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// In the order of their buses.
    pub slots: Vec<Slot>,
    pub usb: Vec<UsbPlug>,
    /// Which of NVIDIA's drivers is installed.
    pub flavour: Flavour,
    pub iommu: Iommu,
    pub vfio: Vfio,
    /// NVSwitch, and how Fabric Manager is set up.
    pub fabric: Option<Fabric>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Iommu {
    On,
    /// No DMAR table, or `intel_iommu=off`: no function has a group, and vfio-pci takes none.
    Off,
}

/// What the kernel was built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vfio {
    /// `/dev/vfio/GROUP` alone, as Debian's 6.1 and 6.12 have it.
    Groups,
    /// And a file of its own for each device, `/dev/vfio/devices/vfioN` (`VFIO_DEVICE_CDEV`, from 6.6 on).
    GroupsAndDevices,
}

/// A slot behind a root port of its own, with a card in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// The root complex, by its first bus: 0x40 in `pci0000:40`.
    pub root: u8,
    /// Device number of the root port on that bus. 1 to 19: others are the chassis' own.
    pub port: u8,
    /// The bus behind the port.
    pub bus: u8,
    pub numa_node: Option<u8>,
    pub isolation: Isolation,
    /// By the name of its board.
    pub board: String,
    /// Tells two cards of one kind apart; a swapped card is one with another number.
    pub serial: u32,
}

/// Does the root port keep what is behind it apart (ACS)?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    Acs,
    /// The port is in one IOMMU group with its card, and with the card's virtual functions.
    None,
}

impl Slot {
    /// A card alone on bus `bus`, behind device 1 of a root complex that is named after the bus before it.
    #[must_use]
    pub fn new(board: &Board, bus: u8) -> Slot {
        let root = bus.saturating_sub(1);
        let board = board.name.to_owned();
        Slot { root, port: 1, bus, numa_node: None, isolation: Isolation::Acs, board, serial: bus.into() }
    }

    #[must_use]
    pub fn on_node(self, node: u8) -> Slot {
        Slot { numa_node: Some(node), ..self }
    }

    #[must_use]
    pub fn without_acs(self) -> Slot {
        Slot { isolation: Isolation::None, ..self }
    }

    /// The card's first function.
    #[must_use]
    pub fn address(&self) -> PciAddress {
        PciAddress { domain: 0, bus: self.bus, device: 0, function: 0 }
    }

    #[must_use]
    pub fn port_address(&self) -> PciAddress {
        PciAddress { domain: 0, bus: self.root, device: self.port, function: 1 }
    }

    /// The card's functions, .0 first.
    pub(crate) fn functions(&self) -> Vec<Shape> {
        Shape::of_board(&self.board)
    }
}

/// A device in a USB port of the machine's one controller (`0000:00:14.0`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsbPlug {
    /// `1-2`, or `1-2.3` behind a hub at `1-2`.
    pub port: String,
    /// By the name of its kind in [`crate::boards::usb`].
    pub device: String,
    pub serial: Option<String>,
}

impl UsbPlug {
    /// A kind whose pieces have no serial number ignores the one given.
    #[must_use]
    pub fn new(port: &str, device: &UsbBoard, serial: Option<&str>) -> UsbPlug {
        let serial = serial.filter(|_| device.serial == Serial::Has).map(str::to_owned);
        UsbPlug { port: port.to_owned(), device: device.name.to_owned(), serial }
    }
}

impl Hardware {
    /// Cards in slots of a machine with an IOMMU, no USB devices, and the vGPU host driver of newer kernels.
    #[must_use]
    pub fn new(slots: Vec<Slot>) -> Hardware {
        let (iommu, vfio) = (Iommu::On, Vfio::GroupsAndDevices);
        Hardware { slots, usb: Vec::new(), flavour: Flavour::VgpuVendor, iommu, vfio, fabric: None }
    }

    /// The same machine with other cards in it: serial numbers, and with them GPUs' UUIDs, are counted from elsewhere.
    #[must_use]
    pub fn with_serials_from(mut self, first: u32) -> Hardware {
        for slot in &mut self.slots {
            slot.serial += first;
        }
        self
    }

    pub(crate) fn read(root: &Path) -> io::Result<Hardware> {
        super::session::read_json(&directory(root).join("hardware.json"))
    }

    pub(crate) fn write(&self, root: &Path) -> io::Result<()> {
        super::session::write_json(&directory(root).join("hardware.json"), self)
    }
}

impl From<&[Slot]> for Hardware {
    fn from(slots: &[Slot]) -> Hardware {
        Hardware::new(slots.to_vec())
    }
}

impl<const N: usize> From<&[Slot; N]> for Hardware {
    fn from(slots: &[Slot; N]) -> Hardware {
        Hardware::new(slots.to_vec())
    }
}
