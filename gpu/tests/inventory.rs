//! Whole trees as a kernel lays them out: a GPU server, its odd days, and machines without the bus.

#![expect(clippy::unwrap_used, reason = "the helpers of a test are part of the test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use croft_gpu::pci::{Link, PciFunction, Space, Sriov};
use croft_gpu::usb::{Kind, UsbDevice};
use croft_gpu::{HostFs, Inventory, ProbeError, chain, pci, usb};
use tempfile::TempDir;

/// A sysfs of our own making, with links as the kernel's.
struct Host(TempDir);

impl Host {
    fn new() -> Host {
        let host = Host(tempfile::tempdir().unwrap());
        for directory in
            ["sys/bus/platform/devices", "sys/bus/pci/devices", "sys/bus/pci/drivers", "sys/bus/usb/devices"]
        {
            host.directory(directory);
        }
        host
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.0.path().join(path)
    }

    fn directory(&self, path: &str) {
        fs::create_dir_all(self.path(path)).unwrap();
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        self.directory(Path::new(path).parent().unwrap().to_str().unwrap());
        fs::write(self.path(path), text).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        symlink(target, self.path(path)).unwrap();
    }

    /// A function on the root bus; files by name and text.
    fn pci(&self, address: &str, files: &[(&str, &str)]) -> String {
        let device = format!("sys/devices/pci0000:00/{address}");
        self.directory(&device);
        for (name, text) in files {
            self.write(&format!("{device}/{name}"), format!("{text}\n"));
        }
        self.link(&format!("sys/bus/pci/devices/{address}"), &format!("../../../devices/pci0000:00/{address}"));
        device
    }

    fn usb(&self, port: &str, files: &[(&str, &str)]) -> String {
        let device = format!("sys/devices/pci0000:00/0000:00:14.0/usb1/{port}");
        self.directory(&device);
        for (name, text) in files {
            self.write(&format!("{device}/{name}"), format!("{text}\n"));
        }
        self.link(
            &format!("sys/bus/usb/devices/{port}"),
            &format!("../../../devices/pci0000:00/0000:00:14.0/usb1/{port}"),
        );
        device
    }

    fn bind(&self, device: &str, driver: &str, group: u32) {
        self.directory(&format!("sys/kernel/iommu_groups/{group}"));
        self.link(&format!("{device}/driver"), &format!("../../../bus/pci/drivers/{driver}"));
        self.link(&format!("{device}/iommu_group"), &format!("../../../kernel/iommu_groups/{group}"));
    }

    fn pci_probe(&self) -> Result<Inventory<PciFunction>, ProbeError> {
        pci::probe(&HostFs::at(self.0.path()).unwrap())
    }

    fn usb_probe(&self) -> Result<Inventory<UsbDevice>, ProbeError> {
        usb::probe(&HostFs::at(self.0.path()).unwrap())
    }
}

const NO_BARS: &str = "0x0 0x0 0x0\n0x0 0x0 0x0\n0x0 0x0 0x0\n0x0 0x0 0x0\n0x0 0x0 0x0\n0x0 0x0 0x0";
const GPU_BARS: &str = "0x21a042000000 0x21a042ffffff 0x14220c\n0x0 0x0 0x0\n0x218000000000 0x219fffffffff 0x14220c\n0x0 0x0 0x0\n\
                        0x21a040000000 0x21a041ffffff 0x14220c\n0x0 0x0 0x0\n0x0 0x7ffff 0x46200";
const BRIDGE: [(&str, &str); 4] =
    [("vendor", "0x8086"), ("device", "0x0d57"), ("class", "0x060000"), ("resource", NO_BARS)];
const DISK: [(&str, &str); 5] =
    [("idVendor", "46f4"), ("idProduct", "0001"), ("bDeviceClass", "00"), ("devnum", "2"), ("serial", "ABC123")];

fn texts(errors: &[ProbeError]) -> Vec<String> {
    errors.iter().map(|error| chain(error)).collect()
}

