//! `--down`: the way back, through the API as long as it answers, and proof that nothing is left.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;

use super::croft::{Croft, items, text};
use super::guest::{self, remember_networks};
use super::hypervisor::{self, virsh};
use super::site::Site;
use super::steps::{Done, Steps, said};
use super::{leftovers, plane, shared};
use crate::run::{Run, have};
use crate::workspace::cache;

/// Whether other installations of Croft live on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    /// There was nothing to take down, so it was not asked.
    Unknown,
    None,
    Some,
}

/// How a person takes this site down.
pub(super) fn command_line(site: &Site) -> String {
    let dir = site.dir();
    let usual = Path::new("/var/lib/croft-quickstart");
    if dir == usual {
        "cargo xtask quickstart --down".to_owned()
    } else {
        format!("cargo xtask quickstart --down --dir {}", dir.display())
    }
}

pub(super) fn run(site: &Site) -> Result<()> {
    let steps = Steps::new();
    let mut keys = Vec::new();
    let mut packages = Vec::new();
    let mut others = Others::Unknown;
    if site.is_ours() {
        steps.step("libvirt", || hypervisor::ensure(site))?;
        steps.step("instances", || delete_instances(site))?;
        steps.step("daemons", || stop_daemons(site))?;
        keys = guest::networks(site)?;
        others = steps.step("remains", || clear_remains(site, &mut keys))?;
        packages = site.fact("packages")?.and_then(|p| p.as_array().cloned()).unwrap_or_default();
        let logs = leftovers::logs(site)?;
        steps.step("hypervisor", || hypervisor::stop(site))?;
        steps.step("files", || remove_files(site, &logs))?;
    } else if site.exists() {
        bail!("{} has no user/facts.json: it is not a quickstart's, and is left alone", site.dir().display());
    } else {
        println!("nothing at {}", site.dir().display());
    }
    verify(site, &keys, others)?;
    leave(&packages, others)
}

/// Through the API, as a tenant would; a plane or an agent that died is started once more for it.
fn delete_instances(site: &Site) -> Result<Done> {
    let answer = revive(site).and_then(|()| delete_through_api(site));
    match answer {
        Ok(done) => Ok(done),
        Err(error) => said(format!("the API did not do it, going to libvirt instead: {error:#}")),
    }
}

fn revive(site: &Site) -> Result<()> {
    plane::start_plane(site)?;
    plane::start_agent(site).map(drop)
}

fn delete_through_api(site: &Site) -> Result<Done> {
    let croft = Croft::of(site);
    let tenants = items(&croft.json(&["tenant", "list"])?, "tenants");
    remember_networks(site, &tenants)?;
    let instances = items(&croft.json(&["instance", "list", "-A"])?, "instances");
    for instance in &instances {
        // Its disk goes too: there is nothing that a graceful stop would save.
        croft.text(&["instance", "delete", text(instance, "/name"), "--force", "--wait", "--timeout", "5m"])?;
    }
    for tenant in &tenants {
        let name = text(tenant, "/name");
        let quotas = items(&croft.json(&["quota", "list", "--tenant", name])?, "quotas");
        if let Some(charged) = quotas.iter().find(|q| used(q) != 0) {
            bail!("{} still charges {}", text(charged, "/name"), used(charged));
        }
    }
    said(format!("{} deleted through the API, every charge given back", instances.len()))
}

/// Proto JSON writes 64-bit numbers as texts, and zeroes not at all.
fn used(quota: &Value) -> i64 {
    quota["used"].as_i64().or_else(|| quota["used"].as_str()?.parse().ok()).unwrap_or(0)
}

fn stop_daemons(site: &Site) -> Result<Done> {
    let mut stopped = Vec::new();
    for daemon in [plane::agent(site), plane::plane(site)] {
        if daemon.stop(Duration::from_secs(20))? {
            stopped.push(daemon.name);
        }
    }
    said(if stopped.is_empty() { "none ran".to_owned() } else { format!("ended {}", stopped.join(", ")) })
}

/// What the API did not take away, or could not. Adds the networks of those domains to `keys`, and gives whether this was
/// the only Croft on the machine.
fn clear_remains(site: &Site, keys: &mut Vec<String>) -> Result<Done<Others>> {
    let mut cleared = Vec::new();
    for domain in leftovers::domains(site)? {
        for key in leftovers::networks_of(&domain)? {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        virsh(&["destroy", &domain]).ended()?; // it may be off
        virsh(&["undefine", "--nvram", "--managed-save", "--snapshots-metadata", &domain]).stdout()?;
        cleared.push(format!("domain {domain}"));
    }
    for network in leftovers::networks(keys)? {
        virsh(&["net-destroy", &network]).ended()?; // it may be inactive
        virsh(&["net-undefine", &network]).stdout()?;
        cleared.push(format!("network {network}"));
    }
    let others = if shared::needed_by_others(site)? { Others::Some } else { Others::None };
    if others == Others::None {
        cleared.extend(shared::remove()?);
    }
    let said =
        if cleared.is_empty() { "none in libvirt".to_owned() } else { format!("removed {}", cleared.join(", ")) };
    Ok(Done { value: others, said })
}

fn remove_files(site: &Site, logs: &[std::path::PathBuf]) -> Result<Done> {
    if !logs.is_empty() {
        Run::new("rm").args(["-f", "--"]).args(logs).with_root().stdout()?;
    }
    site.remove()?;
    said(format!("removed {} and {} logs of libvirt", site.dir().display(), logs.len()))
}

fn verify(site: &Site, keys: &[String], others: Others) -> Result<()> {
    let mut left = leftovers::on_machine(site, keys)?;
    if others == Others::None {
        left.extend(shared::left()?);
    }
    // When libvirtd was ended, its domains were looked at (and removed) just before.
    let answers = have("virsh") && virsh(&["version"]).ended()?.success;
    if answers {
        left.extend(leftovers::domains(site)?.into_iter().map(|d| format!("domain {d}")));
        left.extend(leftovers::networks(keys)?.into_iter().map(|n| format!("network {n}")));
    }
    if !left.is_empty() {
        bail!("these are left:\n  {}", left.join("\n  "));
    }
    println!("verified: no domain, network, bridge, firewall rule, process, disk or file of this quickstart is left");
    Ok(())
}

fn leave(packages: &[Value], others: Others) -> Result<()> {
    println!("left on purpose:");
    if others == Others::Some {
        println!("  {}: another Croft on this machine uses them", shared::left()?.join(", "));
    }
    if leftovers::libvirt_chains()? {
        println!("  libvirt's own firewall chains (LIBVIRT_…), which are empty: libvirt keeps them");
    }
    let names: Vec<&str> = packages.iter().filter_map(Value::as_str).collect();
    if !names.is_empty() {
        println!("  the packages that quickstart installed; to remove them: apt-get purge {}", names.join(" "));
    }
    println!("  {} (images, tools) and cargo's target directory, both safe to delete", cache()?.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn use_is_read_in_every_spelling() {
        assert_eq!(used(&json!({ "used": "3" })), 3);
        assert_eq!(used(&json!({ "used": 4 })), 4);
        assert_eq!(used(&json!({ "limit": "5" })), 0);
    }
}
