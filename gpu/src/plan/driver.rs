//! Moving a function from one driver to another: what must be true and done before it leaves, and the order of the writes.
//!
//! Off the old driver first, then `driver_override`, then the probe: undone in reverse, the old override is back before
//! the old driver is asked to take the function again.

use crate::pci::{PciFunction, Sriov};

use super::look::{Look, NVIDIA_DRIVER, on_driver, on_vfio};
use super::refusal::{Reason, Refusal};
use super::step::Step;
use super::{Home, mode};

/// The steps that take a function off the driver that it is on. Refused where somebody uses it, or a piece of it.
pub(super) fn leave(look: Look<'_>, function: &PciFunction) -> Result<Vec<Step>, Refusal> {
    let address = function.address;
    let Some(driver) = &function.driver else { return look.not_held(address).map(|()| Vec::new()) };
    let unbind = Step::Unbind { address, driver: driver.clone() };
    let gpu = look.gpu(function)?.filter(|_| driver == NVIDIA_DRIVER);
    let Some(gpu) = gpu else {
        look.not_held(address)?;
        return Ok([without_functions(look, function)?, vec![unbind]].concat());
    };
    look.not_held_but_for_persistence(gpu)?;
    let mut steps = Vec::new();
    // The daemon would hold the GPU open and the unbind would wait for it. The other GPUs keep their persistence.
    if gpu.persistence == Some(true) {
        steps.push(Step::SetPersistence { gpu: address, from: true, to: false });
    }
    // MIG mode and instances that are not taken away here would come back in the guest (Ampere keeps the mode in the
    // card), or be lost without a step that could be undone.
    steps.extend(mode::to_idle(look, function, gpu)?);
    steps.push(unbind);
    Ok(steps)
}

/// The kernel takes the virtual functions down with their physical one's driver, without a word.
fn without_functions(look: Look<'_>, function: &PciFunction) -> Result<Vec<Step>, Refusal> {
    let mut steps = functions_away(look, function)?;
    if let (false, Sriov::Physical { autoprobe: true, .. }) = (steps.is_empty(), &function.sriov) {
        steps.push(Step::SetAutoprobe { physical: function.address, from: false, to: true });
    }
    Ok(steps)
}

/// The steps that take all virtual functions of an ordinary device away, if it has some; afterwards autoprobe is off. Undone,
/// the functions are as they were: off every driver, or on VFIO's.
pub(super) fn functions_away(look: Look<'_>, function: &PciFunction) -> Result<Vec<Step>, Refusal> {
    let Sriov::Physical { functions, autoprobe, .. } = &function.sriov else { return Ok(Vec::new()) };
    let physical = function.address;
    let mut steps = Vec::new();
    for vf in look.virtual_functions(function)? {
        unused(look, vf)?;
        let address = vf.address;
        steps.extend(vf.driver.clone().map(|driver| Step::Unbind { address, driver }));
        if vf.driver_override.is_some() {
            steps.push(Step::SetDriverOverride { address, from: vf.driver_override.clone(), to: None });
        }
    }
    let from = u16::try_from(functions.len()).unwrap_or(u16::MAX);
    if from != 0 {
        steps.extend(autoprobe.then_some(Step::SetAutoprobe { physical, from: true, to: false }));
        steps.push(Step::SetVirtualFunctions { physical, from, to: 0 });
    }
    Ok(steps)
}

/// May this virtual function vanish? One on a driver of the host's may be the host's own network.
fn unused(look: Look<'_>, vf: &PciFunction) -> Result<(), Refusal> {
    let owner = look.owner(&vf.address.to_string()).map(|owner| format!("is {owner}'s"));
    let held = look.holders(vf.address)?.first().map(|holder| format!("is held open by {}", super::look::who(holder)));
    let driven = (vf.driver.is_some() && !on_vfio(vf)).then(|| format!("is {}", on_driver(vf)));
    let mdevs = look.mdevs_on(vf.address)?;
    let mediated = mdevs.first().map(|mdev| format!("carries mediated device {}", mdev.uuid));
    let Some(use_) = owner.or(held).or(driven).or(mediated) else { return Ok(()) };
    let Sriov::Virtual { physical } = vf.sriov else {
        let message = format!("{} is listed as a virtual function and says that it is none", vf.address);
        return Err(Refusal::new(Reason::DeviceNotSeen, vf.address, message, "look at the host again"));
    };
    let message = format!("all virtual functions of {physical} come and go together, and {} {use_}", vf.address);
    let fix = format!("free {} first", vf.address);
    Err(Refusal::new(Reason::VirtualFunctionsInUse, physical, message, fix))
}

/// The steps that put a function, off every driver, where `home` says.
pub(super) fn enter(function: &PciFunction, home: &Home) -> Vec<Step> {
    let address = function.address;
    let overridden = (function.driver_override != home.driver_override).then(|| Step::SetDriverOverride {
        address,
        from: function.driver_override.clone(),
        to: home.driver_override.clone(),
    });
    let bound = home.driver.clone().map(|driver| Step::Bind { address, driver });
    overridden.into_iter().chain(bound).collect()
}
