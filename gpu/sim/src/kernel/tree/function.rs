//! The directory of one PCI function, and the links to it.

use croft_gpu::Node;
use croft_gpu::pci::PciAddress;

use super::Entries;
use super::config::config_space;
use crate::boards::{BarSize, Space};
use crate::kernel::hardware::Vfio;
use crate::kernel::machine::{Function, Machine};
use crate::kernel::mdev;
use crate::kernel::shape::Facts;
use crate::state::Flavour;

pub(super) fn entries(machine: &Machine, address: PciAddress, function: &Function) -> Entries {
    let mut entries = Entries::default();
    let Some(facts) = function.shape.facts() else { return entries };
    let directory = format!("sys/devices/{}", function.directory(address));
    let at = |file: &str| format!("{directory}/{file}");

    identity(&mut entries, &at, address, function, &facts);
    links(&mut entries, &at, address, function, &directory);
    entries.value(at("driver_override"), function.driver_override.as_deref().unwrap_or("(null)"));
    entries.empty(at("remove"));
    if !facts.reset_methods.is_empty() {
        entries.value(at("reset_method"), function.reset_methods.join(" "));
        entries.empty(at("reset"));
    }
    sriov(&mut entries, &at, function);
    uses(&mut entries, &at, address, function);
    if let Some(number) = function.vfio {
        vfio_device(&mut entries, machine, &directory, number);
    }
    vgpu(&mut entries, &at, machine, address);
    entries
}

/// `vfio-dev/vfioN` of a function or a mediated device. Only kernels that let it be opened without its group have a file for it.
pub(super) fn vfio_device(entries: &mut Entries, machine: &Machine, directory: &str, number: u32) {
    const MAJOR: u32 = 511;
    let own = format!("{directory}/vfio-dev/vfio{number}");
    match machine.vfio {
        Vfio::GroupsAndDevices => {
            entries.node_of(format!("dev/vfio/devices/vfio{number}"), Node::char(MAJOR, number), &own);
        }
        Vfio::Groups => entries.directory(own),
    }
}

fn identity(
    entries: &mut Entries,
    at: &impl Fn(&str) -> String,
    address: PciAddress,
    function: &Function,
    facts: &Facts,
) {
    let &Facts { vendor, device, subsystem: (subvendor, subdevice), class, revision, .. } = facts;
    entries.value(at("vendor"), format!("{vendor:#06x}"));
    entries.value(at("device"), format!("{device:#06x}"));
    entries.value(at("subsystem_vendor"), format!("{subvendor:#06x}"));
    entries.value(at("subsystem_device"), format!("{subdevice:#06x}"));
    entries.value(at("class"), format!("{class:#08x}"));
    entries.value(at("revision"), format!("{revision:#04x}"));
    entries.value(at("numa_node"), function.numa_node.map_or(-1, i32::from));
    entries.value(at("enable"), u8::from(function.driver.is_some()));
    entries.value(at("power_state"), "D0");
    let [_, base, sub, interface] = class.to_be_bytes();
    let alias = format!(
        "pci:v{vendor:08X}d{device:08X}sv{subvendor:08X}sd{subdevice:08X}bc{base:02X}sc{sub:02X}i{interface:02X}"
    );
    entries.value(at("modalias"), &alias);
    let driver = function.driver.as_ref().map_or_else(String::new, |driver| format!("DRIVER={driver}\n"));
    let uevent = format!(
        "{driver}PCI_CLASS={class:X}\nPCI_ID={vendor:04X}:{device:04X}\nPCI_SUBSYS_ID={subvendor:04X}:{subdevice:04X}\n\
         PCI_SLOT_NAME={address}\nMODALIAS={alias}\n"
    );
    entries.text(at("uevent"), uevent);
    entries.text(at("resource"), resource(address, facts.bars));
    entries.text(at("config"), config_space(function, facts));
    if let Some((speed, width)) = facts.link {
        for which in ["current", "max"] {
            entries.value(at(&format!("{which}_link_speed")), speed);
            entries.value(at(&format!("{which}_link_width")), width);
        }
    }
}

fn links(entries: &mut Entries, at: &impl Fn(&str) -> String, address: PciAddress, function: &Function, own: &str) {
    entries.link(format!("sys/bus/pci/devices/{address}"), own);
    entries.link(at("subsystem"), "sys/bus/pci");
    if let Some(driver) = &function.driver {
        let driver = format!("sys/bus/pci/drivers/{driver}");
        entries.link(at("driver"), &driver);
        entries.link(format!("{driver}/{address}"), own);
    }
    if let Some(group) = function.group {
        let group = format!("sys/kernel/iommu_groups/{group}");
        entries.link(at("iommu_group"), &group);
        entries.link(format!("{group}/devices/{address}"), own);
    }
}

