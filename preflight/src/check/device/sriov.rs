//! Who can make virtual functions, and how many.

use croft_gpu::pci::Sriov;

use super::super::{Check, Found};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "sriov",
    looks_at: "sriov_totalvfs and the virtual functions that are there",
    why: "pools of virtual functions, and vGPUs of newer boards, are made of these",
    worst: Level::Warn,
    role: None,
    look,
};

fn look(facts: &Facts) -> Found {
    let mut findings = Vec::new();
    for function in &facts.devices.pci.devices {
        let Sriov::Physical { total, functions, .. } = &function.sriov else { continue };
        let what = super::what(function);
        findings.push(match total {
            0 => Finding::warn(
                function.address,
                format!("{what}: 0 virtual functions possible"),
                "turn SR-IOV on in the firmware's setup, and in the card's own",
            ),
            _ => {
                Finding::ok(function.address, format!("{what}: {} of {total} virtual functions made", functions.len()))
            }
        });
    }
    Ok(findings)
}
