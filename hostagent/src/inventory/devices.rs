//! Devices, from the device library's words to the wire's.

use croft_gpu::pci::PciFunction;
use croft_gpu::usb::{Kind, UsbDevice};
use croft_gpu::{Inventory, ProbeError, chain};
use croft_proto::v1;

use super::Notes;

fn errors(errors: &[ProbeError], notes: &mut Notes) {
    notes.0.extend(errors.iter().map(|error| chain(error)));
}

pub(super) fn pci(inventory: Option<Inventory<PciFunction>>, notes: &mut Notes) -> Vec<v1::PciDevice> {
    let Some(inventory) = inventory else { return Vec::new() };
    errors(&inventory.errors, notes);
    let number = |number: Option<u32>| number.and_then(|number| i32::try_from(number).ok()).unwrap_or(-1);
    let device = |function: PciFunction| v1::PciDevice {
        address: function.address.to_string(),
        id: format!("{:04x}:{:04x}", function.vendor, function.device),
        vendor_name: function.vendor_name.unwrap_or_default(),
        device_name: function.device_name.unwrap_or_default(),
        class: format!("{:06x}", function.class),
        class_name: function.class_name.unwrap_or_default(),
        driver: function.driver.unwrap_or_default(),
        iommu_group: number(function.iommu_group),
        numa_node: number(function.numa_node),
    };
    inventory.devices.into_iter().map(device).collect()
}

/// Hubs are left out: no guest can have one.
pub(super) fn usb(inventory: Option<Inventory<UsbDevice>>, notes: &mut Notes) -> Vec<v1::UsbDevice> {
    let Some(inventory) = inventory else { return Vec::new() };
    errors(&inventory.errors, notes);
    let device = |device: UsbDevice| v1::UsbDevice {
        port: device.port.to_string(),
        id: format!("{:04x}:{:04x}", device.vendor, device.product),
        vendor_name: device.vendor_name.unwrap_or_default(),
        device_name: device.product_name.unwrap_or_default(),
        serial: device.serial.unwrap_or_default(),
    };
    inventory.devices.into_iter().filter(|device| device.kind == Kind::Device).map(device).collect()
}
