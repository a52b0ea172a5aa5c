//! Can each GPU, and each function that makes virtual ones, be given without what the host needs itself?

use croft_gpu::pci::PciFunction;

use super::super::{Check, Found, count};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "iommu-group",
    looks_at: "who shares the IOMMU group of each GPU and of each function with SR-IOV",
    why: "an IOMMU group goes to a guest whole or not at all",
    worst: Level::Fail,
    role: None,
    look,
};

fn look(facts: &Facts) -> Found {
    let mut findings = Vec::new();
    let mut fine = 0;
    for function in facts.worth_giving().filter(|function| function.iommu_group.is_some()) {
        let is_gpu = facts.gpus().any(|gpu| gpu.address == function.address);
        match obstacles(facts, function, is_gpu)[..] {
            [] => fine += 1,
            ref culprits => findings.push(shared(function, is_gpu, culprits)),
        }
    }
    if fine > 0 {
        let found = format!("{} in a group with nothing else that counts", count(fine, "device"));
        findings.insert(0, Finding::ok("host", found));
    }
    Ok(findings)
}

/// Others of the group that would have to go along and cannot. Bridges stay, and functions of the same card go along.
fn obstacles<'a>(facts: &'a Facts, function: &PciFunction, is_gpu: bool) -> Vec<&'a PciFunction> {
    const BRIDGE: u32 = 0x06;
    let (own, group) = (function.address, function.iommu_group);
    let same_card = |other: &PciFunction| {
        (other.address.domain, other.address.bus, other.address.device) == (own.domain, own.bus, own.device)
    };
    let others = facts.devices.pci.devices.iter().filter(|other| other.iommu_group == group && other.address != own);
    others
        .filter(|other| other.class >> 16 != BRIDGE)
        .filter(|other| facts.gpus().any(|gpu| gpu.address == other.address) || !(is_gpu && same_card(other)))
        .collect()
}

fn shared(function: &PciFunction, is_gpu: bool, culprits: &[&PciFunction]) -> Finding {
    let name = |other: &&PciFunction| {
        let what = other.device_name.as_deref().or(other.class_name.as_deref()).unwrap_or("unknown");
        format!("{} ({what}, {})", other.address, other.driver.as_deref().unwrap_or("no driver"))
    };
    let group = function.iommu_group.unwrap_or_default();
    let names: Vec<_> = culprits.iter().map(name).collect();
    let found = format!("shares IOMMU group {group} with {}", names.join(", "));
    let fix = "move one of the cards to a slot behind another root port, or turn ACS on in the firmware's setup; \
               `pcie_acs_override` only hides that they are not kept apart";
    if is_gpu { Finding::fail(function.address, found, fix) } else { Finding::warn(function.address, found, fix) }
}
