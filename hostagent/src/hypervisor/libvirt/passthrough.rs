//! Devices of the host in a domain's definition.
//!
//! Everything is `managed='no'`: what a function is bound to, and what it goes back to, is the agent's to say, with its journal
//! and its resets; libvirt would rebind one of NVIDIA's virtual functions and break it.
//!
//! Memory: VFIO pins all of a guest's memory, and libvirt raises the limit of locked memory for that by itself (the guest's
//! memory and 1 GiB), at a hot-plug too. No `hard_limit` is set: it limits the emulator as a whole, and nobody can say what
//! that needs; a guest killed by its own limit is worse than none.

use std::collections::BTreeMap;

use croft_gpu::pci::PciAddress;

use super::domain::{Boot, Domain};
use super::xml::{Element, el};
use crate::hypervisor::{HostDevice, Rom, Source};

pub const QEMU: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// Ports that stay free, for devices that come while the guest runs.
const FREE_PORTS: usize = 4;
/// OVMF's own window above 4 GiB is 32 GiB, of which this much is used for sure: windows are laid out by their size.
const OVMF_FITS_MIB: u64 = 16 * 1024;
/// Buses of the first expander: each takes what lies up to the next one. Below are the ports of the root complex.
const FIRST_EXPANDED_BUS: usize = 0x80;
const BUSES_APART: usize = 0x10;

/// The controller that a device hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub port: usize,
}

impl Domain {
    /// One PCI Express port for each device that needs one, and some that stay free. In a guest of several NUMA cells, those
    /// of the host's devices hang on an expander of the device's own cell, so that the guest sees what is near.
    pub fn ports(&self) -> Vec<Element> {
        let port =
            |index: usize| el("controller").attr("type", "pci").attr("index", index).attr("model", "pcie-root-port");
        let mut elements = vec![el("controller").attr("type", "pci").attr("index", 0).attr("model", "pcie-root")];
        elements.extend((1..=self.common_ports()).map(port));
        let mut next = self.common_ports() + 1;
        for (nth, (cell, devices)) in self.by_cell().into_iter().enumerate() {
            let bus = next;
            let target =
                el("target").attr("busNr", FIRST_EXPANDED_BUS + nth * BUSES_APART).child(el("node").text(cell));
            let expander = el("controller").attr("type", "pci").attr("index", bus).attr("model", "pcie-expander-bus");
            elements.push(expander.child(target));
            for slot in 0..devices.len() {
                let address = el("address").attr("type", "pci").attr("bus", bus).attr("slot", slot).attr("function", 0);
                elements.push(port(bus + 1 + slot).child(address));
            }
            next += 1 + devices.len();
        }
        elements
    }

    /// Where the `at`th device is plugged in; `None`: wherever libvirt finds a free port.
    pub fn place(&self, at: usize) -> Option<Place> {
        let mut next = self.common_ports() + 1;
        for devices in self.by_cell().into_values() {
            if let Some(nth) = devices.iter().position(|device| *device == at) {
                return Some(Place { port: next + 1 + nth });
            }
            next += 1 + devices.len();
        }
        None
    }

    /// Disks, interfaces, the agent's channel, entropy, USB; devices of no particular cell; and free ones.
    fn common_ports(&self) -> usize {
        const OTHERS: usize = 3;
        let placed: usize = self.by_cell().values().map(Vec::len).sum();
        let pci = self.devices.iter().filter(|device| device.is_pci()).count();
        self.disks.len() + self.interfaces.len() + OTHERS + (pci - placed) + FREE_PORTS
    }

    /// Guest cell to the devices that are near it on the host; nothing in a guest of one cell.
    fn by_cell(&self) -> BTreeMap<usize, Vec<usize>> {
        let mut cells: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        if self.cells.len() < 2 {
            return cells;
        }
        for (at, device) in self.devices.iter().enumerate().filter(|(_, device)| device.is_pci()) {
            let near = |node: u32| self.cells.iter().position(|cell| cell.host_cell == node);
            if let Some(cell) = device.numa_node.and_then(near) {
                cells.entry(cell).or_default().push(at);
            }
        }
        cells
    }

    /// How large the window for the memory of devices above 4 GiB must be; `None`: the firmware's own is enough. SeaBIOS
    /// sizes its window by what is there.
    pub fn mmio_window(&self) -> Option<u64> {
        let window = |device: &HostDevice| match device.source {
            Source::Function { window_mib, .. } => window_mib,
            _ => 0,
        };
        let total: u64 = self.devices.iter().map(window).sum();
        (matches!(self.boot, Boot::Uefi { .. }) && total > OVMF_FITS_MIB).then(|| total.next_power_of_two())
    }
}

/// OVMF is told by a file of QEMU's. libvirt has an element for such files (`<sysinfo type='fwcfg'>`) and refuses this very
/// name in it, as reserved for firmware: so it goes on the command line.
pub fn mmio_window(mib: u64) -> Element {
    let argument = |text: String| el("qemu:arg").attr("value", text);
    el("qemu:commandline")
        .child(argument("-fw_cfg".to_owned()))
        .child(argument(format!("name=opt/ovmf/X-PciMmio64Mb,string={mib}")))
}

impl HostDevice {
    /// Does it take a PCI Express port of the guest?
    fn is_pci(&self) -> bool {
        !matches!(self.source, Source::Usb { .. })
    }

    pub fn to_element(&self, place: Option<Place>) -> Element {
        let hostdev = |kind: &str| el("hostdev").attr("mode", "subsystem").attr("type", kind).attr("managed", "no");
        let element = match &self.source {
            Source::Function { address, rom, .. } => {
                let element = hostdev("pci").child(vfio()).child(el("source").child(pci(*address)));
                match rom {
                    Rom::Shown => element,
                    Rom::Hidden => element.child(el("rom").attr("bar", "off")),
                }
            }
            Source::VgpuFunction { address } => {
                hostdev("pci").attr("display", "off").child(vfio()).child(el("source").child(pci(*address)))
            }
            Source::Mdev { uuid } => hostdev("mdev")
                .attr("model", "vfio-pci")
                .attr("display", "off")
                .child(el("source").child(el("address").attr("uuid", uuid))),
            Source::Usb { bus, device } => {
                let address = el("address").attr("bus", bus).attr("device", device);
                hostdev("usb").child(el("source").child(address))
            }
            Source::NicFunction { address, mac } => el("interface")
                .attr("type", "hostdev")
                .attr("managed", "no")
                .child(el("mac").attr("address", mac))
                .child(vfio())
                .child(el("source").child(pci(*address).attr("type", "pci"))),
        };
        let plugged = |place: Place| {
            el("address")
                .attr("type", "pci")
                .attr("domain", 0)
                .attr("bus", place.port)
                .attr("slot", 0)
                .attr("function", 0)
        };
        element.child(el("alias").attr("name", alias(&self.alias))).children(place.map(plugged))
    }
}

/// As libvirt wants names that are not its own.
pub fn alias(name: &str) -> String {
    format!("ua-{name}")
}

fn vfio() -> Element {
    el("driver").attr("name", "vfio")
}

fn pci(address: PciAddress) -> Element {
    let hex = |number: u32, digits: usize| format!("0x{number:0digits$x}");
    el("address")
        .attr("domain", hex(address.domain, 4))
        .attr("bus", hex(address.bus.into(), 2))
        .attr("slot", hex(address.device.into(), 2))
        .attr("function", hex(address.function.into(), 1))
}
