//! Whose GPU driver is in place.

use croft_gpu::{Flavour, FsError};

use super::super::{Check, Found};
use super::counted;
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "driver-flavour",
    looks_at: "which driver holds each GPU, NVIDIA's module and its libraries, nouveau",
    why: "a host has one flavour: none (whole GPUs only), datacenter (and NVML on the host), vgpu (and slices)",
    worst: Level::Fail,
    role: Some("gpu"),
    look,
};

fn look(facts: &Facts) -> Found {
    let gpus: Vec<_> = facts.gpus().collect();
    let nouveau = facts.has_module("nouveau")?;
    if gpus.is_empty() && !facts.has_module("nvidia")? {
        return Ok(vec![Finding::info("host", "no GPU on this host", "nothing, if none is meant to be")]);
    }
    let mut findings = Vec::new();
    let flavour = croft_gpu::flavour(&facts.fs, Some(&facts.devices.pci.devices))?;
    let version = facts.attribute("/sys/module/nvidia/version")?;
    let drivers = counted(gpus.iter().map(|gpu| match gpu.driver.as_deref() {
        Some(driver) => format!("{} on {driver}", super::what(gpu)),
        None => format!("{} without a driver", super::what(gpu)),
    }));
    findings.push(match flavour {
        Some(Flavour::None) if nouveau => {
            let fix = "blacklist nouveau, rebuild the initramfs and reboot";
            let reason = "nouveau takes GPUs at boot, runs none of the programs people bring, and is in the way of NVIDIA's driver";
            Finding::fail("host", format!("nouveau is loaded; {drivers}"), fix).because(reason).by("gpu")
        }
        Some(flavour) => {
            let version = version.as_deref().map(|version| format!(" {version}")).unwrap_or_default();
            Finding::ok("host", format!("{}{version}; {drivers}", flavour.word()))
        }
        None => Finding::warn(
            "host",
            "NVIDIA's module is loaded, and tools of the vGPU host driver are there without its module",
            "remove one of the two drivers, then install the one that the host shall have",
        ),
    });
    findings.extend(mismatch(facts, version.as_deref())?);
    Ok(findings)
}

/// An upgrade of the packages under a running driver: NVML refuses every call until the module is the new one, too.
fn mismatch(facts: &Facts, loaded: Option<&str>) -> Result<Option<Finding>, FsError> {
    let Some(loaded) = loaded else { return Ok(None) };
    for directory in ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"] {
        for name in facts.names(directory)? {
            let Some(version) = name.strip_prefix("libnvidia-ml.so.").filter(|version| version.contains('.')) else {
                continue;
            };
            if version != loaded {
                let found = format!("module {loaded} is loaded, and the library in {directory} is {version}");
                let reason = "NVML refuses every call while the two differ, so the agent sees no GPU";
                return Ok(Some(Finding::fail("host", found, "reboot, or reload NVIDIA's modules").because(reason)));
            }
        }
    }
    Ok(None)
}