/// An H100 as a real board shows itself, beside a NIC with two virtual functions and a host bridge.
fn server() -> Host {
    let host = Host::new();
    let gpu = host.pci(
        "0000:41:00.0",
        &[
            ("vendor", "0x10de"),
            ("device", "0x2330"),
            ("subsystem_vendor", "0x10de"),
            ("subsystem_device", "0x16c1"),
            ("class", "0x030200"),
            ("numa_node", "1"),
            ("reset_method", "flr bus"),
            ("resource", GPU_BARS),
        ],
    );
    host.bind(&gpu, "vfio-pci", 17);
    let nic = [("vendor", "0x8086"), ("device", "0x10c9"), ("class", "0x020000"), ("resource", NO_BARS)];
    let pf = host.pci("0000:01:00.0", &nic);
    host.bind(&pf, "igb", 12);
    host.write(&format!("{pf}/sriov_totalvfs"), "7\n");
    for (n, address) in ["0000:01:10.0", "0000:01:10.2"].into_iter().enumerate() {
        let vf = host.pci(address, &nic);
        host.link(&format!("{vf}/physfn"), "../0000:01:00.0");
        host.link(&format!("{pf}/virtfn{n}"), &format!("../{address}"));
    }
    host.pci("0000:00:00.0", &BRIDGE);
    host
}

#[test]
fn a_gpu_server_is_read_whole() {
    let inventory = server().pci_probe().unwrap();
    assert!(inventory.errors.is_empty(), "{:?}", texts(&inventory.errors));
    let addresses: Vec<_> = inventory.devices.iter().map(|function| function.address.to_string()).collect();
    assert_eq!(addresses, ["0000:00:00.0", "0000:01:00.0", "0000:01:10.0", "0000:01:10.2", "0000:41:00.0"]);

    let [bridge, pf, vf, _, gpu] = &inventory.devices[..] else { unreachable!() };
    assert_eq!((gpu.vendor, gpu.device, gpu.subsystem, gpu.class), (0x10de, 0x2330, Some((0x10de, 0x16c1)), 0x030200));
    assert_eq!(gpu.vendor_name.as_deref(), Some("NVIDIA Corporation"));
    assert_eq!(gpu.device_name.as_deref(), Some("GH100 [H100 SXM5 80GB]"));
    assert_eq!(gpu.class_name.as_deref(), Some("3D controller"));
    assert_eq!((gpu.driver.as_deref(), gpu.iommu_group, gpu.numa_node), (Some("vfio-pci"), Some(17), Some(1)));
    assert_eq!(gpu.reset_methods, ["flr", "bus"]);
    assert_eq!(gpu.bars.iter().map(|bar| bar.bytes).collect::<Vec<_>>(), [16 << 20, 128 << 30, 32 << 20]);
    assert_eq!(gpu.bars[1].space, Space::Memory64);
    assert_eq!(gpu.sriov, Sriov::None);

    let Sriov::Physical { total: 7, functions, autoprobe: true } = &pf.sriov else { panic!("{:?}", pf.sriov) };
    let functions: Vec<_> = functions.iter().map(|vf| (vf.index, vf.address.to_string())).collect();
    assert_eq!(functions, [(0, "0000:01:10.0".to_owned()), (1, "0000:01:10.2".to_owned())]);
    assert_eq!(vf.sriov, Sriov::Virtual { physical: pf.address });
    assert_eq!(
        (bridge.driver.as_deref(), bridge.iommu_group, bridge.numa_node, bridge.subsystem),
        (None, None, None, None)
    );
}

