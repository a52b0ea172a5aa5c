//! What all Croft installations of one machine share: libvirt's filters and the firewall table. It goes with the last one.

use std::path::Path;

use anyhow::Result;

use super::hypervisor::{processes_named, virsh};
use super::leftovers::{MARK, domains, listed};
use super::site::Site;
use crate::run::{Run, have};

/// Network filters of libvirt.
const FILTERS: [&str; 2] = ["croft-tenant", "croft-bridge"];
/// The nftables table.
const TABLE: [&str; 3] = ["table", "inet", "croft"];

/// Whether somebody else on this machine still needs them: another agent, or a domain that bears Croft's mark and is
/// not this site's. This site's own daemons must have ended.
pub(super) fn needed_by_others(site: &Site) -> Result<bool> {
    // An agent of simulated hosts touches neither.
    if processes_named("croft-hostagent").iter().any(|(_, line)| !line.contains("simulated")) {
        return Ok(true);
    }
    let ours = domains(site)?;
    for name in listed(&["list", "--all", "--name"])? {
        if !ours.contains(&name) && virsh(&["dumpxml", &name]).ended()?.stdout.contains(MARK) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes them, and says which.
pub(super) fn remove() -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for filter in FILTERS {
        if virsh(&["nwfilter-dumpxml", filter]).ended()?.success {
            virsh(&["nwfilter-undefine", filter]).stdout()?;
            removed.push(format!("filter {filter}"));
        }
    }
    if table_exists()? {
        Run::new("nft").arg("delete").args(TABLE).with_root().stdout()?;
        removed.push(TABLE.join(" "));
    }
    Ok(removed)
}

/// Which of them exist, without asking libvirt.
pub(super) fn left() -> Result<Vec<String>> {
    let defined = |filter: &str| Path::new("/etc/libvirt/nwfilter").join(format!("{filter}.xml")).exists();
    let mut left: Vec<String> = FILTERS.iter().filter(|f| defined(f)).map(|f| format!("filter {f}")).collect();
    if table_exists()? {
        left.push(format!("firewall {}", TABLE.join(" ")));
    }
    Ok(left)
}

fn table_exists() -> Result<bool> {
    Ok(have("nft") && Run::new("nft").arg("list").args(TABLE).with_root().ended()?.success)
}
