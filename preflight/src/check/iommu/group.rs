//! Can each GPU, and each function that makes virtual ones, be given without what the host needs itself? By the rules of the
//! agent's own planner, and in its words.

use croft_gpu::pci::{PciAddress, PciFunction};
use croft_gpu::plan::{Reason, Refusal, Wish, give_back};

use super::super::{Check, Found, count};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "iommu-group",
    looks_at: "who shares the IOMMU group of each GPU and of each function with SR-IOV",
    why: "an IOMMU group goes to a guest whole or not at all, and what the host may live on is never taken along",
    worst: Level::Fail,
    role: None,
    look,
};

fn look(facts: &Facts) -> Found {
    let mut findings = Vec::new();
    let mut fine = 0;
    for function in facts.worth_giving().filter(|function| function.iommu_group.is_some()) {
        match obstacle(facts, function) {
            None => fine += 1,
            Some(refusal) => findings.push(told(facts, function.address, refusal)),
        }
    }
    if fine > 0 {
        findings.insert(
            0,
            Finding::ok("host", format!("{} can go to a guest with the whole group", count(fine, "device"))),
        );
    }
    Ok(findings)
}

/// Before it takes a function the agent asks how it would give the group back: that names each one that goes along.
fn obstacle(facts: &Facts, function: &PciFunction) -> Option<Refusal> {
    let address = function.address;
    let along = match give_back(&facts.devices, &Wish::Passthrough { address }) {
        Ok(Some(Wish::Return { homes })) => homes.into_keys(),
        Ok(_) => return None,
        Err(refusal) => return Some(refusal),
    };
    let other = along.into_iter().find(|other| *other != address && is_gpu(facts, *other))?;
    Some(Refusal {
        reason: Reason::IommuGroupShared,
        device: address.to_string(),
        message: format!("{address} shares IOMMU group {} with GPU {other}", function.iommu_group.unwrap_or_default()),
        fix: "move one of them to a slot whose root port isolates it (ACS)".to_owned(),
    })
}

fn is_gpu(facts: &Facts, address: PciAddress) -> bool {
    facts.gpus().any(|gpu| gpu.address == address)
}

fn told(facts: &Facts, address: PciAddress, refusal: Refusal) -> Finding {
    match refusal.reason {
        Reason::IommuGroupShared if is_gpu(facts, address) => Finding::fail(address, refusal.message, refusal.fix),
        Reason::IommuGroupShared => Finding::warn(address, refusal.message, refusal.fix),
        _ => Finding::warn(address, format!("not seen: {}", refusal.message), refusal.fix),
    }
}
