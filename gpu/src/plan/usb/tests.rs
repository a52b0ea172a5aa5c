use super::*;
use crate::host::{Holder, Host};
use crate::plan::testing::HostBuilder;
use crate::plan::{Owners, Wish, give_back, plan};
use crate::usb::UsbPort;

const XHCI: &str = "0000:00:14.0";

fn dongle(bus: u16, ports: &[u8], serial: Option<&str>) -> UsbDevice {
    UsbDevice {
        port: UsbPort { bus, ports: ports.to_vec() },
        controller: Some(XHCI.to_owned()),
        device_number: 7,
        vendor: 0x0403,
        product: 0x6001,
        vendor_name: None,
        product_name: None,
        serial: serial.map(str::to_owned),
        class: 0,
        class_name: None,
        kind: Kind::Device,
    }
}

fn resolved(devices: &[UsbDevice], selector: &str) -> Result<String, (Reason, String)> {
    let found = resolve(devices, &selector.parse().unwrap());
    found.map(|device| device.port.to_string()).map_err(|refusal| (refusal.reason, refusal.to_string()))
}

#[test]
fn each_way_finds_the_one_that_is_meant() {
    let two = [dongle(1, &[2, 3], Some("A50285BI")), dongle(1, &[4], Some("A9ITNP3C"))];
    assert_eq!(resolved(&two, "usb-0000:00:14.0-2.3").unwrap(), "1-2.3");
    assert_eq!(resolved(&two, "0403:6001/A9ITNP3C").unwrap(), "1-4");
    assert_eq!(resolved(&two[1..], "0403:6001").unwrap(), "1-4");
    for missing in ["usb-0000:00:14.0-2", "usb-0000:00:15.0-2.3", "0403:6001/OTHER", "0403:6010"] {
        assert_eq!(resolved(&two, missing).unwrap_err().0, Reason::UsbNotFound, "{missing}");
    }
}

