//! Are interrupts of devices remapped, too?

use super::super::{Check, Found};
use super::on::isolating_groups;
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "interrupt-remapping",
    looks_at: "whether the interrupt controllers in /proc/interrupts are remapped (IR-), and vfio's allow_unsafe_interrupts",
    why: "without it a guest could raise any interrupt of the host by its device; VFIO then gives no device away",
    worst: Level::Fail,
    role: None,
    look,
};

const UNSAFE: &str = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";

fn look(facts: &Facts) -> Found {
    let units = facts.names("/sys/class/iommu")?;
    let on_x86 = units.iter().any(|unit| unit.starts_with("dmar") || unit.starts_with("ivhd"));
    if isolating_groups(facts)?.is_empty() || !on_x86 {
        return Ok(Vec::new());
    }
    let interrupts = facts.fs.read("/proc/interrupts")?;
    let remapped = interrupts.split_whitespace().any(|word| word.starts_with("IR-"));
    let allowed = facts.attribute(UNSAFE)?.as_deref() == Some("Y");
    Ok(vec![match (remapped, allowed) {
        (true, false) => Finding::ok("host", "on"),
        (true, true) => Finding::warn(
            "host",
            "on, but vfio_iommu_type1 has allow_unsafe_interrupts=Y",
            "take allow_unsafe_interrupts out of /etc/modprobe.d and the kernel arguments",
        ),
        (false, true) => Finding::warn(
            "host",
            "off, and vfio_iommu_type1 has allow_unsafe_interrupts=Y: devices are given away all the same",
            "turn x2APIC and interrupt remapping on in the firmware's setup, boot without intremap=off, and take \
             allow_unsafe_interrupts away",
        ),
        (false, false) => Finding::fail(
            "host",
            "off",
            "turn x2APIC and interrupt remapping on in the firmware's setup; boot without intremap=off and nointremap",
        ),
    }])
}