/// What decides who may hold a function: unreadable means unknown, and unknown is not listed as if it were free.
#[test]
fn a_function_that_cannot_be_judged_is_an_error_and_not_a_free_device() {
    for (file, what) in
        [("vendor", "vendor"), ("device", "device id"), ("class", "class"), ("sriov_totalvfs", "place in SR-IOV")]
    {
        for garbage in ["", "banana", "0x", "-1", "0x123456789"] {
            let host = server();
            host.write(&format!("sys/devices/pci0000:00/0000:01:00.0/{file}"), garbage);
            let inventory = host.pci_probe().unwrap();
            assert_eq!(inventory.devices.len(), 4, "the others are still read");
            let [error] = &inventory.errors[..] else { panic!("{:?}", texts(&inventory.errors)) };
            assert_eq!((error.device.as_str(), error.what.as_ref()), ("pci 0000:01:00.0", what));
            assert!(chain(error).contains(&format!("0000:01:00.0/{file} says {garbage:?}")), "{}", chain(error));
        }
    }
    // A link that is no link, and a file that is none: neither may read as "absent".
    for (file, what) in [("driver", "driver"), ("iommu_group", "IOMMU group"), ("physfn", "place in SR-IOV")] {
        let host = server();
        let path = format!("sys/devices/pci0000:00/0000:01:00.0/{file}");
        if host.path(&path).symlink_metadata().is_ok() {
            fs::remove_file(host.path(&path)).unwrap();
        }
        host.directory(&path);
        let inventory = host.pci_probe().unwrap();
        assert_eq!((inventory.devices.len(), inventory.errors.len()), (4, 1));
        assert_eq!(inventory.errors[0].what, what);
    }
}

#[test]
fn a_description_that_cannot_be_read_is_missed_and_reported() {
    let host = server();
    let gpu = "sys/devices/pci0000:00/0000:41:00.0";
    host.write(&format!("{gpu}/resource"), "garbage\n");
    host.write(&format!("{gpu}/numa_node"), "one\n");
    host.write(&format!("{gpu}/subsystem_device"), "\n");
    fs::remove_file(host.path(&format!("{gpu}/reset_method"))).unwrap();
    host.directory(&format!("{gpu}/reset_method"));
    let inventory = host.pci_probe().unwrap();
    let function = inventory.devices.iter().find(|function| function.address.bus == 0x41).unwrap();
    assert_eq!((function.numa_node, function.subsystem, function.driver.as_deref()), (None, None, Some("vfio-pci")));
    assert!(function.bars.is_empty() && function.reset_methods.is_empty());
    let what: Vec<_> = inventory.errors.iter().map(|error| error.what.as_ref()).collect();
    assert_eq!(what, ["subsystem", "NUMA node", "reset methods", "BARs"]);
}

#[test]
fn a_function_without_an_iommu_has_no_group_even_if_vfio_made_one_up() {
    let host = server();
    host.write("sys/kernel/iommu_groups/17/name", "vfio-noiommu\n");
    let gpu = host.pci_probe().unwrap().devices.pop().unwrap();
    assert_eq!((gpu.driver.as_deref(), gpu.iommu_group), (Some("vfio-pci"), None));
}

