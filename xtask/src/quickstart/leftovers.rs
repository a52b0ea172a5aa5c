//! What still exists of a site, looked for everywhere and without asking any Croft program.
//!
//! A domain is ours when it bears Croft's mark **and** its disk lies below the site's directory: another installation on
//! the same machine has the mark as well. Networks are known by the digests that the way up wrote down.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::hypervisor::virsh;
use super::site::Site;
use crate::run::{Run, have};

pub(super) const MARK: &str = "https://croft.dev/libvirt/1";
const QEMU_LOGS: &str = "/var/log/libvirt/qemu";

/// The domains of this site, by name.
pub(super) fn domains(site: &Site) -> Result<Vec<String>> {
    let mut ours = Vec::new();
    for name in listed(&["list", "--all", "--name"])? {
        // One that vanished meanwhile is not left over.
        if is_ours(&virsh(&["dumpxml", &name]).ended()?.stdout, site.dir()) {
            ours.push(name);
        }
    }
    Ok(ours)
}

fn is_ours(xml: &str, dir: &Path) -> bool {
    xml.contains(MARK) && xml.contains(&format!("{}/", dir.display()))
}

/// The libvirt networks of these keys that exist.
pub(super) fn networks(keys: &[String]) -> Result<Vec<String>> {
    let all = listed(&["net-list", "--all", "--name"])?;
    Ok(keys.iter().map(|k| format!("croft-{k}")).filter(|n| all.contains(n)).collect())
}

pub(super) fn listed(words: &[&str]) -> Result<Vec<String>> {
    let ended = virsh(words).ended()?;
    if !ended.success {
        bail!("virsh {}: {}", words.join(" "), ended.stderr.trim());
    }
    Ok(ended.stdout.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect())
}

/// The `croft-…` network keys that a domain is attached to.
pub(super) fn networks_of(domain: &str) -> Result<Vec<String>> {
    let xml = virsh(&["dumpxml", domain]).ended()?.stdout;
    Ok(xml.split("network='croft-").skip(1).filter_map(|rest| Some(rest.split_once('\'')?.0.to_owned())).collect())
}

/// libvirt's logs of this site's domains: they name the disks.
pub(super) fn logs(site: &Site) -> Result<Vec<PathBuf>> {
    if !Path::new(QEMU_LOGS).is_dir() {
        return Ok(Vec::new());
    }
    let dir = format!("{}/", site.dir().display());
    let grep = ["-rlsF", "--include=croft-*", "-e", &dir, QEMU_LOGS];
    let found = Run::new("grep").args(grep).with_root().ended()?.stdout;
    Ok(found.lines().map(PathBuf::from).collect())
}

/// Bridges, firewall rules, processes and files, in words.
pub(super) fn on_machine(site: &Site, keys: &[String]) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for key in keys {
        if Path::new("/sys/class/net").join(format!("cr-{key}")).exists() {
            left.push(format!("bridge cr-{key}"));
        }
    }
    left.extend(firewall(keys)?);
    for (pid, command) in processes(site, keys) {
        left.push(format!("process {pid}: {command}"));
    }
    if site.exists() {
        left.push(format!("directory {}", site.dir().display()));
    }
    left.extend(logs(site)?.iter().map(|l| format!("file {}", l.display())));
    Ok(left)
}

fn firewall(keys: &[String]) -> Result<Vec<String>> {
    let is_ours =
        |line: &&str| keys.iter().any(|k| line.contains(&format!("cr-{k}")) || line.contains(&format!("croft-{k}")));
    Ok(ruleset()?.lines().filter(is_ours).map(|l| format!("firewall rule: {}", l.trim())).collect())
}

/// Whether the chains are there that libvirt makes with its first network, and never removes.
pub(super) fn libvirt_chains() -> Result<bool> {
    Ok(ruleset()?.contains("chain LIBVIRT_"))
}

fn ruleset() -> Result<String> {
    if !have("nft") {
        return Ok(String::new());
    }
    let ended = Run::new("nft").args(["list", "ruleset"]).with_root().ended()?;
    if !ended.success {
        bail!("cannot read the firewall: {}", ended.stderr.trim());
    }
    Ok(ended.stdout)
}

/// Processes whose command line names the site's directory or one of its networks: daemons, QEMU, dnsmasq.
pub(super) fn processes(site: &Site, keys: &[String]) -> Vec<(u32, String)> {
    let dir = format!("{}/", site.dir().display());
    let is_meant = |text: &str| text.contains(&dir) || keys.iter().any(|k| text.contains(&format!("croft-{k}")));
    let ourselves = ancestors(std::process::id());
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut found: Vec<(u32, String)> = entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let bytes = fs::read(entry.path().join("cmdline")).ok()?;
            let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
            (!ourselves.contains(&pid) && is_meant(&text)).then(|| (pid, text.chars().take(120).collect()))
        })
        .collect();
    found.sort();
    found
}

/// A process and those that started it: our own shell may well have the directory in its command line.
fn ancestors(pid: u32) -> Vec<u32> {
    let mut chain = vec![pid];
    let parent = |pid: u32| -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|l| l.strip_prefix("PPid:"))?.trim().parse().ok()
    };
    while let Some(next) = chain.last().copied().and_then(parent).filter(|p| *p > 0) {
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_of_another_installation_is_not_ours() {
        let xml =
            |dir: &str| format!("<domain><croft:x xmlns:croft='{MARK}'/><source file='{dir}/agent/i/disk.qcow2'/>");
        let dir = Path::new("/var/lib/croft-quickstart");
        assert!(is_ours(&xml("/var/lib/croft-quickstart"), dir));
        assert!(!is_ours(&xml("/var/lib/croft-quickstart-2"), dir));
        assert!(!is_ours("<domain><source file='/var/lib/croft-quickstart/agent/disk'/>", dir));
    }

    #[test]
    fn our_own_ancestors_are_not_left_over() {
        let chain = ancestors(std::process::id());
        assert!(chain.len() > 1 && chain[0] == std::process::id(), "{chain:?}");
    }

    #[test]
    fn a_process_that_names_the_site_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let site = Site::at(dir.path()).unwrap();
        let path = format!("{}/x", dir.path().display());
        // Waits for what never comes, and starts nothing that would go on without it.
        let mut waiting = std::process::Command::new("sh");
        let mut child = waiting.args(["-c", "read line", &path]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let began = std::time::Instant::now();
        let mut found = processes(&site, &[]);
        while found.is_empty() && began.elapsed().as_secs() < 5 {
            found = processes(&site, &[]);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found[0].0, child.id());
    }
}
