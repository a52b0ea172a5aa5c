//! libvirtd: found running, started as a service, or, without systemd, started by ourselves with pid files.
//!
//! Never a second one: only one libvirtd can own the system socket, and two would fight over the same domains.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::daemon::Daemon;
use super::site::Site;
use super::steps::{Done, Waiting, said, wait_for};
use crate::packages::has_systemd;
use crate::run::Run;

pub(super) const URI: &str = "qemu:///system";

/// `virsh` as root: the system socket may belong to a group that we are not in.
pub(super) fn virsh(words: &[&str]) -> Run {
    Run::new("virsh").args(["-q", "-c", URI]).args(words).env("LC_ALL", "C").with_root()
}

fn version() -> Result<Option<String>> {
    let ended = virsh(&["version"]).ended()?;
    let running = ended.stdout.lines().find_map(|l| l.strip_prefix("Using library: ")).unwrap_or("libvirt");
    Ok(ended.success.then(|| running.to_owned()))
}

/// Makes sure that a libvirtd answers.
pub(super) fn ensure(site: &Site) -> Result<Done> {
    if let Some(version) = version()? {
        return said(format!("{version} runs already"));
    }
    let how = if has_systemd() { start_service()? } else { start_daemons(site)? };
    site.remember("libvirtd", json!(how))?;
    let version = wait_for("libvirtd", Duration::from_secs(30), || {
        Ok(version()?.map_or_else(|| Waiting::Still("it does not answer".to_owned()), Waiting::Over))
    })?;
    said(format!("{version} started ({how})"))
}

fn start_service() -> Result<&'static str> {
    // Debian and Ubuntu ship the one daemon; the socket starts it when somebody asks.
    Run::new("systemctl")
        .args(["start", "libvirtd.service"])
        .with_root()
        .stdout()
        .context("see journalctl -u libvirtd")?;
    Ok("service")
}

fn start_daemons(site: &Site) -> Result<&'static str> {
    if let Some(pid) = process_named("libvirtd") {
        bail!(
            "libvirtd runs (pid {pid}) and does not answer at {URI}: end it or repair it, a second one is not started"
        );
    }
    if process_named("virtlogd").is_none() {
        Daemon::of_system(site, "virtlogd").start(&[])?;
    }
    Daemon::of_system(site, "libvirtd").start(&[])?;
    Ok("by quickstart")
}

fn process_named(name: &str) -> Option<u32> {
    processes_named(name).first().map(|(pid, _)| *pid)
}

/// The processes of this name on this machine, with their command lines; those in containers and test namespaces are
/// not meant.
pub(super) fn processes_named(name: &str) -> Vec<(u32, String)> {
    let here = fs::read_link("/proc/self/ns/mnt").ok();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        // One that has ended, and that nobody has waited for, has no command line any more.
        let line = fs::read(entry.path().join("cmdline")).ok().filter(|line| !line.is_empty())?;
        // Unreadable for another user's process: then it counts as here.
        let there = fs::read_link(entry.path().join("ns/mnt")).ok();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        (comm.trim() == name && (there.is_none() || there == here)).then_some((pid, line))
    });
    found.collect()
}

/// Ends what [`ensure`] started, unless somebody else's domains need it by now.
pub(super) fn stop(site: &Site) -> Result<Done> {
    let how = site.fact("libvirtd")?;
    let Some(how) = how.as_ref().and_then(|h| h.as_str()) else {
        return said("left running: it ran before");
    };
    let others = virsh(&["list", "--name"]).ended()?.stdout;
    if let Some(other) = others.lines().find(|l| !l.trim().is_empty()) {
        return said(format!("left running: {other} needs it"));
    }
    if how == "service" {
        let units = ["libvirtd.service", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket"];
        Run::new("systemctl").arg("stop").args(units).with_root().ended()?;
        return said("service stopped");
    }
    for name in ["libvirtd", "virtlogd"] {
        Daemon::of_system(site, name).stop(Duration::from_secs(20))?;
    }
    said("libvirtd and virtlogd ended")
}
