//! The tenant's side: image, tenant, quota, key, instance, and the word of the guest itself that it has booted.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::croft::{Croft, items, text};
use super::plane::{TENANT, agent, as_id, plane};
use super::site::Site;
use super::steps::{Done, Waiting, said, wait_for};
use crate::guest_image::{sha256, sha256_text};
use crate::run::Run;

pub(super) const INSTANCE: &str = "vm-1";
const QUOTA: [&str; 4] = ["vcpus=4", "memory_mib=8GiB", "disk_gib=20", "instances=2"];
/// What only the guest's own cloud-init can have written to its console.
const BOOTED: &str = "croft-quickstart: the guest finished booting";

/// A disk image and what to call it.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: PathBuf,
    pub(super) label: String,
}

impl Source {
    pub(super) fn given(file: PathBuf) -> Source {
        let label = file.file_stem().and_then(|s| s.to_str()).and_then(as_id).unwrap_or_else(|| "image".to_owned());
        Source { file, label }
    }
}

/// Puts the image where the agent may read it and registers it for every tenant. Gives its name.
pub(super) fn register_image(site: &Site, Source { file, label }: &Source) -> Result<Done<String>> {
    let digest = sha256(file)?;
    // The bytes are part of the name, since an image's bytes never change.
    let name = format!("{label}-{}", &digest[..8]);
    let copy = site.images().join(format!("{name}.qcow2"));
    if !copy.is_file() {
        let part = site.images().join(format!("{name}.part"));
        Run::new("cp").args(["--reflink=auto", "--"]).arg(file).arg(&part).with_root().stdout()?;
        Run::new("chmod").arg("0644").arg(&part).with_root().stdout()?;
        Run::new("mv").arg("--").arg(&part).arg(&copy).with_root().stdout()?;
    }
    let croft = Croft::of(site);
    if croft.find(&["image", "get", &format!("images/{name}")])?.is_none() {
        let uri = format!("file://{}", copy.display());
        let size = virtual_size_gib(file)?.to_string();
        let disk = ["--uri", &uri, "--sha256", &digest, "--format", "qcow2", "--min-disk-gib", &size];
        croft.text(&[&["image", "create", &name, "--platform"], &disk[..]].concat())?;
    }
    Ok(Done { said: format!("images/{name}, sha256 {}…", &digest[..12]), value: name })
}

fn virtual_size_gib(file: &Path) -> Result<u64> {
    let info = Run::new("qemu-img").args(["info", "-f", "qcow2", "--output", "json"]).arg(file).stdout()?;
    let info: Value = serde_json::from_str(&info).context("qemu-img info printed no JSON")?;
    let bytes = info["virtual-size"].as_u64().context("qemu-img info tells no virtual size")?;
    Ok(bytes.div_ceil(1 << 30))
}

pub(super) fn make_tenant(site: &Site) -> Result<Done> {
    let croft = Croft::of(site);
    let known = croft.find(&["tenant", "get", TENANT])?;
    let tenant = match known {
        Some(tenant) => tenant,
        None => croft.json(&["tenant", "create", TENANT, "--display-name", "Quickstart"])?,
    };
    croft.text(&[&["quota", "set", "--tenant", TENANT], &QUOTA[..]].concat())?;
    remember_networks(site, &[tenant])?;
    said(format!("{TENANT}, limits {}", QUOTA.join(" ")))
}

/// The names of the tenants' own networks, so that `--down` can look for them even when the plane is gone.
pub(super) fn remember_networks(site: &Site, tenants: &[Value]) -> Result<()> {
    let mut networks = networks(site)?;
    for tenant in tenants {
        let digest = sha256_text(text(tenant, "/metadata/uid"))?;
        let key = digest[..8].to_owned();
        if !networks.contains(&key) {
            networks.push(key);
        }
    }
    site.remember("networks", json!(networks))
}

/// The eight hex digits by which `croft-…` networks and `cr-…` bridges of this site are called.
pub(super) fn networks(site: &Site) -> Result<Vec<String>> {
    let known = site.fact("networks")?.unwrap_or_default();
    Ok(known.as_array().into_iter().flatten().filter_map(|n| n.as_str().map(str::to_owned)).collect())
}

