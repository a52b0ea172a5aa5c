//! The programs that the agent, and libvirt for it, call.

use super::super::{Check, Found};
use crate::facts::{self, Facts};
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "tools",
    looks_at: "qemu-img, nft, dnsmasq, ebtables, iptables, ip",
    why: "disks are made by qemu-img; tenants' networks are filtered by nft and ebtables, and served by dnsmasq",
    worst: Level::Fail,
    role: Some("libvirt"),
    look,
};

/// With their packages on Debian and Ubuntu.
const TOOLS: [(&str, &str); 6] = [
    ("qemu-img", "qemu-utils"),
    ("nft", "nftables"),
    ("dnsmasq", "dnsmasq-base"),
    ("ebtables", "iptables"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
];

fn look(facts: &Facts) -> Found {
    let mut missing = Vec::new();
    for (tool, package) in TOOLS {
        if facts::program(&facts.fs, tool)?.is_none() {
            missing.push((tool, package));
        }
    }
    if missing.is_empty() {
        return Ok(vec![Finding::ok("host", "all are there")]);
    }
    let tools: Vec<_> = missing.iter().map(|(tool, _)| *tool).collect();
    let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    let fix = format!("apt-get install {}", packages.join(" "));
    Ok(vec![Finding::fail("host", format!("missing: {}", tools.join(", ")), fix).by("libvirt")])
}
