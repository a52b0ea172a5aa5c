//! Files that stay as they are from one boot to the next.

use super::{Entries, PERMANENT, PERMANENT_MDEV, capability};
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
    entries.empty("dev/vfio/vfio");
    if machine.vfio == Vfio::GroupsAndDevices {
        entries.empty("dev/iommu");
    }
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
    for node in ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"] {
        entries.empty(format!("dev/{node}"));
    }
    if machine.flavour == crate::state::Flavour::VgpuMdev {
        for directory in PERMANENT_MDEV {
            entries.directory(directory);
        }
    }
}
