//! PCI functions, as sysfs tells them.
//!
//! What decides who may hold a function (identity, driver, IOMMU group, its place in SR-IOV) is read whole, or the function
//! is an error. What only describes it (subsystem, NUMA node, BARs, link) may be missing, and then an error says so: no reason
//! to keep it from going home. So may its reset methods, and that is one: it would go with what its guest left in it.
//!
//! Never reads `sriov_numvfs`: the kernel takes the device lock for it, and a writer of that file may hold the lock for as
//! long as some guest keeps a function open. The `virtfnN` links say the same and more. `driver_override` needs the lock too,
//! and nothing else says it: a child reads it, which may wait (see `apart`).

mod address;
mod interface;
mod link;
mod overrides;
mod serial;
mod slot;

use serde::{Deserialize, Serialize};

pub use address::{ParsePciAddressError, PciAddress};
pub use interface::Interface;
pub use link::Link;
pub use serial::serial_number;

use crate::bus::{self, Device, Inventory, parse_hex};
use crate::error::{FsError, IfPresent, ProbeError};
use crate::hostfs::HostFs;
use crate::names::{self, Names};

const SUBSYSTEM: &str = "subsystem";
const NUMA_NODE: &str = "NUMA node";
const BARS: &str = "BARs";
const LINK: &str = "link width";
const INTERFACES: &str = "interfaces";

/// What [`ProbeError::what`] says of facts that only describe a function.
pub(crate) const DESCRIPTIVE: [&str; 5] = [SUBSYSTEM, NUMA_NODE, BARS, LINK, INTERFACES];

/// One PCI function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciFunction {
    pub address: PciAddress,
    /// `pci0000:40/01.1/00.0`: where it is plugged in, without bus numbers. Stays when a card beside it is added.
    pub slot_path: String,
    /// The PCI device serial number. Only [`crate::host::Host::probe`] asks for it (see [`serial_number`]).
    pub serial: Option<String>,
    pub vendor: u16,
    pub device: u16,
    /// Vendor and device of the board maker; bridges have none.
    pub subsystem: Option<(u16, u16)>,
    /// Base class, subclass and interface: 0x030200.
    pub class: u32,
    pub vendor_name: Option<String>,
    pub device_name: Option<String>,
    pub class_name: Option<String>,
    /// `None`: unbound, for certain.
    pub driver: Option<String>,
    /// The only driver that may take it. `None`: whichever matches by id; or an error says that it could not be read.
    pub driver_override: Option<String>,
    /// `None`: no IOMMU isolates it, for certain.
    pub iommu_group: Option<u32>,
    /// `None`: the firmware does not say.
    pub numa_node: Option<u32>,
    /// In the order the kernel tries them. Empty: it knows none, or is older than 5.15.
    pub reset_methods: Vec<String>,
    pub bars: Vec<Bar>,
    /// `None`: not PCI Express, or part of the root complex.
    pub link: Option<Link>,
    pub sriov: Sriov,
    /// Of a physical function: one that is down cannot give its virtual functions an address.
    pub interfaces: Vec<Interface>,
}

impl PciFunction {
    /// `10de:2330`
    #[must_use]
    pub fn id(&self) -> String {
        format!("{:04x}:{:04x}", self.vendor, self.device)
    }

    #[must_use]
    pub fn is_virtual(&self) -> bool {
        matches!(self.sriov, Sriov::Virtual { .. })
    }
}

/// A base address register in use: one window into the device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    /// 0 to 5.
    pub index: u8,
    pub bytes: u64,
    pub space: Space,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Space {
    Io,
    Memory32,
    Memory64,
}