pub(super) fn create_instance(site: &Site, image: &str) -> Result<Done> {
    let croft = Croft::of(site);
    if let Some(known) = croft.find(&["instance", "get", INSTANCE])? {
        return match text(&known, "/status/state") {
            "FAILED" => bail!("{INSTANCE} is FAILED: {}", text(&known, "/status/message")),
            "STOPPED" => {
                croft.text(&["instance", "start", INSTANCE, "--wait"])?;
                said(format!("{INSTANCE} was there, started"))
            }
            state => said(format!("{INSTANCE} is there: {state}")),
        };
    }
    let key = site.user("id_ed25519");
    if !key.exists() {
        let keygen = ["-q", "-t", "ed25519", "-N", "", "-C", "croft-quickstart", "-f"];
        Run::new("ssh-keygen").args(keygen).arg(&key).stdout()?;
    }
    let user_data = site.user("user-data.yaml");
    let text = format!("#cloud-config\nfinal_message: \"{BOOTED}, $UPTIME s after power on\"\n");
    fs::write(&user_data, text).with_context(|| format!("cannot write {}", user_data.display()))?;
    let (public, user_data) = (format!("{}.pub", key.display()), user_data.display().to_string());
    let vcpus = vcpus().to_string();
    let shape =
        ["--vcpus", &vcpus, "--memory", memory(), "--disk", "6GiB", "--ssh-key", &public, "--user-data", &user_data];
    let create = ["instance", "create", INSTANCE, "--image", image];
    let log = site.log("instance-create");
    croft.run(&[&create[..], &shape, &["--wait"]].concat()).logged(&log)?;
    said(format!("{INSTANCE}: {vcpus} vCPU, {}, 6 GiB disk, RUNNING", memory()))
}

/// Two, where that leaves room for another instance.
fn vcpus() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().saturating_sub(1).clamp(1, 2))
}

/// Debian boots in either; a small machine keeps more for itself.
fn memory() -> &'static str {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available =
        text.lines().find_map(|l| l.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse().ok());
    if available.unwrap_or(0_u64) > 5 * 1024 * 1024 { "2GiB" } else { "1GiB" }
}

/// Until the guest's own words are on its console.
pub(super) fn wait_until_booted(site: &Site) -> Result<Done> {
    let croft = Croft::of(site);
    let line = wait_for("the guest to finish booting", Duration::from_secs(900), || {
        plane(site).check()?;
        agent(site).check()?;
        let instance = croft.json(&["instance", "get", INSTANCE])?;
        if let state @ ("FAILED" | "STOPPED") = text(&instance, "/status/state") {
            let (reason, message) = (text(&instance, "/status/reason"), text(&instance, "/status/message"));
            bail!("{INSTANCE} is {state}: {reason} {message}");
        }
        let log = croft.run(&["instance", "console", INSTANCE, "--log"]).ended()?;
        Ok(match log.stdout.lines().rev().find(|l| l.contains(BOOTED)) {
            Some(line) => Waiting::Over(line[line.find(BOOTED).unwrap_or(0)..].trim().to_owned()),
            None if log.success => Waiting::Still(last_words(&log.stdout)),
            None => Waiting::Still(log.stderr.trim().to_owned()),
        })
    })?;
    said(format!("its console says \"{line}\""))
}

/// Until the plane says `GuestReady`, by way of the guest agent; gives the addresses.
pub(super) fn wait_until_ready(site: &Site) -> Result<Done> {
    let addresses = wait_for("condition GuestReady", Duration::from_secs(120), || {
        let instance = Croft::of(site).json(&["instance", "get", INSTANCE])?;
        let conditions = items(&instance["status"], "conditions");
        let ready = conditions.iter().find(|c| text(c, "/type") == "GuestReady");
        Ok(match ready {
            Some(condition) if text(condition, "/status") == "TRUE" => Waiting::Over(addresses(&instance)),
            Some(condition) => {
                Waiting::Still(format!("{}: {}", text(condition, "/reason"), text(condition, "/message")))
            }
            None => Waiting::Still("not reported yet".to_owned()),
        })
    })?;
    said(format!("GuestReady; addresses {addresses}"))
}

fn addresses(instance: &Value) -> String {
    let all = items(&instance["status"], "addresses");
    all.iter().map(|a| text(a, "/ip")).collect::<Vec<_>>().join(" ")
}

fn last_words(console: &str) -> String {
    console.lines().rev().map(str::trim).find(|l| !l.is_empty()).unwrap_or("nothing on the console yet").to_owned()
}

/// Logs in as a person would, through the plane, and lets the guest say who it is.
pub(super) fn log_in(site: &Site) -> Result<Done> {
    let key = site.user("id_ed25519").display().to_string();
    let words = ["instance", "ssh", INSTANCE, "--identity", &key, "--", "hostname && uname -sr"];
    let answer = Croft::of(site).text(&words)?;
    said(format!("the guest answers: {}", answer.lines().collect::<Vec<_>>().join(", ")))
}