#[test]
fn twins_are_listed_with_ports_and_serials() {
    let twins = [dongle(1, &[4], Some("A9ITNP3C")), dongle(1, &[2, 3], None)];
    let (reason, text) = resolved(&twins, "0403:6001").unwrap_err();
    assert_eq!(reason, Reason::UsbAmbiguous);
    for part in
        ["usb-0000:00:14.0-2.3 (0403:6001, no serial number), usb-0000:00:14.0-4", "serial A9ITNP3C", "name a port"]
    {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    // Cheap makers give all of theirs one serial number.
    let same = [dongle(1, &[1], Some("123")), dongle(1, &[2], Some("123"))];
    assert_eq!(resolved(&same, "0403:6001/123").unwrap_err().0, Reason::UsbAmbiguous);
    assert_eq!(resolved(&same, "usb-0000:00:14.0-2").unwrap(), "1-2");
}

#[test]
fn a_hub_is_no_device_for_a_guest() {
    let hub = UsbDevice { kind: Kind::Hub, ..dongle(1, &[2], None) };
    assert_eq!(resolved(&[hub], "usb-0000:00:14.0-2").unwrap_err().0, Reason::DeviceUnsuitable);
}

#[test]
fn a_device_that_comes_back_is_known_again() {
    let found = |devices: &[UsbDevice], was: &UsbDevice| {
        find(devices, &UsbIdentity::of(was)).map(|device| device.port.to_string()).map_err(|refusal| refusal.reason)
    };
    let named = dongle(1, &[4], Some("A9ITNP3C"));
    let elsewhere = [dongle(3, &[1], Some("A9ITNP3C")), dongle(1, &[4], Some("OTHER"))];
    assert_eq!(found(&elsewhere, &named).unwrap(), "3-1");
    assert_eq!(found(&elsewhere[1..], &named), Err(Reason::UsbNotFound), "its place is another's now");
    let nameless = dongle(1, &[4], None);
    // The bus got another number; the controller and the port did not.
    let back = [dongle(2, &[4], None), dongle(2, &[5], None)];
    assert_eq!(found(&back, &nameless).unwrap(), "2-4");
    assert_eq!(found(&back[1..], &nameless), Err(Reason::UsbNotFound), "another port may be its twin's");
    assert_eq!(found(&elsewhere[1..], &nameless), Err(Reason::UsbNotFound), "another one is in its port");
}

#[test]
fn a_selector_has_one_spelling() {
    for good in ["usb-0000:00:14.0-2.3", "usb-vhci_hcd.0-1", "0403:6001", "0403:6001/a b/c"] {
        assert_eq!(good.parse::<Selector>().unwrap().to_string(), good);
    }
    for bad in ["", "usb-", "usb--1", "usb-x-", "usb-x-01", "usb-x-1.", "403:6001", "0403:6001/", "0403:600G", "1-2.3"]
    {
        assert!(bad.parse::<Selector>().is_err(), "{bad:?} was taken for a selector");
    }
}

#[test]
fn what_a_guest_had_is_reset_in_whichever_port_it_is() {
    let (device, other) = (dongle(1, &[2, 3], Some("A50285BI")), dongle(1, &[4], None));
    let mut host = HostBuilder::new().build();
    host.usb.devices = vec![device.clone(), other];
    let known = UsbIdentity::of(&device);
    let wish = || Wish::NoUsb { device: known.clone() };
    assert_eq!(give_back(&host, &Wish::Usb { device: known.clone() }), Ok(Some(wish())));
    host.usb.devices[0].port.ports = vec![7];
    let plan = |host: &Host, wish| plan(host, &Owners::default(), &wish).map(|plan| plan.steps);
    assert_eq!(plan(&host, Wish::Usb { device: known.clone() }), Ok(Vec::new()));
    let (vendor, product, serial) = (0x0403, 0x6001, Some("A50285BI".to_owned()));
    let port = UsbPort { bus: 1, ports: vec![7] };
    assert_eq!(plan(&host, wish()), Ok(vec![Step::ResetUsb { port, vendor, product, serial }]));
    let holder = Holder { pid: 7, command: "qemu".to_owned(), unit: None, file: "/dev/bus/usb/001/007".to_owned() };
    host.holders.insert("1-7".to_owned(), vec![holder]);
    assert_eq!(plan(&host, wish()).unwrap_err().reason, Reason::DeviceHeldOpen);
    // Unplugged it has no power, and keeps nothing but what it stores.
    host.usb.devices.remove(0);
    assert_eq!(plan(&host, wish()), Ok(Vec::new()));
    assert_eq!(plan(&host, Wish::Usb { device: known.clone() }).unwrap_err().reason, Reason::UsbNotFound);
}

/// A stick that its stopped owner keeps may have been mounted meanwhile.
#[test]
fn what_somebody_uses_is_not_taken_from_him() {
    const OWNER: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
    let device = dongle(1, &[2, 3], Some("A50285BI"));
    let mut host = HostBuilder::new().build();
    host.usb.devices = vec![device.clone()];
    let own = [("1-2.3".to_owned(), OWNER.to_owned())].into();
    let his = Owners { asker: Some(OWNER.to_owned()), functions: own, ..Owners::default() };
    let new = Owners { functions: [].into(), ..his.clone() };
    let scope = |uid: &str| Some(format!("machine-qemu\\x2d3\\x2dcroft\\x2d{}.scope", uid.replace('-', "\\x2d")));
    let (libvirt, anothers) = (Some("libvirtd.service".to_owned()), scope("7c9e6679-7425-40de-944b-e07fc1f90ae7"));
    for (pid, command, unit, may) in [
        (0, "kernel", None, false),
        (7, "scdaemon", Some("pcscd.service".to_owned()), false),
        (8, "qemu-system-x86", anothers, false),
        (9, "qemu-system-x86", scope(OWNER), true),
        (9, "qemu-kvm", libvirt, true),
    ] {
        let holder = Holder { pid, command: command.to_owned(), unit, file: "/dev/sda (mounted)".to_owned() };
        host.holders.insert("1-2.3".to_owned(), vec![holder.clone()]);
        let planned = |owners: &Owners| {
            let wish = Wish::Usb { device: UsbIdentity::of(&device) };
            plan(&host, owners, &wish).map(|plan| plan.steps).map_err(|refusal| refusal.reason)
        };
        let expected = if may { Ok(Vec::new()) } else { Err(Reason::DeviceHeldOpen) };
        assert_eq!(planned(&his), expected, "{holder:?}");
        assert_eq!(planned(&new), Err(Reason::DeviceHeldOpen), "{holder:?}");
    }
}
