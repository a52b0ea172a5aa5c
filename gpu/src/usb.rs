//! USB devices, as sysfs tells them.
//!
//! A device is known by where it is plugged in (controller and port) and by vendor, product and serial number. The bus and
//! device numbers that libvirt asks for change with every plug and reset: resolve them just before use.
//!
//! Root hubs are the controllers' own and are left out. Other hubs are listed as what they are: a guest cannot have them.

use serde::{Deserialize, Serialize};

use crate::bus::{self, Device, Inventory};
use crate::error::{FsError, ProbeError};
use crate::hostfs::HostFs;
use crate::names::{self, Names};

/// One USB device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsbDevice {
    pub port: UsbPort,
    /// What the bus hangs on, usually a PCI function (`0000:00:14.0`). With the ports after the dash it outlives a reboot;
    /// bus numbers may not.
    pub controller: Option<String>,
    /// Of `/dev/bus/usb/BBB/DDD`. Changes with every plug and reset.
    pub device_number: u8,
    pub vendor: u16,
    pub product: u16,
    pub vendor_name: Option<String>,
    pub product_name: Option<String>,
    pub serial: Option<String>,
    /// bDeviceClass; 0: each interface has its own.
    pub class: u8,
    pub class_name: Option<String>,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Device,
    Hub,
}

/// `1-2.3`: port 3 of the hub at port 2 of bus 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsbPort {
    pub bus: u16,
    /// From the root hub outwards; at least one.
    pub ports: Vec<u8>,
}

impl UsbPort {
    pub(crate) fn parse(text: &str) -> Option<UsbPort> {
        let (bus, ports) = text.split_once('-')?;
        let ports = ports.split('.').map(|port| port.parse().ok()).collect::<Option<_>>()?;
        let port = UsbPort { bus: bus.parse().ok()?, ports };
        (port.to_string() == text).then_some(port)
    }
}

impl std::fmt::Display for UsbPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ports: Vec<_> = self.ports.iter().map(u8::to_string).collect();
        write!(f, "{}-{}", self.bus, ports.join("."))
    }
}

impl<'de> Deserialize<'de> for UsbPort {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        UsbPort::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no USB port")))
    }
}

impl Serialize for UsbPort {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Looks at every USB device of the host. An error is one of the whole bus; those of single devices are in the inventory.
///
/// Reading a device's own strings waits while the kernel resets that device: seconds, at worst.
pub fn probe(fs: &HostFs) -> Result<Inventory<UsbDevice>, ProbeError> {
    let names = Names::new(fs);
    let mut inventory = bus::probe(fs, "usb", |device| {
        // `1-2:1.0` is an interface of the device at 1-2, `usb1` a root hub.
        let of_its_own = !device.name.contains(':') && !device.name.starts_with("usb");
        of_its_own.then(|| read(fs, &names, device))
    })?;
    inventory.devices.sort_by(|a, b| a.port.cmp(&b.port));
    Ok(inventory)
}

fn read(fs: &HostFs, names: &Names<'_>, mut at: Device<'_>) -> Result<UsbDevice, ProbeError> {
    let port = UsbPort::parse(at.name).ok_or_else(|| fs.garbage(&at.path(""), at.name, "a USB port"));
    let port = at.need("port", || port)?;
    let vendor = at.need("vendor", || at.hex("idVendor"))?;
    let product = at.need("product id", || at.hex("idProduct"))?;
    let class = at.need("class", || at.hex("bDeviceClass"))?;
    let number_file = at.path("devnum");
    let device_number = at.need("device number", || fs.parse(&number_file, "a number", |text| text.parse().ok()))?;
    // The serial number tells two of a kind apart: without it a device could be taken for its twin.
    let serial_file = at.path("serial");
    let serial = at.need("serial number", || own_string(fs, &serial_file))?;

    let entry = at.path("");
    let controller = at.want("controller", || controller(fs, entry.trim_end_matches('/')));
    let named = names.usb(vendor, product);
    let mut or_own = |name: Option<String>, what, file: &str| {
        let path = at.path(file);
        name.or_else(|| at.want(what, || own_string(fs, &path)).flatten())
    };
    Ok(UsbDevice {
        port,
        controller,
        device_number,
        vendor,
        product,
        vendor_name: or_own(named.vendor, "vendor's name", "manufacturer"),
        product_name: or_own(named.device, "product's name", "product"),
        serial,
        class,
        class_name: names::usb_class(class).map(str::to_owned),
        kind: if class == 9 { Kind::Hub } else { Kind::Device },
    })
}

/// A string that the device itself made up. Whoever plugs it in may put terminal escapes there: they are shown as `�`.
pub(crate) fn own_string(fs: &HostFs, path: &str) -> Result<Option<String>, FsError> {
    use crate::error::IfPresent as _;
    let text = fs.attribute(path).if_present()?;
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    Ok(text.map(|text| text.chars().map(printable).collect::<String>()).filter(|text| !text.is_empty()))
}

/// `…/pci0000:00/0000:00:14.0/usb1/1-2`: what stands before the root hub.
fn controller(fs: &HostFs, entry: &str) -> Result<String, FsError> {
    let target = fs.link(entry)?;
    let parts: Vec<_> = target.iter().map(|part| part.to_string_lossy()).collect();
    let root_hub = parts.iter().position(|part| {
        part.strip_prefix("usb").is_some_and(|bus| !bus.is_empty() && bus.bytes().all(|byte| byte.is_ascii_digit()))
    });
    match root_hub.and_then(|at| at.checked_sub(1)) {
        Some(before) => Ok(parts[before].clone().into_owned()),
        None => Err(fs.garbage(entry, &target.to_string_lossy(), "a link below a root hub")),
    }
}
