//! Mediated devices: vGPUs of older drivers and kernels, and whatever else makes them.
//!
//! A device is known by a UUID that its maker chose, here the one who asks, so that making it twice is seen. What a parent
//! can still make is its driver's word: on NVIDIA's virtual functions one device takes all types away.

use crate::host::{Mdev, MdevType, VgpuFunction};
use crate::pci::{PciAddress, Sriov};

use super::look::Look;
use super::refusal::{Reason, Refusal};
use super::step::Step;
use super::{MigPiece, mig, vgpu};

pub(super) fn plan(
    look: Look<'_>,
    parent: &str,
    type_name: &str,
    uuid: &str,
    piece: Option<&MigPiece>,
) -> Result<Vec<Step>, Refusal> {
    if !is_uuid(uuid) {
        let message = format!("`{uuid}` is no UUID");
        return Err(Refusal::new(
            Reason::MdevUuidInvalid,
            parent,
            message,
            "write 36 characters in lower case, with dashes",
        ));
    }
    // A parent that is no PCI function has no driver, no neighbours and no GPU to be looked at.
    let function = address(parent).map(|address| look.function(address)).transpose()?;
    look.not_anothers(uuid)?;
    look.not_anothers(parent)?;
    let Some(types) = types(look, parent) else {
        let message = format!("the driver of {parent} makes no mediated devices");
        let fix = "name a device whose driver does, or wish for a vGPU of the vendor's own kind";
        return Err(Refusal::new(Reason::VgpuFrameworkMissing, parent, message, fix));
    };
    let Some(kind) = types.iter().find(|kind| names(kind, type_name)) else {
        let known: Vec<_> = types.iter().map(|kind| kind.name.as_ref().unwrap_or(&kind.id).as_str()).collect();
        let message = format!("{parent} knows no mdev type {type_name}");
        let fix = format!("it may be {}", known.join(", "));
        return Err(Refusal::new(Reason::UnknownVgpuType, parent, message, fix));
    };
    if let Some(there) = look.mdev(uuid)? {
        if there.parent == parent && there.type_id == kind.id {
            return if look.owner(uuid).is_some() { Ok(Vec::new()) } else { look.not_held(uuid).map(|()| Vec::new()) };
        }
        let message = format!("mediated device {uuid} is a {} on {} already", there.type_id, there.parent);
        return Err(Refusal::new(Reason::MdevUuidTaken, parent, message, "choose another UUID"));
    }
    let steps = match (piece, function) {
        (Some(_), None) => {
            let message = format!("{parent} is no GPU that could have a GPU instance");
            return Err(Refusal::new(Reason::NotMigCapable, parent, message, "wish without one"));
        }
        (Some(piece), Some(function)) => {
            let (physical, gpu) = vgpu::gpu_of(look, function)?;
            look.healthy(gpu)?;
            mig::ensure(look, physical, gpu, piece, mig::mdev_type_name(kind))?
        }
        (None, None) => Vec::new(),
        (None, Some(function)) => {
            let physical =
                if let Sriov::Virtual { physical } = function.sriov { look.function(physical)? } else { function };
            look.gpu(physical)?.map_or(Ok(()), |gpu| look.healthy(gpu))?;
            Vec::new()
        }
    };
    // What is available is that of the instances there are now: it says nothing of one that is still to be made.
    if steps.is_empty() && kind.available == 0 {
        return Err(none_left(&look.mdevs_on(parent)?, parent, kind));
    }
    let create = Step::CreateMdev { parent: parent.to_owned(), type_id: kind.id.clone(), uuid: uuid.to_owned() };
    Ok(steps.into_iter().chain([create]).collect())
}

pub(super) fn plan_none(
    look: Look<'_>,
    parent: &str,
    uuid: &str,
    piece: Option<&MigPiece>,
) -> Result<Vec<Step>, Refusal> {
    let function = match address(parent).map(|address| (address, look.function(address))) {
        Some((address, Err(refusal))) if refusal == Refusal::not_seen(address) => return Ok(Vec::new()),
        Some((address, function)) => Some((address, function?)),
        None => None,
    };
    let there = look.mdev(uuid)?;
    let removed = there.map(|mdev| Step::RemoveMdev {
        parent: mdev.parent.clone(),
        type_id: mdev.type_id.clone(),
        uuid: uuid.to_owned(),
    });
    let released = match (piece, function) {
        (Some(piece), Some((address, function))) => {
            let (physical, gpu) = vgpu::gpu_of(look, function)?;
            mig::release(look, physical, gpu, piece, address)?
        }
        _ => Vec::new(),
    };
    if removed.is_some() || !released.is_empty() {
        look.his_own(uuid)?;
        look.not_held(uuid)?;
    }
    Ok(removed.into_iter().chain(released).collect())
}

fn address(parent: &str) -> Option<PciAddress> {
    parent.parse().ok()
}

fn types<'a>(look: Look<'a>, parent: &str) -> Option<&'a [MdevType]> {
    match address(parent) {
        Some(address) => match look.host.vgpus.get(&address) {
            Some(VgpuFunction::Mdev { types }) => Some(types),
            Some(VgpuFunction::Vendor { .. }) | None => None,
        },
        None => look.host.mdev_parents.get(parent).map(Vec::as_slice),
    }
}

/// Types have an id (`nvidia-692`), and most a name (`GRID A100D-4C`), which is known with or without its prefix.
fn names(kind: &MdevType, word: &str) -> bool {
    kind.id == word || kind.name.as_deref() == Some(word) || mig::mdev_type_name(kind) == word
}

fn none_left(made: &[&Mdev], parent: &str, kind: &MdevType) -> Refusal {
    let made: Vec<_> = made.iter().map(|mdev| format!("{} ({})", mdev.uuid, mdev.type_id)).collect();
    let beside = if made.is_empty() { "what its device carries".to_owned() } else { made.join(", ") };
    let message = format!("{parent} makes no more {} beside {beside}", kind.name.as_ref().unwrap_or(&kind.id));
    Refusal::new(Reason::VgpuTypeNotCreatable, parent, message, "take another parent")
}

/// As the kernel prints it, so that it is found again.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(n, byte)| match n {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        })
}

#[cfg(test)]
mod tests;
