//! vGPUs of NVIDIA's newer drivers: a virtual function is told its type, and stays on the host's driver.
//!
//! The same function serves one guest after another, so that it is taken and given back under two guards: the journal's owner,
//! and whether a process has it open. A type is known by its name; ids are each card's own.

use crate::gpu::Gpu;
use crate::host::{VgpuFunction, VgpuType};
use crate::pci::{PciAddress, PciFunction, Sriov};

use super::look::{Look, NVIDIA_DRIVER, mig_state, on_driver};
use super::refusal::{Reason, Refusal};
use super::step::Step;
use super::{MigPiece, TypeName, mig};

pub(super) fn plan(
    look: Look<'_>,
    function: PciAddress,
    type_name: &str,
    piece: Option<&MigPiece>,
) -> Result<Vec<Step>, Refusal> {
    let there = look.function(function)?;
    let (physical, gpu) = gpu_of(look, there)?;
    look.not_anothers(function)?;
    let (current, creatable) = types(look, there)?;
    if let Some(current) = current {
        already(look, function, current, type_name)?;
        return piece.map_or(Ok(()), |piece| mig::carries(look, gpu, function, piece)).map(|()| Vec::new());
    }
    look.healthy(gpu)?;
    look.not_held(function)?;
    look.not_anothers(gpu.address)?;
    let mut steps = match piece {
        Some(piece) => mig::ensure(look, physical, gpu, piece, type_name)?,
        None => time_sliced(gpu, type_name).map(|()| Vec::new())?,
    };
    // The list is that of the instances there are now: it says nothing of one that is still to be made.
    if steps.is_empty() && !creatable.iter().any(|listed| listed.name == type_name) {
        return Err(not_creatable(look, physical, gpu, function, creatable, type_name));
    }
    let placement = piece.map(|piece| piece.placement);
    steps.push(Step::SetVgpuType { function, type_name: type_name.to_owned(), placement });
    Ok(steps)
}

pub(super) fn plan_none(look: Look<'_>, function: PciAddress, piece: Option<&MigPiece>) -> Result<Vec<Step>, Refusal> {
    let there = match look.function(function) {
        // Nobody could not read it: functions went away with their GPU's mode, and every instance with them.
        Err(refusal) if refusal == Refusal::not_seen(function) => return Ok(Vec::new()),
        there => there?,
    };
    let (physical, gpu) = gpu_of(look, there)?;
    let (current, _) = types(look, there)?;
    let placement = piece.map(|piece| piece.placement);
    let cleared = current.map(|current| Step::ClearVgpuType { function, type_name: current.name.clone(), placement });
    let released = piece.map_or(Ok(Vec::new()), |piece| mig::release(look, physical, gpu, piece, function))?;
    if cleared.is_some() || !released.is_empty() {
        look.his_own(function)?;
        look.not_held(function)?;
    }
    Ok(cleared.into_iter().chain(released).collect())
}

/// The physical function of a virtual one, which must be a GPU on its driver.
pub(super) fn gpu_of<'a>(look: Look<'a>, function: &PciFunction) -> Result<(&'a PciFunction, &'a Gpu), Refusal> {
    let address = function.address;
    let Sriov::Virtual { physical } = function.sriov else {
        let message = format!("{address} is no virtual function");
        return Err(Refusal::new(Reason::DeviceUnsuitable, address, message, "name a virtual function of a GPU"));
    };
    let (physical, gpu) = look.driven_gpu(physical)?;
    if function.driver.as_deref() != Some(NVIDIA_DRIVER) {
        let message = format!("{address} is {}; a vGPU's function stays on {NVIDIA_DRIVER}", on_driver(function));
        let fix = format!("return it to {NVIDIA_DRIVER} first");
        return Err(Refusal::new(Reason::DriverUnsuitable, address, message, fix));
    }
    Ok((physical, gpu))
}

type Types<'a> = (Option<&'a VgpuType>, &'a [VgpuType]);

