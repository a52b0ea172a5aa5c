//! Who uses GPUs now?

use croft_gpu::ProbeError;
use croft_gpu::host::Holder;

use super::super::{Check, Found};
use crate::facts::{Facts, User};
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "busy",
    looks_at: "processes that have a GPU's files open, and the kernel's own use of it (console)",
    why: "a GPU that somebody uses is given to nobody; it counts as taken until it is let go",
    worst: Level::Warn,
    role: None,
    look,
};

fn look(facts: &Facts) -> Found {
    let mut findings = Vec::new();
    let gpus: Vec<_> = facts.gpus().collect();
    for gpu in &gpus {
        let holders = facts.holders(gpu.address).iter().filter(|holder| !is_ours(holder));
        let names: Vec<_> = holders
            .map(|holder| match (holder.pid, &holder.unit) {
                (0, _) => format!("the host itself: {}", holder.file),
                (pid, Some(unit)) => format!("{} (pid {pid}, {unit})", holder.command),
                (pid, None) => format!("{} (pid {pid})", holder.command),
            })
            .collect();
        if !names.is_empty() {
            let fix = "stop it, or mark the GPU foreign in the host's layout: docs/devices.md";
            findings.push(Finding::warn(gpu.address, format!("in use by {}", names.join(", ")), fix));
        }
    }
    let blind = facts.devices.errors.iter().find(|error| error.device == "holders");
    match blind {
        Some(error) if !gpus.is_empty() => findings.push(unseen(facts.asked.user, error)),
        None if findings.is_empty() && !gpus.is_empty() => findings.push(Finding::ok("host", "no GPU is in use")),
        _ => {}
    }
    Ok(findings)
}

/// An instance of Croft's; or what keeps the driver awake, and lets go when the agent says so.
fn is_ours(holder: &Holder) -> bool {
    holder.command == "nvidia-persiste" || holder.unit.as_deref().is_some_and(|unit| unit.contains("croft"))
}

fn unseen(user: User, error: &ProbeError) -> Finding {
    match user {
        User::Other => {
            let found = "not seen: other people's processes do not show what they have open";
            Finding::warn("host", found, "run it as root: sudo croft host preflight")
        }
        User::Root => {
            Finding::warn("host", format!("not seen: {}", croft_gpu::chain(error)), "see why that cannot be read")
        }
    }
}
