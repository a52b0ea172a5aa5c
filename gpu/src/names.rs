//! Names of vendors, devices and classes by their ids: from the tables built in, and for what is newer than those from the
//! host's own `pci.ids` and `usb.ids`, where it has them. Only for people to read: nothing is decided by a name.

use std::cell::OnceCell;

use pci_ids::FromId as _;
use usb_ids::FromId as _;

use crate::hostfs::HostFs;

/// Debian and Ubuntu; Fedora and its kin.
const PLACES: [&str; 2] = ["/usr/share/misc", "/usr/share/hwdata"];

/// Vendor and device, each where a table knows it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    pub vendor: Option<String>,
    pub device: Option<String>,
}

pub(crate) struct Names<'a> {
    fs: &'a HostFs,
    host_pci: OnceCell<String>,
    host_usb: OnceCell<String>,
}

impl<'a> Names<'a> {
    pub fn new(fs: &'a HostFs) -> Names<'a> {
        Names { fs, host_pci: OnceCell::new(), host_usb: OnceCell::new() }
    }

    pub fn pci(&self, vendor: u16, device: u16) -> Named {
        let built_in = Named {
            vendor: pci_ids::Vendor::from_id(vendor).map(|vendor| vendor.name().to_owned()),
            device: pci_ids::Device::from_vid_pid(vendor, device).map(|device| device.name().to_owned()),
        };
        self.complete(built_in, &self.host_pci, "pci.ids", vendor, device)
    }

    pub fn usb(&self, vendor: u16, device: u16) -> Named {
        let built_in = Named {
            vendor: usb_ids::Vendor::from_id(vendor).map(|vendor| vendor.name().to_owned()),
            device: usb_ids::Device::from_vid_pid(vendor, device).map(|device| device.name().to_owned()),
        };
        self.complete(built_in, &self.host_usb, "usb.ids", vendor, device)
    }

    fn complete(&self, built_in: Named, table: &OnceCell<String>, file: &str, vendor: u16, device: u16) -> Named {
        if built_in.device.is_some() {
            return built_in;
        }
        // A table that is missing or cannot be read costs a name, and that is all: no error.
        let table = table.get_or_init(|| {
            let read = |place| self.fs.read_bytes(&format!("{place}/{file}")).ok();
            PLACES.into_iter().find_map(read).map_or_else(String::new, |bytes| String::from_utf8_lossy(&bytes).into())
        });
        let host = look_up(table, vendor, device);
        Named { vendor: built_in.vendor.or(host.vendor), device: host.device }
    }
}

/// `3D controller` for 0x030200; the class's own name where the subclass has none.
pub(crate) fn pci_class(class: u32) -> Option<&'static str> {
    let [_, class, subclass, _] = class.to_be_bytes();
    pci_ids::Subclass::from_cid_sid(class, subclass)
        .map(pci_ids::Subclass::name)
        .or_else(|| pci_ids::Class::from_id(class).map(pci_ids::Class::name))
}

pub(crate) fn usb_class(class: u8) -> Option<&'static str> {
    usb_ids::Class::from_id(class).map(usb_ids::Class::name)
}

/// Both tables are written alike: `vvvv  Vendor`, and below it `<tab>dddd  Device`, and below that what is of no concern.
fn look_up(table: &str, vendor: u16, device: u16) -> Named {
    let (vendor, device) = (format!("{vendor:04x}  "), format!("\t{device:04x}  "));
    let mut lines = table.lines().skip_while(|line| !line.starts_with(&vendor));
    let Some(name) = lines.next().map(|line| line[vendor.len()..].trim().to_owned()) else { return Named::default() };
    let of_vendor = lines.take_while(|line| line.is_empty() || line.starts_with(['\t', '#']));
    let device = of_vendor.filter_map(|line| line.strip_prefix(&device)).next();
    Named { vendor: Some(name), device: device.map(|name| name.trim().to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# comment\n0001  First\n\t00aa  Of the first\nfff1  Maker, Inc.\n\t0001  One\n\t\t1234 5678  Board\n# note\n\
                         \t00aa  Two\nfff2  Other\n\t00bb  Three\nC 03  Display controller\n\t00cc  3D\n";

    #[test]
    fn a_table_is_searched_within_the_vendor() {
        let named = |vendor, device| {
            let named = look_up(TABLE, vendor, device);
            (named.vendor.unwrap_or_default(), named.device.unwrap_or_default())
        };
        let pair = |vendor: &str, device: &str| (vendor.to_owned(), device.to_owned());
        assert_eq!(named(0xfff1, 0x00aa), pair("Maker, Inc.", "Two"));
        assert_eq!(named(0xfff1, 0x00bb), pair("Maker, Inc.", ""));
        assert_eq!(named(0xfff2, 0x00cc), pair("Other", ""));
        assert_eq!(named(0x1234, 0x5678), pair("", ""));
    }

    #[test]
    fn the_hosts_table_fills_what_the_built_in_one_lacks() {
        let root = tempfile::tempdir().unwrap();
        let fs = HostFs::at(root.path()).unwrap();
        assert_eq!(Names::new(&fs).pci(0x10de, 0x2330).device.unwrap(), "GH100 [H100 SXM5 80GB]");
        assert_eq!(Names::new(&fs).pci(0x10de, 0xfffe).device, None);
        std::fs::create_dir_all(root.path().join("usr/share/hwdata")).unwrap();
        let table = "10de  Another name\n\tfffe  Not yet released\n\t2330  Renamed\n";
        std::fs::write(root.path().join("usr/share/hwdata/pci.ids"), table).unwrap();
        let names = Names::new(&fs);
        assert_eq!(names.pci(0x10de, 0xfffe).device.unwrap(), "Not yet released");
        assert_eq!(names.pci(0x10de, 0xfffe).vendor.unwrap(), "NVIDIA Corporation");
        assert_eq!(names.pci(0x10de, 0x2330).device.unwrap(), "GH100 [H100 SXM5 80GB]");
        assert_eq!(names.usb(0x0403, 0x6001).vendor.unwrap(), "Future Technology Devices International, Ltd");
        assert_eq!((pci_class(0x030200), usb_class(9)), (Some("3D controller"), Some("Hub")));
    }
}