/// Where a function stands in SR-IOV.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sriov {
    None,
    /// Can make `total` virtual functions, and has made these.
    Physical {
        total: u16,
        functions: Vec<VirtualFunction>,
        /// Do new ones find a driver by themselves? If not, only a `driver_override` lets one in.
        autoprobe: bool,
    },
    Virtual {
        physical: PciAddress,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VirtualFunction {
    pub index: u16,
    pub address: PciAddress,
}

/// Looks at every PCI function of the host. An error is one of the whole bus; those of single functions are in the inventory.
pub fn probe(fs: &HostFs) -> Result<Inventory<PciFunction>, ProbeError> {
    let names = Names::new(fs);
    let mut inventory = bus::probe(fs, "pci", |device| Some(read(fs, &names, device)))?;
    inventory.devices.sort_by_key(|function| function.address);
    overrides::fill(fs, &mut inventory);
    Ok(inventory)
}

fn read(fs: &HostFs, names: &Names<'_>, mut at: Device<'_>) -> Result<PciFunction, ProbeError> {
    let address = at.need("address", || address(fs, &at.path(""), at.name))?;
    let slot_path = at.need("slot path", || slot::path(fs, at.path("").trim_end_matches('/')))?;
    let vendor = at.need("vendor", || at.hex("vendor"))?;
    let device = at.need("device id", || at.hex("device"))?;
    let class = at.need("class", || fs.parse(&at.path("class"), "a PCI class", parse_class))?;
    let driver = at.need("driver", || fs.link_name(&at.path("driver")).if_present())?;
    let iommu_group = at.need("IOMMU group", || iommu_group(fs, &at.path("iommu_group")))?;
    let sriov = at.need("place in SR-IOV", || sriov(fs, &at))?;

    let subsystem_file = |file| at.hex::<u16>(file).if_present();
    let subsystem = subsystem_file("subsystem_vendor").and_then(|v| Ok(v.zip(subsystem_file("subsystem_device")?)));
    let subsystem = at.want(SUBSYSTEM, || subsystem).flatten().filter(|pair| *pair != (0, 0));
    let numa_file = at.path("numa_node");
    let numa_node = at
        .want_if_present(NUMA_NODE, || fs.parse(&numa_file, "a node number", |text| text.parse::<i32>().ok()))
        .and_then(|node| u32::try_from(node).ok());
    let reset_file = at.path("reset_method");
    let reset_methods = at
        .want_if_present("reset methods", || fs.attribute(&reset_file))
        .map(|methods| methods.split_whitespace().map(str::to_owned).collect())
        .unwrap_or_default();
    let bar_file = at.path("resource");
    let bars = at.want(BARS, || fs.parse(&bar_file, "a table of BARs", parse_bars)).unwrap_or_default();

    let entry = at.path("");
    let link = at.want(LINK, || Link::read(fs, entry.trim_end_matches('/'))).flatten();
    let interfaces = match sriov {
        Sriov::Physical { .. } => at.want(INTERFACES, || interface::read(fs, entry.trim_end_matches('/'))),
        Sriov::None | Sriov::Virtual { .. } => None,
    };

    let named = names.pci(vendor, device);
    Ok(PciFunction {
        address,
        slot_path,
        serial: None,
        vendor,
        device,
        subsystem,
        class,
        vendor_name: named.vendor,
        device_name: named.device,
        class_name: names::pci_class(class).map(str::to_owned),
        driver,
        driver_override: None,
        iommu_group,
        numa_node,
        reset_methods,
        bars,
        link,
        sriov,
        interfaces: interfaces.unwrap_or_default(),
    })
}

fn address(fs: &HostFs, path: &str, name: &str) -> Result<PciAddress, FsError> {
    name.parse().map_err(|_| fs.garbage(path, name, "a PCI address"))
}

fn parse_class(text: &str) -> Option<u32> {
    parse_hex::<u32>(text).filter(|class| *class <= 0x00ff_ffff)
}

/// A function bound to vfio-pci without any IOMMU has a group too, which isolates nothing and whose name admits it.
fn iommu_group(fs: &HostFs, path: &str) -> Result<Option<u32>, FsError> {
    let Some(name) = fs.link_name(path).if_present()? else { return Ok(None) };
    if fs.attribute(&format!("{path}/name")).if_present()?.as_deref() == Some("vfio-noiommu") {
        return Ok(None);
    }
    name.parse().map(Some).map_err(|_| fs.garbage(path, &name, "the number of an IOMMU group"))
}

fn sriov(fs: &HostFs, at: &Device<'_>) -> Result<Sriov, FsError> {
    let linked = |file: &str| -> Result<Option<PciAddress>, FsError> {
        let path = at.path(file);
        let name = fs.link_name(&path).if_present()?;
        name.map(|name| address(fs, &path, &name)).transpose()
    };
    if let Some(physical) = linked("physfn")? {
        return Ok(Sriov::Virtual { physical });
    }
    let total_file = at.path("sriov_totalvfs");
    let total = fs.parse(&total_file, "a number of functions", |text| text.parse().ok()).if_present()?;
    let Some(total) = total else { return Ok(Sriov::None) };
    let mut functions = Vec::new();
    for name in fs.entries(&at.path(""))? {
        let Some(index) = name.strip_prefix("virtfn").and_then(|index| index.parse().ok()) else { continue };
        // One that is gone again between the listing and here was taken down meanwhile.
        if let Some(address) = linked(&name)? {
            functions.push(VirtualFunction { index, address });
        }
    }
    functions.sort_unstable();
    let on_or_off = |text: &str| match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    };
    // Kernels before 4.12 have no such file, and functions there always look for a driver.
    let autoprobe = fs.parse(&at.path("sriov_drivers_autoprobe"), "0 or 1", on_or_off).if_present()?.unwrap_or(true);
    Ok(Sriov::Physical { total, functions, autoprobe })
}

