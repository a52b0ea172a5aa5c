//! Files that come and go and are no function's own: groups, VFIO nodes, mediated devices, NVIDIA's GPUs, USB.

use croft_gpu::Node;
use croft_gpu::pci::PciAddress;

use super::function::vfio_device;
use super::{Entries, NVIDIA_MAJOR, capability};
use crate::boards;
use crate::kernel::boot::USB_CONTROLLER;
use crate::kernel::drivers;
use crate::kernel::machine::{GpuView, Machine, Mdev, UsbState};
use crate::kernel::mdev;

const USB_MAJOR: u32 = 189;
/// Handed out at boot, from the top.
const VFIO_MAJOR: u32 = 235;

pub(super) fn entries(machine: &Machine) -> Entries {
    let mut entries = Entries::default();
    let parameter = if machine.enable_sriov { "Y" } else { "N" };
    entries.value("sys/module/vfio_pci/parameters/enable_sriov", parameter);
    vfio(&mut entries, machine);
    for (uuid, mdev) in &machine.mdevs {
        mediated(&mut entries, machine, uuid, mdev);
    }
    let parents = machine.functions.keys().filter(|address| mdev::is_parent(machine, **address));
    for address in parents {
        let own = format!("sys/devices/{}", machine.functions[address].directory(*address));
        entries.link(format!("sys/class/mdev_bus/{address}"), &own);
    }
    for (address, gpu) in &machine.gpus {
        nvidia(&mut entries, *address, gpu);
    }
    usb(&mut entries, machine);
    entries
}

fn vfio(entries: &mut Entries, machine: &Machine) {
    let mut groups: Vec<u32> = machine.functions.values().filter_map(|function| function.group).collect();
    groups.extend(machine.mdevs.values().map(|mdev| mdev.group));
    groups.sort_unstable();
    groups.dedup();
    for group in groups {
        entries.value(format!("sys/kernel/iommu_groups/{group}/type"), "identity");
    }
    for group in machine.vfio_groups() {
        let own = format!("sys/devices/virtual/vfio/{group}");
        entries.node_of(format!("dev/vfio/{group}"), Node::char(VFIO_MAJOR, group), &own);
    }
}

fn mediated(entries: &mut Entries, machine: &Machine, uuid: &str, mdev: &Mdev) {
    let Some(parent) = machine.functions.get(&mdev.parent) else { return };
    let parent = format!("sys/devices/{}", parent.directory(mdev.parent));
    let kind = format!("{parent}/mdev_supported_types/nvidia-{}", mdev.type_id);
    let (own, group) = (format!("{parent}/{uuid}"), format!("sys/kernel/iommu_groups/{}", mdev.group));
    entries.empty(format!("{own}/remove"));
    entries.text(format!("{own}/nvidia/vgpu_params"), "");
    vfio_device(entries, machine, &own, mdev.vfio);
    entries.link(format!("{own}/mdev_type"), &kind);
    entries.link(format!("{own}/iommu_group"), &group);
    entries.link(format!("{own}/subsystem"), "sys/bus/mdev");
    entries.link(format!("{own}/driver"), "sys/bus/mdev/drivers/nvidia-vgpu-vfio");
    entries.link(format!("{kind}/devices/{uuid}"), &own);
    entries.link(format!("{group}/devices/{uuid}"), &own);
    entries.link(format!("sys/bus/mdev/drivers/nvidia-vgpu-vfio/{uuid}"), &own);
    entries.link(format!("sys/bus/mdev/devices/{uuid}"), &own);
}

fn nvidia(entries: &mut Entries, address: PciAddress, gpu: &GpuView) {
    let GpuView { minor, uuid, product, vbios, .. } = gpu;
    let information = format!(
        "Model: \t\t {product}\nIRQ:   \t\t 41\nGPU UUID: \t {uuid}\nVideo BIOS: \t {vbios}\nBus Type: \t PCIe\n\
         DMA Size: \t 52 bits\nDMA Mask: \t 0xfffffffffffff\nBus Location: \t {address}\nDevice Minor: \t {minor}\n\
         GPU Excluded:\t No\n"
    );
    entries.text(format!("proc/driver/nvidia/gpus/{address}/information"), information);
    entries.value(format!("proc/driver/nvidia/gpus/{address}/unbindLock"), u8::from(gpu.unbind_locked));
    entries.node(format!("dev/nvidia{minor}"), Node::char(NVIDIA_MAJOR, *minor));
    capability::entries(entries, gpu);
}

