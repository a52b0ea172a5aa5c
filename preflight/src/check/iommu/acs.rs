//! Do the ports above GPUs and cards with SR-IOV keep what is below them apart (Access Control Services)?

use std::collections::{BTreeMap, BTreeSet};

use croft_gpu::pci::PciAddress;
use croft_gpu::{FsError, IfPresent as _};

use super::super::{Check, Found, count};
use crate::facts::{Facts, User};
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "acs",
    looks_at: "the ACS capability of the PCI Express ports above GPUs and functions with SR-IOV",
    why: "a port without ACS lets devices behind it reach each other around the IOMMU, so the kernel puts them into one group",
    worst: Level::Warn,
    role: None,
    look,
};

fn look(facts: &Facts) -> Found {
    let mut above: BTreeMap<PciAddress, BTreeSet<PciAddress>> = BTreeMap::new();
    for function in facts.worth_giving().filter(|function| function.iommu_group.is_some()) {
        for port in ports_above(facts, function.address)? {
            above.entry(port).or_default().insert(function.address);
        }
    }
    let (mut with, mut unseen, mut findings) = (0, 0, Vec::new());
    for (port, below) in &above {
        match has_acs(facts, *port)? {
            Some(true) => with += 1,
            Some(false) => findings.push(without(facts, *port, below)),
            None => unseen += 1,
        }
    }
    if with > 0 {
        findings.insert(0, Finding::ok("host", format!("ACS on {}", count(with, "port"))));
    }
    if unseen > 0 {
        let found =
            format!("not seen for {}: only root may read all of their configuration space", count(unseen, "port"));
        let fix = match facts.asked.user {
            User::Other => "run it as root: sudo croft host preflight",
            User::Root => "see the kernel's log: lockdown, or a port that does not answer",
        };
        findings.push(Finding::warn("host", found, fix));
    }
    Ok(findings)
}

/// Alone in its group all the same (the kernel knows some ports to isolate without saying so): nothing is missing.
fn without(facts: &Facts, port: PciAddress, below: &BTreeSet<PciAddress>) -> Finding {
    let names: Vec<_> = below.iter().map(ToString::to_string).collect();
    let found = format!("no ACS on this port, above {}", names.join(", "));
    let group_of = |address: &PciAddress| facts.function(*address).and_then(|function| function.iommu_group);
    let groups: BTreeSet<_> = below.iter().filter_map(group_of).collect();
    let apart = groups.len() == below.len() && !group_of(&port).is_some_and(|own| groups.contains(&own));
    match apart {
        true => Finding::info(port, found, "nothing: the kernel keeps them in groups of their own"),
        false => {
            Finding::warn(port, found, "turn ACS on in the firmware's setup, or use a slot behind a port that has it")
        }
    }
}

/// Bridges between the function and its root complex, from where its entry leads.
fn ports_above(facts: &Facts, address: PciAddress) -> Result<Vec<PciAddress>, FsError> {
    let target = facts.fs.link(&format!("/sys/bus/pci/devices/{address}"))?;
    let parts = target.iter().filter_map(|part| part.to_str()?.parse::<PciAddress>().ok());
    Ok(parts.filter(|part| *part != address).collect())
}

/// <linux/pci_regs.h>
const EXTENDED: usize = 0x100;
const END: usize = 0x1000;
const ACCESS_CONTROL_SERVICES: u32 = 0x000d;

/// `None`: the part of configuration space that says it was not shown.
fn has_acs(facts: &Facts, port: PciAddress) -> Result<Option<bool>, FsError> {
    let config = facts.fs.read_bytes(&format!("/sys/bus/pci/devices/{port}/config")).if_present()?.unwrap_or_default();
    Ok((config.len() >= END).then(|| capability(&config)))
}

fn capability(config: &[u8]) -> bool {
    let word = |at: usize| Some(u32::from_le_bytes(config.get(at..at + 4)?.try_into().ok()?));
    let mut at = EXTENDED;
    // No more capabilities fit than this: a list that goes in circles ends too.
    for _ in 0..(END - EXTENDED) / 8 {
        match word(at) {
            None | Some(0 | u32::MAX) => return false,
            Some(header) if header & 0xffff == ACCESS_CONTROL_SERVICES => return true,
            Some(header) => at = (header >> 20) as usize & !3,
        }
        if at < EXTENDED {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_is_found_in_the_list_or_not_at_all() {
        let with = |entries: &[(usize, u32)]| {
            let mut config = vec![0; END];
            for (at, header) in entries {
                config[*at..at + 4].copy_from_slice(&header.to_le_bytes());
            }
            capability(&config)
        };
        assert!(with(&[(0x100, 0x1401_0001), (0x140, 0x0001_000d)]));
        assert!(!with(&[(0x100, 0x0001_0001), (0x140, 0x0001_000d)]), "not in the list");
        assert!(!with(&[(0x100, 0x1001_0001)]), "a list that goes in circles");
        assert!(!capability(&[0xff; END]), "a port that does not answer");
    }
}
