//! What is plugged in, and what of it can be given.

pub(super) mod bar;
pub(super) mod busy;
pub(super) mod fabric;
pub(super) mod flavour;
pub(super) mod mig;
pub(super) mod numa;
pub(super) mod sriov;
pub(super) mod usb;
pub(super) mod vgpu;

use croft_gpu::model;
use croft_gpu::pci::PciFunction;

/// `h100_sxm_80gb`, else its name, else its id.
fn what(function: &PciFunction) -> String {
    let word = model::lookup(function.vendor, function.device).map(|model| model.word.to_owned());
    word.or_else(|| function.device_name.clone()).unwrap_or_else(|| function.id())
}

/// `2 × h100_sxm_80gb, 1 × l4_24gb`
fn counted(items: impl Iterator<Item = String>) -> String {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    counts.iter().map(|(item, number)| format!("{number} × {item}")).collect::<Vec<_>>().join(", ")
}