/// `resource`: a line of start, end and flags for each BAR, then the ROM and what belongs to bridges and virtual functions.
fn parse_bars(table: &str) -> Option<Vec<Bar>> {
    /// <linux/ioport.h>
    const IORESOURCE_IO: u64 = 0x100;
    const IORESOURCE_MEM_64: u64 = 0x10_0000;

    let mut bars = Vec::new();
    let mut lines = table.lines();
    for index in 0..6 {
        let numbers: Vec<u64> = lines.next()?.split_whitespace().map(parse_hex).collect::<Option<_>>()?;
        let [start, end, flags] = numbers[..] else { return None };
        if flags == 0 {
            continue;
        }
        let space = match flags {
            _ if flags & IORESOURCE_IO != 0 => Space::Io,
            _ if flags & IORESOURCE_MEM_64 != 0 => Space::Memory64,
            _ => Space::Memory32,
        };
        bars.push(Bar { index, bytes: end.checked_sub(start)?.checked_add(1)?, space });
    }
    Some(bars)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_sizes_and_spaces() {
        let bar = |index, bytes, space| Bar { index, bytes, space };
        let none = "0x0000000000000000 0x0000000000000000 0x0000000000000000";
        // An H100 SXM5: 16 MiB of registers, 128 GiB of framebuffer, 32 MiB; the seventh line is a ROM.
        let h100 = [
            "0x000021a042000000 0x000021a042ffffff 0x000000000014220c",
            none,
            "0x0000218000000000 0x0000219fffffffff 0x000000000014220c",
            none,
            "0x000021a040000000 0x000021a041ffffff 0x000000000014220c",
            none,
            "0x0000000000000000 0x000000000007ffff 0x0000000000046200",
        ];
        let expected =
            [bar(0, 16 << 20, Space::Memory64), bar(2, 128 << 30, Space::Memory64), bar(4, 32 << 20, Space::Memory64)];
        assert_eq!(parse_bars(&h100.join("\n")).unwrap(), expected);
        let nic = "0x000000000000c040 0x000000000000c05f 0x0000000000040101\n0x00000000feb80000 0x00000000febfffff 0x0000000000040200";
        let nic = [nic, none, none, none, none].join("\n");
        assert_eq!(parse_bars(&nic).unwrap(), [bar(0, 32, Space::Io), bar(1, 512 << 10, Space::Memory32)]);
        assert_eq!(parse_bars(&[none; 5].join("\n")), None, "five of six lines");
        for garbage in ["", "0x0 0x0", "0x2 0x1 0x200", "0x0 0xffffffffffffffff 0x200", "x y z", "0 0 0 0"] {
            assert_eq!(parse_bars(&[garbage, none, none, none, none, none].join("\n")), None, "{garbage:?}");
        }
    }
}
