//! Which memory each GPU is near to.

use std::collections::BTreeMap;

use super::super::{Check, Found, count};
use super::counted;
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "numa",
    looks_at: "the NUMA nodes, and the node of each GPU and function with SR-IOV",
    why: "placement puts an instance beside its device; a device without a node is placed blindly",
    worst: Level::Warn,
    role: None,
    look,
};

fn look(facts: &Facts) -> Found {
    let named = facts.names("/sys/devices/system/node")?;
    let number = |name: &String| name.strip_prefix("node")?.parse::<u32>().ok();
    let nodes = named.iter().filter_map(number).count().max(1);
    let (mut by_node, mut homeless) = (BTreeMap::<u32, Vec<String>>::new(), Vec::new());
    for function in facts.worth_giving() {
        match function.numa_node {
            Some(node) => by_node.entry(node).or_default().push(super::what(function)),
            None => homeless.push(function.address),
        }
    }
    let told: Vec<_> =
        by_node.into_iter().map(|(node, what)| format!("node {node}: {}", counted(what.into_iter()))).collect();
    let found = [vec![count(nodes, "node")], told].concat().join("; ");
    let mut findings = vec![Finding::ok("host", found)];
    if nodes > 1 {
        let fix = "update the firmware, or turn on in its setup what tells the nodes of PCI devices (_PXM)";
        let homeless =
            homeless.into_iter().map(|address| Finding::warn(address, "firmware names no NUMA node for it", fix));
        findings.extend(homeless);
    }
    Ok(findings)
}