fn types<'a>(look: Look<'a>, function: &PciFunction) -> Result<Types<'a>, Refusal> {
    let address = function.address;
    let missing = |message: String, fix: &str| Err(Refusal::new(Reason::VgpuFrameworkMissing, address, message, fix));
    match look.host.vgpus.get(&address) {
        Some(VgpuFunction::Vendor { current, creatable, .. }) => Ok((current.as_ref(), creatable)),
        Some(VgpuFunction::Mdev { .. }) => {
            missing(format!("the driver makes vGPUs on {address} as mediated devices"), "wish for a mediated device")
        }
        None => missing(format!("the driver of {address} makes no vGPUs"), "install NVIDIA's vGPU host driver"),
    }
}

/// Is what the function carries what the asker may have meant?
fn already(look: Look<'_>, function: PciAddress, current: &VgpuType, type_name: &str) -> Result<(), Refusal> {
    if current.name != type_name {
        let message = format!("{function} carries a vGPU {}, not {type_name}", current.name);
        let fix = "take it away first, or take another function";
        return Err(Refusal::new(Reason::VgpuFunctionTaken, function, message, fix));
    }
    match look.owner(&function.to_string()) {
        Some(_) => Ok(()),
        None => look.not_held(function),
    }
}

fn time_sliced(gpu: &Gpu, type_name: &str) -> Result<(), Refusal> {
    let refuse = |reason, message: String, fix: &str| Err(Refusal::new(reason, gpu.address, message, fix));
    let listed = gpu.vgpu_types.iter().find(|listed| listed.name == type_name);
    let by_name = || TypeName::parse(type_name).is_some_and(|name| name.slices.is_some());
    if listed.map_or_else(by_name, |listed| listed.mig_profile.is_some()) {
        let message = format!("vGPU type {type_name} stands on a GPU instance, and none was named");
        return refuse(Reason::VgpuTypeMismatch, message, "name the instance's profile and placement");
    }
    if mig_state(gpu)?.is_some_and(|mig| mig.current || mig.pending) {
        let message = format!("{} is set up for MIG, and {type_name} is time-sliced", gpu.address);
        return refuse(Reason::GpuModeWrong, message, "wish for mode vgpu first, or take a type on an instance");
    }
    Ok(())
}

fn not_creatable(
    look: Look<'_>,
    physical: &PciFunction,
    gpu: &Gpu,
    function: PciAddress,
    creatable: &[VgpuType],
    type_name: &str,
) -> Refusal {
    if !gpu.vgpu_types.iter().any(|known| known.name == type_name) {
        // What could be made now, or, on a full GPU, at all.
        let known: Vec<_> = match creatable {
            [] => gpu.vgpu_types.iter().map(|known| known.name.as_str()).collect(),
            some => some.iter().map(|known| known.name.as_str()).collect(),
        };
        let message = format!("{function} knows no vGPU type {type_name}");
        return Refusal::new(Reason::UnknownVgpuType, function, message, format!("it may be {}", known.join(", ")));
    }
    let mut carried = Vec::new();
    for vf in look.virtual_functions(physical).unwrap_or_default() {
        if let Some(VgpuFunction::Vendor { current: Some(current), .. }) = look.host.vgpus.get(&vf.address) {
            carried.push(format!("{} on {}", current.name, vf.address));
        }
    }
    let beside = if carried.is_empty() { "nothing".to_owned() } else { carried.join(", ") };
    let message = format!("{function} cannot become {type_name} beside {beside}");
    let fix = match (gpu.heterogeneous, carried.is_empty()) {
        (_, true) if creatable.is_empty() => {
            "its driver lists no type at all: restart nvidia-vgpud, or reboot the host"
        }
        (_, true) => "take a type that it lists",
        (Some(false), false) => "take another GPU, or one in mode vgpu_mixed if sizes differ",
        _ => "take another GPU",
    };
    Refusal::new(Reason::VgpuTypeNotCreatable, function, message, fix)
}

#[cfg(test)]
mod tests;
