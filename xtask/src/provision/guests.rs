//! A tenant and its VMs, one on each host; whether the very same one still runs there is asked of the host's kernel.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::croft::Croft;
use super::machine::Machine;
use super::playbook::IMAGES;
use crate::guest_image::sha256;

const TENANT: &str = "acme";
/// The guest's word that it is up (tests/lab/guest/init).
const READY: &str = "lab-guest: ready";
/// A guest of an emulated machine says something within half a minute, or nothing at all.
const SILENCE: Duration = Duration::from_secs(100);
const TRIES: usize = 3;

/// The VM of the tenant's on this host.
pub(super) fn name(host: &Machine) -> String {
    format!("vm-{}", host.place.name)
}

/// A tenant with quota, and an image whose files lie on each host.
pub(super) fn make_tenant(croft: &Croft, hosts: &[Machine], lab: &std::path::Path) -> Result<()> {
    let files = ["vmlinuz", "initrd"].map(|name| lab.join("guest").join(name));
    for host in hosts {
        host.sh(&format!("mkdir -p {IMAGES}"))?;
        host.copy(&files, IMAGES)?;
    }
    croft.text(&["tenant", "create", TENANT, "--display-name", "Acme"])?;
    croft.text(&["quota", "set", "--tenant", TENANT, "vcpus=4", "memory_mib=2GiB", "disk_gib=10", "instances=4"])?;
    let [kernel, initrd] = [sha256(&files[0])?, sha256(&files[1])?];
    let uri = |name: &str| format!("file://{IMAGES}/{name}");
    let image = ["image", "create", "tiny", "--platform", "--cmdline", "console=ttyS0 quiet"];
    let of_kernel = ["--kernel-uri", &uri("vmlinuz"), "--kernel-sha256", &kernel];
    let of_initrd = ["--initrd-uri", &uri("initrd"), "--initrd-sha256", &initrd];
    croft.text(&[&image[..], &of_kernel, &of_initrd].concat()).map(drop)
}

/// Creates it on this host by the API, and waits for its own word.
pub(super) fn create(croft: &Croft, host: &Machine) -> Result<()> {
    let (name, selector) = (name(host), format!("machine={}", host.place.name));
    let shape = ["--image", "tiny", "--vcpus", "1", "--memory", "192MiB", "--disk", "1GiB", "--stop-timeout", "60s"];
    let create = ["-t", TENANT, "instance", "create", &name, "--host-selector", &selector, "--wait"];
    croft.text(&[&create[..], &shape].concat())?;
    speaks(croft, host)
}

/// Until the guest has said that it is up. One that says nothing at all is reset: an emulated machine within an emulated machine
/// does not always come up, and what it then says is no matter of luck.
pub(super) fn speaks(croft: &Croft, host: &Machine) -> Result<()> {
    let name = name(host);
    let mut said = String::new();
    for _ in 0..TRIES {
        let began = Instant::now();
        while began.elapsed() < SILENCE || !said.is_empty() && began.elapsed() < 3 * SILENCE {
            said = croft.ended(&["-t", TENANT, "instance", "console", &name, "--log"])?.stdout;
            if said.contains(READY) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        println!("        {name} said nothing; it is reset");
        croft.text(&["-t", TENANT, "instance", "reset", &name])?;
    }
    bail!("{name} did not come up in {TRIES} tries; its console:\n{said}")
}

/// What tells one run of a guest from every other: the emulator's process and when it was started.
pub(super) fn process(host: &Machine) -> Result<String> {
    let processes = host.sh("for file in /run/libvirt/qemu/*.pid; do
             case $file in */driver.pid | *'*'*) continue ;; esac
             pid=$(cat \"$file\"); echo \"$pid since $(cut -d' ' -f22 /proc/$pid/stat)\"
         done")?;
    ensure!(processes.lines().count() == 1, "{} runs not one guest but: {processes:?}", host.place.name);
    Ok(processes)
}

pub(super) fn is_running(croft: &Croft, host: &Machine) -> Result<()> {
    let name = name(host);
    let instance = croft.json(&["-t", TENANT, "instance", "get", &name])?;
    let state = instance["status"]["state"].as_str().unwrap_or_default();
    ensure!(state == "RUNNING", "{name} is {state}: {}", instance["status"]);
    Ok(())
}

pub(super) fn delete(croft: &Croft, host: &Machine) -> Result<()> {
    croft.text(&["-t", TENANT, "instance", "delete", &name(host), "--wait"]).map(drop)
}
