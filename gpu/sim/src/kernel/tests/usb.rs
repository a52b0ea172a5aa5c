//! USB devices.

use croft_gpu::usb::{self, UsbDevice};

use super::*;
use crate::boards;
use crate::kernel::UsbPlug;

fn devices(host: &Machine) -> Vec<UsbDevice> {
    let inventory = usb::probe(&host.fs).unwrap();
    assert!(inventory.errors.is_empty(), "{:?}", inventory.errors);
    inventory.devices
}

#[test]
fn two_dongles_differ_by_their_serial_number_alone() {
    let host = preset("devbox");
    let devices = devices(&host);
    let ports: Vec<_> = devices.iter().map(|device| device.port.to_string()).collect();
    assert_eq!(ports, ["1-1", "1-2", "1-3"]);
    assert_eq!(devices[0].controller.as_deref(), Some("0000:00:14.0"));
    let ids = |device: &UsbDevice| (device.vendor, device.product);
    assert_eq!(ids(&devices[0]), ids(&devices[1]));
    assert_ne!(devices[0].serial, devices[1].serial);
    assert_eq!(devices[2].serial, None);
    assert!(host.has("/dev/bus/usb/001/002"));
}

#[test]
fn a_reset_changes_nothing_that_can_be_seen() {
    let host = preset("devbox");
    let before = host.dump();
    assert_eq!(crate::kernel::usb_reset(host.host.root(), 1, 2).map_err(|_| ()), Ok(()));
    assert_eq!(errno(crate::kernel::usb_reset(host.host.root(), 1, 99)), Errno::NODEV);
    assert_eq!(host.dump(), before);
}

#[test]
fn a_device_that_comes_back_has_another_number() {
    let host = preset("devbox");
    let number =
        |host: &Machine| devices(host).iter().find(|device| device.port.to_string() == "1-1").map(|d| d.device_number);
    let first = number(&host).unwrap();
    host.host.usb_unplug("1-1").unwrap();
    assert_eq!(number(&host), None);
    assert!(!host.has(&format!("/dev/bus/usb/001/{first:03}")));
    host.host.usb_plug(UsbPlug::new("1-1", &boards::usb::LICENCE_DONGLE, Some("DONGLE-0001"))).unwrap();
    assert!(number(&host).unwrap() > first);
    host.host.reboot().unwrap();
    assert_eq!(number(&host), Some(first), "counted anew");
}

#[test]
fn numbers_run_round() {
    let host = preset("devbox");
    let mut numbers = Vec::new();
    for _ in 0..130 {
        host.host.usb_plug(UsbPlug::new("1-4", &boards::usb::SECURITY_KEY, None)).unwrap();
        numbers.push(devices(&host).last().unwrap().device_number);
    }
    assert!(numbers.contains(&127) && numbers.iter().all(|number| (5..=127).contains(number)), "{numbers:?}");
}

#[test]
fn what_hangs_on_a_hub_goes_with_it() {
    let host = preset("devbox");
    for port in ["1-4", "1-4.1", "1-4.1.3", "1-40"] {
        host.host.usb_plug(UsbPlug::new(port, &boards::usb::SECURITY_KEY, None)).unwrap();
    }
    assert_eq!(devices(&host).len(), 7);
    host.host.usb_unplug("1-4").unwrap();
    let ports: Vec<_> = devices(&host).iter().map(|device| device.port.to_string()).collect();
    assert_eq!(ports, ["1-1", "1-2", "1-3", "1-40"]);
}

#[test]
fn an_unauthorized_device_has_no_interface() {
    let host = preset("devbox");
    let before = host.dump();
    let authorized = "/sys/bus/usb/devices/1-3/authorized";
    assert!(host.has("/sys/bus/usb/drivers/usbhid/1-3:1.0"));
    assert_eq!(host.write(authorized, "no"), Err(Errno::INVAL));
    assert_eq!(host.write(authorized, "0"), Ok(()));
    assert!(!host.has("/sys/bus/usb/devices/1-3:1.0") && host.has("/sys/bus/usb/devices/1-3"));
    assert_eq!(host.write(authorized, "1"), Ok(()));
    assert_eq!(host.dump(), before);
    assert_eq!(host.write("/sys/bus/usb/devices/9-9/authorized", "1"), Err(Errno::NOENT));
}

#[test]
fn the_bus_goes_with_its_controllers_driver() {
    let host = preset("devbox");
    let controller = "0000:00:14.0";
    host.set(controller, "driver/unbind", controller).unwrap();
    assert!(devices(&host).is_empty() && !host.has("/sys/bus/usb/devices/usb1"));
    host.write("/sys/bus/pci/drivers_probe", controller).unwrap();
    assert_eq!(devices(&host).len(), 3);
}