fn usb(entries: &mut Entries, machine: &Machine) {
    let Some(controller) = machine.functions.get(&USB_CONTROLLER).filter(|xhci| xhci.is_on(drivers::XHCI_HCD)) else {
        return;
    };
    let hub = format!("sys/devices/{}/usb1", controller.directory(USB_CONTROLLER));
    let root = [
        ("idVendor", "1d6b"),
        ("idProduct", "0002"),
        ("bDeviceClass", "09"),
        ("busnum", "1"),
        ("devnum", "1"),
        ("devpath", "0"),
        ("speed", "480"),
        ("authorized", "1"),
        ("manufacturer", "Linux xhci-hcd"),
        ("product", "xHCI Host Controller"),
    ];
    for (file, value) in root {
        entries.value(format!("{hub}/{file}"), value);
    }
    entries.value(format!("{hub}/serial"), USB_CONTROLLER);
    entries.link(format!("{hub}/subsystem"), "sys/bus/usb");
    entries.link("sys/bus/usb/devices/usb1", &hub);
    entries.node_of("dev/bus/usb/001/001", Node::char(USB_MAJOR, 0), &hub);
    for (port, device) in &machine.usb {
        usb_device(entries, &hub, port, device);
    }
}

fn usb_device(entries: &mut Entries, hub: &str, port: &str, state: &UsbState) {
    let Some(device) = boards::usb::by_name(&state.plug.device) else { return };
    let path = port.split_once('-').map_or(port, |(_, path)| path);
    // A device behind a hub is below it: usb1/1-2/1-2.3.
    let hops = path.match_indices('.').map(|(end, _)| &path[..end]).chain([path]);
    let own = hops.fold(hub.to_owned(), |above, path| format!("{above}/1-{path}"));
    let at = |file: &str| format!("{own}/{file}");
    entries.value(at("idVendor"), format!("{:04x}", device.vendor));
    entries.value(at("idProduct"), format!("{:04x}", device.product));
    entries.value(at("bDeviceClass"), format!("{:02x}", device.class));
    entries.value(at("busnum"), 1);
    entries.value(at("devnum"), state.number);
    entries.value(at("devpath"), path);
    entries.value(at("speed"), device.speed);
    entries.value(at("manufacturer"), device.manufacturer_name);
    entries.value(at("product"), device.product_name);
    if let Some(serial) = &state.plug.serial {
        entries.value(at("serial"), serial);
    }
    entries.value(at("authorized"), u8::from(state.authorized));
    let uevent = format!(
        "DEVTYPE=usb_device\nDRIVER=usb\nPRODUCT={:x}/{:x}/100\nTYPE={}/0/0\nBUSNUM=001\nDEVNUM={:03}\n",
        device.vendor, device.product, device.class, state.number
    );
    entries.text(at("uevent"), uevent);
    entries.link(at("subsystem"), "sys/bus/usb");
    entries.link(at("driver"), "sys/bus/usb/drivers/usb");
    entries.link(format!("sys/bus/usb/drivers/usb/{port}"), &own);
    entries.link(format!("sys/bus/usb/devices/{port}"), &own);
    let node = Node::char(USB_MAJOR, u32::from(state.number) - 1);
    entries.node_of(format!("dev/bus/usb/001/{:03}", state.number), node, &own);
    if state.authorized {
        let interface = format!("{own}/{port}:1.0");
        let (class, driver) = device.interface;
        entries.value(format!("{interface}/bInterfaceNumber"), "00");
        entries.value(format!("{interface}/bInterfaceClass"), format!("{class:02x}"));
        entries.link(format!("{interface}/subsystem"), "sys/bus/usb");
        if let Some(driver) = driver {
            let driver = format!("sys/bus/usb/drivers/{driver}");
            entries.link(format!("{interface}/driver"), &driver);
            entries.link(format!("{driver}/{port}:1.0"), &interface);
        }
        entries.link(format!("sys/bus/usb/devices/{port}:1.0"), &interface);
    }
}
