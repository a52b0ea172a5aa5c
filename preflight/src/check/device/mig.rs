//! Which GPUs can be cut into GPU instances?

use croft_gpu::{Flavour, model};

use super::super::{Check, Found};
use super::counted;
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "mig",
    looks_at: "each GPU's model, by NVIDIA's list of products with MIG",
    why: "slices such as 2g.20gb reach virtual machines as MIG-backed vGPUs, which takes a board with MIG and the flavour vgpu",
    worst: Level::Info,
    role: Some("gpu"),
    look,
};

fn look(facts: &Facts) -> Found {
    let capable = |function: &&croft_gpu::pci::PciFunction| {
        model::lookup(function.vendor, function.device).is_some_and(model::Model::has_mig)
    };
    let boards: Vec<_> = facts.gpus().filter(capable).map(super::what).collect();
    if boards.is_empty() {
        return Ok(Vec::new());
    }
    let found = format!("can be cut: {}", counted(boards.into_iter()));
    let flavour = croft_gpu::flavour(&facts.fs, Some(&facts.devices.pci.devices))?;
    Ok(vec![match flavour {
        Some(Flavour::Vgpu) => Finding::ok("host", found),
        _ => {
            Finding::info("host", found, "if slices shall be offered: flavour vgpu; whole GPUs need nothing").by("gpu")
        }
    }])
}
