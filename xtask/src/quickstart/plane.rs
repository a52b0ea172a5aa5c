//! The two daemons: the control plane, and the agent that makes this machine its first host.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::croft::{Croft, text};
use super::daemon::Daemon;
use super::hypervisor;
use super::site::Site;
use super::steps::{Done, Waiting, said, wait_for};
use crate::run::{Run, user_id};

pub(super) const TENANT: &str = "demo";

/// Where the daemons listen; chosen once and kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) api: u16,
    pub(super) plane_metrics: u16,
    pub(super) agent_metrics: u16,
}

impl Ports {
    /// The usual ports, or free ones where somebody else listens.
    pub(super) fn of(site: &Site) -> Result<Ports> {
        let known = site.fact("ports")?;
        let known = |name: &str| known.as_ref().and_then(|p| p[name].as_u64()).and_then(|p| u16::try_from(p).ok());
        if let (Some(api), Some(plane_metrics), Some(agent_metrics)) = (known("api"), known("plane"), known("agent")) {
            return Ok(Ports { api, plane_metrics, agent_metrics });
        }
        let ports = Ports { api: free(7443)?, plane_metrics: free(9643)?, agent_metrics: free(9644)? };
        site.remember(
            "ports",
            json!({ "api": ports.api, "plane": ports.plane_metrics, "agent": ports.agent_metrics }),
        )?;
        Ok(ports)
    }
}

fn free(usual: u16) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", usual)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)));
    Ok(listener.and_then(|l| l.local_addr()).context("no TCP port is free on 127.0.0.1")?.port())
}

pub(super) fn plane(site: &Site) -> Daemon {
    Daemon::of(site, "croft-controlplane")
}

pub(super) fn agent(site: &Site) -> Daemon {
    Daemon::of(site, "croft-hostagent")
}

/// The control plane, and a CLI context for it.
pub(super) fn start_plane(site: &Site) -> Result<Done> {
    let ports = Ports::of(site)?;
    let plane = plane(site);
    let ran = plane.pid().is_some();
    let address = format!("127.0.0.1:{}", ports.api);
    let metrics = format!("127.0.0.1:{}", ports.plane_metrics);
    let data_dir = site.plane().display().to_string();
    plane.start(&["serve", "--data-dir", &data_dir, "--listen", &address, "--metrics-listen", &metrics])?;
    let croft = Croft::of(site);
    wait_for("the control plane", Duration::from_secs(60), || {
        plane.check()?;
        // Written before it listens for the first time.
        let made = Run::new("test").arg("-s").arg(site.plane().join("admin.token")).with_root().ended()?.success;
        if !made {
            return Ok(Waiting::Still("it makes its certificates".to_owned()));
        }
        set_context(site, &address)?;
        let answer = croft.run(&["tenant", "list"]).ended()?;
        Ok(if answer.success { Waiting::Over(()) } else { Waiting::Still(answer.stderr.trim().to_owned()) })
    })?;
    let pid = plane.pid().unwrap_or_default();
    said(format!("{} on {address}, metrics on {metrics}, pid {pid}", if ran { "runs already" } else { "started" }))
}

/// The caller's own copy of the admin's token and of the CA, and a CLI context that names them.
fn set_context(site: &Site, address: &str) -> Result<()> {
    for (file, mode) in [("admin.token", "0600"), ("ca.pem", "0644")] {
        let owner = user_id().to_string();
        let copy = Run::new("install").args(["-m", mode, "-o", &owner, "--"]).arg(site.plane().join(file));
        copy.arg(site.user(file)).with_root().stdout()?;
    }
    let (ca, token) = (site.user("ca.pem").display().to_string(), site.user("admin.token").display().to_string());
    let context = ["context", "set", "quickstart", "--server", address, "--ca-file", &ca, "--token-file", &token];
    Croft::of(site).text(&[&context[..], &["--tenant", TENANT]].concat()).map(drop)
}

/// The agent: enrolled once, with a one-time token, then started; over when the plane calls its host READY.
pub(super) fn start_agent(site: &Site) -> Result<Done> {
    let ports = Ports::of(site)?;
    let agent = agent(site);
    let server = format!("127.0.0.1:{}", ports.api);
    let state_dir = site.agent().display().to_string();
    let host = host_id(site)?;
    let enrolled = Run::new("test").arg("-s").arg(site.agent().join("agent.pem")).with_root().ended()?.success;
    if !enrolled {
        let token = Croft::of(site).text(&["host", "enrol-token", &host, "-o", "name"])?;
        let ca = site.user("ca.pem").display().to_string();
        let enrol = ["enrol", "--server", &server, "--ca-file", &ca, "--host-id", &host, "--state-dir", &state_dir];
        // By the environment: every user of the machine can read a program's arguments.
        let run = Run::new(&agent.program).args(enrol).without_settings().env("CROFT_ENROLMENT_TOKEN", token);
        run.with_root().stdout()?;
    }
    let metrics = format!("127.0.0.1:{}", ports.agent_metrics);
    let images = site.images().display().to_string();
    let mut arguments = vec!["run", "--server", &server, "--state-dir", &state_dir, "--image-dir", &images];
    arguments.extend(["--libvirt-uri", hypervisor::URI, "--metrics-listen", &metrics]);
    agent.start(&arguments)?;
    let seen = wait_for("the host to be READY", Duration::from_secs(120), || {
        agent.check()?;
        let seen = Croft::of(site).find(&["host", "get", &host])?.unwrap_or_default();
        Ok(match text(&seen, "/state") {
            "READY" => Waiting::Over(seen),
            other => Waiting::Still(format!("host {host} is {other}")),
        })
    })?;
    let (hypervisor, kind) = (text(&seen, "/info/hypervisor"), text(&seen, "/info/domainType"));
    let how = if enrolled { "is READY" } else { "enrolled with a one-time token, READY" };
    said(format!("host {host} {how}: {hypervisor}, domain type {kind}, pid {}", agent.pid().unwrap_or_default()))
}

/// The machine's name, as far as it can be a host's.
pub(super) fn host_id(site: &Site) -> Result<String> {
    if let Some(id) = site.fact("host")?.as_ref().and_then(|h| h.as_str()) {
        return Ok(id.to_owned());
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let id = as_id(&name).unwrap_or_else(|| "host-1".to_owned());
    site.remember("host", json!(id))?;
    Ok(id)
}

/// What is left of a name when only a-z, 0-9 and - may be in it.
pub(super) fn as_id(name: &str) -> Option<String> {
    let first = name.trim().split('.').next().unwrap_or_default().to_lowercase();
    let id: String =
        first.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).take(40).collect();
    let id = id.trim_matches('-');
    (id.starts_with(|c: char| c.is_ascii_lowercase()) && id != "localhost").then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_become_ids() {
        assert_eq!(as_id("Gpu_07.rack.example\n").as_deref(), Some("gpu-07"));
        assert_eq!(as_id("localhost"), None);
        assert_eq!(as_id("(none)").as_deref(), Some("none"));
        assert_eq!(as_id("7"), None);
        assert_eq!(as_id(""), None);
    }
}
