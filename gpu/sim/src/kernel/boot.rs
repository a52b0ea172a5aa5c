//! A boot: from what is plugged in to what a kernel has found and bound.

use std::collections::BTreeMap;
use std::io;

use croft_gpu::pci::PciAddress;

use super::hardware::{Hardware, Iommu, Isolation, Slot};
use super::machine::{Function, Machine, Sriov};
use super::shape::Shape;
use super::{bind, drivers, usb};
use crate::state::Flavour;

/// Where every simulated machine has its USB controller.
pub(crate) const USB_CONTROLLER: PciAddress = PciAddress { domain: 0, bus: 0, device: 0x14, function: 0 };

/// Everything that was there before is forgotten, which is what a reboot is.
pub(crate) fn boot(hardware: &Hardware, driver_version: &str) -> io::Result<Machine> {
    let mut machine = Machine {
        boot_id: boot_id()?,
        iommu: hardware.iommu,
        vfio: hardware.vfio,
        flavour: hardware.flavour,
        driver_version: driver_version.to_owned(),
        functions: BTreeMap::new(),
        drivers: drivers::ALWAYS.iter().map(|&name| name.to_owned()).collect(),
        dynamic_ids: BTreeMap::new(),
        enable_sriov: false,
        mdevs: BTreeMap::new(),
        usb: BTreeMap::new(),
        next_usb_number: 2,
        gpus: BTreeMap::new(),
    };
    let roots = hardware.slots.iter().map(|slot| slot.root).chain([0]);
    for root in roots {
        let address = PciAddress { domain: 0, bus: root, device: 0, function: 0 };
        let function = new(Shape::RootComplex, complex(root), None, 0, hardware.flavour);
        machine.functions.entry(address).or_insert(function);
    }
    machine.functions.insert(USB_CONTROLLER, new(Shape::Xhci, complex(0), None, 0, hardware.flavour));
    for slot in &hardware.slots {
        add_slot(&mut machine, slot)?;
    }
    group(&mut machine, hardware);
    let addresses: Vec<_> = machine.functions.keys().copied().collect();
    for address in addresses {
        bind::take_by_id(&mut machine, address);
    }
    usb::enumerate(&mut machine, &hardware.usb);
    Ok(machine)
}

/// The root port of a slot, and the functions of its card.
pub(crate) fn add_slot(machine: &mut Machine, slot: &Slot) -> io::Result<()> {
    let shapes = slot.functions();
    if shapes.iter().any(|shape| shape.facts().is_none()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no board named {}", slot.board)));
    }
    machine.drivers.extend(shapes.iter().flat_map(drivers::of).map(str::to_owned));
    let flavour = machine.flavour;
    let port = slot.port_address();
    let entry = machine.functions.entry(port);
    entry.or_insert_with(|| new(Shape::RootPort, complex(slot.root), slot.numa_node, 0, flavour));
    let above = format!("{}/{port}", complex(slot.root));
    for (number, shape) in shapes.into_iter().enumerate() {
        let address = PciAddress { function: number as u8, ..slot.address() };
        if machine.functions.contains_key(&address) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("two cards at {address}")));
        }
        let function = new(shape, above.clone(), slot.numa_node, slot.serial, flavour);
        machine.functions.insert(address, function);
    }
    Ok(())
}

/// Groups are numbered in the order in which the kernel meets the functions.
pub(crate) fn group(machine: &mut Machine, hardware: &Hardware) {
    if hardware.iommu == Iommu::Off || hardware.flavour == Flavour::Guest {
        return;
    }
    let addresses: Vec<_> = machine.functions.keys().copied().collect();
    for address in addresses {
        if machine.functions[&address].group.is_some() {
            continue;
        }
        let together = together(hardware, address);
        let of_peers = together.iter().find_map(|peer| machine.functions.get(peer)?.group);
        let group = of_peers.unwrap_or_else(|| machine.free_group());
        if let Some(function) = machine.functions.get_mut(&address) {
            function.group = Some(group);
        }
    }
}

/// Who shares a function's group by how the machine is built: the functions of one card, and a root port without ACS.
fn together(hardware: &Hardware, address: PciAddress) -> Vec<PciAddress> {
    let slot = hardware.slots.iter().find(|slot| {
        let of_card = (address.bus, address.device) == (slot.bus, 0);
        of_card || (slot.isolation == Isolation::None && address == slot.port_address())
    });
    let Some(slot) = slot else { return Vec::new() };
    let card = (0..slot.functions().len()).map(|number| PciAddress { function: number as u8, ..slot.address() });
    let port = (slot.isolation == Isolation::None).then(|| slot.port_address());
    card.chain(port).collect()
}

fn new(shape: Shape, above: String, numa_node: Option<u8>, serial: u32, flavour: Flavour) -> Function {
    let facts = shape.facts();
    let methods = facts.map_or(&[][..], |facts| facts.reset_methods);
    let is_physical = !matches!(shape, Shape::Virtual { .. });
    // A guest is shown a function without the capability [captured in two of them].
    let sriov = (is_physical && flavour != Flavour::Guest && shape.sriov().is_some())
        .then(|| Sriov { autoprobe: true, functions: Vec::new() });
    Function {
        shape,
        above,
        numa_node,
        serial,
        driver: None,
        driver_override: None,
        group: None,
        reset_methods: methods.iter().map(|&method| method.to_owned()).collect(),
        sriov,
        physical: None,
        vfio: None,
    }
}

/// A virtual function of `physical`, before it has a group or a driver.
pub(crate) fn virtual_function(physical: PciAddress, of: &Function, flavour: Flavour) -> Option<Function> {
    let shape = Shape::Virtual { name: of.shape.board()?.name.to_owned() };
    let function = new(shape, of.above.clone(), of.numa_node, of.serial, flavour);
    Some(Function { physical: Some(physical), ..function })
}

fn complex(root: u8) -> String {
    format!("pci0000:{root:02x}")
}

/// Another one at each boot.
fn boot_id() -> io::Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid").map(|text| text.trim_end().to_owned())
}