fn sriov(entries: &mut Entries, at: &impl Fn(&str) -> String, function: &Function) {
    // A virtual function is beside its physical one, below the same port.
    let beside = |address: PciAddress| format!("sys/devices/{}/{address}", function.above);
    if let Some(physical) = function.physical {
        entries.link(at("physfn"), &beside(physical));
    }
    let (Some(state), Some(shape)) = (&function.sriov, function.shape.sriov()) else { return };
    entries.value(at("sriov_totalvfs"), shape.total);
    entries.value(at("sriov_numvfs"), state.functions.len());
    entries.value(at("sriov_offset"), shape.offset);
    entries.value(at("sriov_stride"), shape.stride);
    entries.value(at("sriov_vf_device"), format!("{:x}", shape.device));
    entries.value(at("sriov_drivers_autoprobe"), u8::from(state.autoprobe));
    for (index, made) in state.functions.iter().enumerate() {
        entries.link(at(&format!("virtfn{index}")), &beside(*made));
    }
}

/// What the drivers of network cards and drives make of them for the host itself. A drive's virtual functions have no
/// namespace before somebody attaches one.
fn uses(entries: &mut Entries, at: &impl Fn(&str) -> String, address: PciAddress, function: &Function) {
    match function.driver.as_deref() {
        Some("igb" | "igbvf") => {
            let name = interface(address);
            let [high, low] = [address.bus, address.device << 3 | address.function];
            entries.value(at(&format!("net/{name}/address")), format!("02:00:00:00:{high:02x}:{low:02x}"));
            entries.value(at(&format!("net/{name}/operstate")), "up");
            entries.link(format!("sys/class/net/{name}"), &at(&format!("net/{name}")));
        }
        Some("nvme") if !function.is_virtual() => {
            let number = address.bus;
            let disk = at(&format!("nvme/nvme{number}/nvme{number}n1"));
            entries.node_of(format!("dev/nvme{number}n1"), Node::block(259, number.into()), &disk);
            entries.value(format!("{disk}/size"), 1_875_385_008);
            entries.link(format!("sys/block/nvme{number}n1"), &disk);
        }
        _ => {}
    }
}

/// As systemd names them by where they are.
fn interface(address: PciAddress) -> String {
    let PciAddress { bus, device, function, .. } = address;
    match function {
        0 => format!("enp{bus}s{device}"),
        _ => format!("enp{bus}s{device}f{function}"),
    }
}

/// What NVIDIA's vGPU host driver adds to a virtual function of its, or to a board that makes none.
fn vgpu(entries: &mut Entries, at: &impl Fn(&str) -> String, machine: &Machine, address: PciAddress) {
    let Some((gpu, view)) = machine.vgpu(address) else { return };
    if machine.flavour == Flavour::VgpuVendor {
        let mut list = "ID    : vGPU Name\n".to_owned();
        for (id, name) in gpu.types.iter().filter(|(id, _)| view.creatable.contains_key(id)) {
            list += &format!("{id:<5} : {name}\n");
        }
        entries.text(at("nvidia/creatable_vgpu_types"), list);
        entries.value(at("nvidia/current_vgpu_type"), view.current);
        // Later drivers have it. There it is always, and answers a reader with ENXIO while there is nothing to say; a file
        // cannot do that, and is not there instead.
        if let Some(instance) = view.instance {
            entries.value(at("nvidia/gpu_instance_id"), instance);
        }
    }
    if mdev::is_parent(machine, address) {
        for (id, name) in &gpu.types {
            let file = |name: &str| at(&format!("mdev_supported_types/nvidia-{id}/{name}"));
            entries.value(file("name"), name);
            entries.value(file("available_instances"), view.creatable.get(id).unwrap_or(&0));
            entries.value(file("device_api"), "vfio-pci");
            entries.empty(file("create"));
            entries.directory(file("devices"));
        }
    }
}

/// Six BARs, the ROM, and six more for virtual functions, of which only the first are simulated.
fn resource(address: PciAddress, bars: &[BarSize]) -> String {
    let id = u64::from(address.bus) << 8 | u64::from(address.device) << 3 | u64::from(address.function);
    // Half a TiB for each function is more than any board has.
    let mut next = id << 39;
    let mut lines = [(0, 0, 0); 13];
    let mut by_size: Vec<_> = bars.iter().collect();
    by_size.sort_by_key(|bar| std::cmp::Reverse(bar.bytes));
    for bar in by_size {
        // <linux/ioport.h>, as the kernel prints them for such BARs.
        let flags = match bar.space {
            Space::Io => 0x40101,
            Space::Memory32 => 0x40200,
            Space::Memory64 => 0x14_220c,
        };
        if let Some(line) = lines.get_mut(usize::from(bar.index)) {
            *line = (next, next + bar.bytes - 1, flags);
        }
        next += bar.bytes;
    }
    lines.iter().map(|(start, end, flags)| format!("{start:#018x} {end:#018x} {flags:#018x}\n")).collect()
}