#[test]
fn a_driver_override_is_read_even_if_another_device_is_locked() {
    let host = server();
    host.write("sys/devices/pci0000:00/0000:41:00.0/driver_override", "vfio-pci\n");
    host.write("sys/devices/pci0000:00/0000:01:10.2/driver_override", "(null)\n");
    // A FIFO that nobody writes to holds its reader back as the kernel does while the device is locked.
    let locked = host.path("sys/devices/pci0000:00/0000:01:00.0/driver_override");
    rustix::fs::mknodat(rustix::fs::CWD, &locked, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    for _ in 0..2 {
        let inventory = host.pci_probe().unwrap();
        let overrides: Vec<_> = inventory.devices.iter().map(|function| function.driver_override.as_deref()).collect();
        assert_eq!(overrides, [None, None, None, None, Some("vfio-pci")]);
        let [error] = &inventory.errors[..] else { panic!("{:?}", texts(&inventory.errors)) };
        assert_eq!((error.device.as_str(), error.what.as_ref()), ("pci 0000:01:00.0", "driver override"));
        assert!(chain(error).contains("the device is locked"), "{}", chain(error));
    }
}

#[test]
fn a_link_is_measured_by_what_card_and_slot_can_do_together() {
    let host = server();
    let port = "sys/devices/pci0000:00/0000:00:00.0";
    let gpu = format!("{port}/0000:42:00.0");
    for (file, text) in BRIDGE.iter().chain(&[("current_link_width", "8"), ("max_link_width", "16")]) {
        host.write(&format!("{gpu}/{file}"), format!("{text}\n"));
    }
    host.link("sys/bus/pci/devices/0000:42:00.0", "../../../devices/pci0000:00/0000:00:00.0/0000:42:00.0");
    let look = || {
        let inventory = host.pci_probe().unwrap();
        let function = inventory.devices.iter().find(|function| function.address.bus == 0x42).unwrap();
        assert_eq!(function.slot_path, "pci0000:00/00.0/00.0");
        (function.link, texts(&inventory.errors))
    };
    assert_eq!(look().0, Some(Link { width: 8, max_width: 16 }), "nobody says what the slot can do");
    host.write(&format!("{port}/max_link_width"), "8\n");
    assert_eq!(look().0, Some(Link { width: 8, max_width: 8 }), "a wide card in a narrow slot");
    host.write(&format!("{gpu}/current_link_width"), "0\n");
    assert_eq!(look(), (None, vec![]), "no link of its own");
    host.write(&format!("{gpu}/current_link_width"), "63\n");
    let (link, errors) = look();
    assert!(link.is_none() && errors[0].contains("63"), "a device that does not answer: {errors:?}");
}

/// A removed function whose entry is still listed: there, unknown, and never mistaken for an empty slot.
#[test]
fn an_entry_that_leads_nowhere_is_an_error() {
    let host = server();
    fs::remove_dir_all(host.path("sys/devices/pci0000:00/0000:41:00.0")).unwrap();
    host.pci("nonsense", &BRIDGE);
    let inventory = host.pci_probe().unwrap();
    assert_eq!(inventory.devices.len(), 4);
    let named: Vec<_> = inventory.errors.iter().map(|error| (error.device.as_str(), error.what.as_ref())).collect();
    assert_eq!(named, [("pci 0000:41:00.0", "vendor"), ("pci nonsense", "address")]);
}

/// Hot-unplug against the probe: a function that goes is seen whole, or not at all.
#[test]
fn a_function_that_vanishes_is_never_seen_unbound() {
    let host = server();
    let entry = host.path("sys/bus/pci/devices/0000:41:00.0");
    let driver = host.path("sys/devices/pci0000:00/0000:41:00.0/driver");
    let (entry_target, driver_target) = (fs::read_link(&entry).unwrap(), fs::read_link(&driver).unwrap());
    for _ in 0..200 {
        std::thread::scope(|scope| {
            let unplugger = scope.spawn(|| {
                fs::remove_file(&entry).unwrap();
                fs::remove_file(&driver).unwrap();
            });
            loop {
                let last = unplugger.is_finished();
                let inventory = host.pci_probe().unwrap();
                assert!(inventory.errors.is_empty(), "{:?}", texts(&inventory.errors));
                for function in inventory.devices.iter().filter(|function| function.address.bus == 0x41) {
                    assert_eq!(function.driver.as_deref(), Some("vfio-pci"));
                }
                if last {
                    assert_eq!(inventory.devices.len(), 4);
                    break;
                }
            }
        });
        symlink(&entry_target, &entry).unwrap();
        symlink(&driver_target, &driver).unwrap();
    }
}

#[test]
fn no_bus_is_told_from_no_sysfs() {
    // A kernel without PCI and without USB.
    let host = Host::new();
    fs::remove_dir_all(host.path("sys/bus/pci")).unwrap();
    fs::remove_dir_all(host.path("sys/bus/usb")).unwrap();
    assert!(host.pci_probe().unwrap().devices.is_empty());
    assert!(host.usb_probe().unwrap().devices.is_empty());

    // A bus that is there and cannot be listed.
    host.directory("sys/bus/pci/drivers");
    assert!(chain(&host.pci_probe().unwrap_err()).contains("sys/bus/pci/devices"));
    host.write("sys/bus/usb/devices", "");
    assert!(chain(&host.usb_probe().unwrap_err()).contains("sys/bus/usb/devices"));

    // No sysfs at all: an empty answer would free every device of the host.
    let nothing = Host(tempfile::tempdir().unwrap());
    assert_eq!(nothing.pci_probe().unwrap_err().device, "pci");
    nothing.directory("sys");
    assert_eq!(nothing.usb_probe().unwrap_err().device, "usb");
    assert!(HostFs::at("/nonexistent").is_err());
}

#[test]
fn usb_devices_are_known_by_port_and_serial() {
    let host = Host::new();
    host.usb("1-2", &[("idVendor", "0424"), ("idProduct", "2514"), ("bDeviceClass", "09"), ("devnum", "2")]);
    host.usb("1-2.10", &DISK);
    host.usb(
        "1-2.3",
        &[DISK[0], DISK[1], DISK[2], ("devnum", "5"), ("manufacturer", "QEMU"), ("product", "Evil\x1b[2J")],
    );
    host.usb("1-2.3:1.0", &[("bInterfaceClass", "08")]);
    host.link("sys/bus/usb/devices/usb1", "../../../devices/pci0000:00/0000:00:14.0/usb1");

    let inventory = host.usb_probe().unwrap();
    assert!(inventory.errors.is_empty(), "{:?}", texts(&inventory.errors));
    let [hub, evil, disk] = &inventory.devices[..] else { panic!("{:?}", inventory.devices) };
    assert_eq!((hub.port.to_string().as_str(), hub.kind, hub.class_name.as_deref()), ("1-2", Kind::Hub, Some("Hub")));
    assert_eq!((evil.port.to_string().as_str(), evil.device_number, evil.serial.as_deref()), ("1-2.3", 5, None));
    assert_eq!(evil.product_name.as_deref(), Some("Evil\u{fffd}[2J"));
    assert_eq!((disk.port.to_string().as_str(), disk.kind), ("1-2.10", Kind::Device));
    assert_eq!((disk.vendor, disk.product, disk.serial.as_deref()), (0x46f4, 1, Some("ABC123")));
    assert_eq!(disk.controller.as_deref(), Some("0000:00:14.0"));
}

#[test]
fn an_unreadable_usb_device_is_an_error_on_that_device() {
    for (file, what) in [("idVendor", "vendor"), ("devnum", "device number"), ("serial", "serial number")] {
        let host = Host::new();
        host.usb("1-1", &DISK);
        let device = host.usb("1-4", &DISK);
        host.write(&format!("{device}/{file}"), b"\xff\xfe");
        let inventory = host.usb_probe().unwrap();
        assert_eq!(inventory.devices.len(), 1);
        let [error] = &inventory.errors[..] else { panic!("{:?}", texts(&inventory.errors)) };
        assert_eq!((error.device.as_str(), error.what.as_ref()), ("usb 1-4", what));
    }
    let host = Host::new();
    for odd in ["1-", "1-2.", "x-1", "01-1", "1-999"] {
        host.usb(odd, &DISK);
    }
    let inventory = host.usb_probe().unwrap();
    assert_eq!((inventory.devices.len(), inventory.errors.len()), (0, 5));
}

#[test]
fn this_machine_can_be_read() {
    let fs = HostFs::at("/").unwrap();
    if !fs.has("/sys/bus/platform").unwrap() {
        eprintln!("skipped: no sysfs on this machine");
        return;
    }
    let inventory = pci::probe(&fs).unwrap();
    assert!(inventory.errors.is_empty(), "{:?}", texts(&inventory.errors));
    let listed = fs::read_dir("/sys/bus/pci/devices").map_or(0, Iterator::count);
    assert_eq!(inventory.devices.len(), listed);
    usb::probe(&fs).unwrap();
}
