//! Files that stay as they are from one boot to the next.

use croft_gpu::Node;

use super::{CAPABILITY_MAJOR, Entries, NVIDIA_MAJOR, PERMANENT, PERMANENT_MDEV, capability};
use crate::kernel::drivers;
use crate::kernel::hardware::{Iommu, Vfio};
use crate::kernel::machine::Machine;

pub(super) fn entries(machine: &Machine) -> Entries {
    let mut entries = Entries::default();
    let has_nvidia = machine.drivers.contains(drivers::NVIDIA);
    for directory in PERMANENT.iter().filter(|directory| has_nvidia || !directory.contains("nvidia")) {
        entries.directory(*directory);
    }
    entries.empty("sys/bus/pci/drivers_probe");
    entries.empty("sys/bus/pci/rescan");
    for driver in &machine.drivers {
        for file in ["bind", "unbind", "new_id", "remove_id"] {
            entries.empty(format!("sys/bus/pci/drivers/{driver}/{file}"));
        }
    }
    entries.value("proc/sys/kernel/random/boot_id", &machine.boot_id);
    let iommu = match machine.iommu {
        Iommu::On => "intel_iommu=on iommu=pt",
        Iommu::Off => "intel_iommu=off",
    };
    entries.value("proc/cmdline", format!("root=/dev/vda1 ro {iommu}"));
    if machine.iommu == Iommu::On {
        entries.directory("sys/class/iommu/dmar0");
    }
    for (parameter, value) in [("disable_vga", "N"), ("disable_idle_d3", "N"), ("nointxmask", "N")] {
        entries.value(format!("sys/module/vfio_pci/parameters/{parameter}"), value);
    }
    entries.node("dev/vfio/vfio", Node::char(10, 196));
    if machine.vfio == Vfio::GroupsAndDevices {
        entries.node("dev/iommu", Node::char(10, 125));
    }
    let nvidia_devices = match has_nvidia {
        true => format!("{NVIDIA_MAJOR} nvidia\n{CAPABILITY_MAJOR} nvidia-caps\n"),
        false => String::new(),
    };
    entries.text(
        "proc/devices",
        format!(
            "Character devices:\n  1 mem\n 10 misc\n189 usb_device\n{nvidia_devices}\nBlock devices:\n259 blkext\n"
        ),
    );
    if has_nvidia {
        nvidia(&mut entries, machine);
    }
    entries
}

/// What a loaded `nvidia.ko` has, whether or not it holds a GPU.
fn nvidia(entries: &mut Entries, machine: &Machine) {
    let version = &machine.driver_version;
    entries.value("sys/module/nvidia/version", version);
    let banner = format!("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build");
    entries.value("proc/driver/nvidia/version", banner);
    entries.text("proc/driver/nvidia-caps/mig-minors", capability::mig_minors());
    capability::file(entries, "proc/driver/nvidia/capabilities/mig/config", 1, 0o400);
    capability::file(entries, "proc/driver/nvidia/capabilities/mig/monitor", 2, 0o444);
    for (node, major, minor) in [("nvidiactl", NVIDIA_MAJOR, 255), ("nvidia-uvm", 509, 0), ("nvidia-uvm-tools", 509, 1)]
    {
        entries.node(format!("dev/{node}"), Node::char(major, minor));
    }
    if machine.flavour == crate::state::Flavour::VgpuMdev {
        for directory in PERMANENT_MDEV {
            entries.directory(directory);
        }
    }
}
