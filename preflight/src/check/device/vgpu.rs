//! How the driver makes vGPUs: mediated devices, or vendor VFIO.

use std::collections::BTreeSet;

use croft_gpu::Flavour;
use croft_gpu::host::VgpuFunction;

use super::super::{Check, Found, count};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "vgpu",
    looks_at: "mdev_supported_types and nvidia/current_vgpu_type on each function",
    why: "which of the two it is depends on kernel and board; Croft speaks both, and sees neither before virtual functions are there",
    worst: Level::Info,
    role: Some("gpu"),
    look,
};

fn look(facts: &Facts) -> Found {
    let kinds: BTreeSet<_> = facts
        .devices
        .vgpus
        .values()
        .map(|function| match function {
            VgpuFunction::Mdev { .. } => "mediated devices",
            VgpuFunction::Vendor { .. } => "vendor VFIO (current_vgpu_type)",
        })
        .collect();
    let flavour = croft_gpu::flavour(&facts.fs, Some(&facts.devices.pci.devices))?;
    if facts.gpus().next().is_none() && kinds.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![if !kinds.is_empty() {
        let kinds: Vec<_> = kinds.into_iter().collect();
        Finding::ok("host", format!("{} on {}", kinds.join(" and "), count(facts.devices.vgpus.len(), "function")))
    } else if flavour == Some(Flavour::Vgpu) {
        Finding::info(
            "host",
            "vGPU host driver, no function with vGPUs yet",
            "nothing: they are made when a vGPU is asked for",
        )
    } else {
        Finding::info(
            "host",
            "no vGPU host driver",
            "if vGPUs or slices shall be offered: flavour vgpu (needs NVIDIA's licence)",
        )
        .by("gpu")
    }])
}
