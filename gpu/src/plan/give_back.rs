//! The way back: which wish undoes another, and a passed-through group's return to where its functions were.
//!
//! A function is cleaned while it is still on vfio-pci: by then no guest has it, and no driver of the host's yet.

use std::collections::BTreeMap;

use crate::host::Host;
use crate::pci::{PciAddress, PciFunction, Sriov};

use super::look::{Look, on_vfio};
use super::refusal::{Reason, Refusal};
use super::step::Step;
use super::{Home, Mode, Owners, Wish, driver, ladder, mode, passthrough};

/// The wish that gives `wish` back, to be asked before the first step of its plan and remembered with it: afterwards the host
/// no longer shows where a function was. `None`: there is nothing to give back, as it takes nothing.
pub fn give_back(host: &Host, wish: &Wish) -> Result<Option<Wish>, Refusal> {
    let nobody = Owners::default();
    let look = Look { host, owners: &nobody, gives_back: false };
    Ok(Some(match wish {
        Wish::Passthrough { address } => {
            let function = look.function(*address)?;
            let mut homes = BTreeMap::from([(*address, home(look, function)?)]);
            for companion in passthrough::companions(look, function)? {
                homes.insert(companion, home(look, look.function(companion)?)?);
            }
            Wish::Return { homes }
        }
        Wish::VirtualFunctions { physical, .. } => {
            let Sriov::Physical { functions, autoprobe, .. } = &look.function(*physical)?.sriov else {
                return Ok(None);
            };
            let count = u16::try_from(functions.len()).unwrap_or(u16::MAX);
            Wish::VirtualFunctions { physical: *physical, count, autoprobe: *autoprobe }
        }
        Wish::Mdev { parent, uuid, gpu_instance, .. } => {
            Wish::NoMdev { parent: parent.clone(), uuid: uuid.clone(), gpu_instance: gpu_instance.clone() }
        }
        Wish::Vgpu { function, gpu_instance, .. } => {
            Wish::NoVgpu { function: *function, gpu_instance: gpu_instance.clone() }
        }
        Wish::Mode { gpu, .. } => {
            let current = match mode::unfinished(look, *gpu)? {
                Some(_) => None,
                None => look.driven_gpu(*gpu).map(|(function, on_it)| mode::current(function, on_it))?,
            };
            Wish::Mode { gpu: *gpu, mode: current.unwrap_or(Mode::Idle) }
        }
        Wish::Usb { device } => Wish::NoUsb { device: device.clone() },
        Wish::FabricPartition { id, active: true } => Wish::FabricPartition { id: *id, active: false },
        Wish::FabricPartition { active: false, .. }
        | Wish::Return { .. }
        | Wish::NoMdev { .. }
        | Wish::NoUsb { .. }
        | Wish::NoVgpu { .. } => return Ok(None),
    }))
}

fn home(look: Look<'_>, function: &PciFunction) -> Result<Home, Refusal> {
    let persistence = look.gpu(function)?.and_then(|gpu| gpu.persistence);
    let (driver, driver_override) = (function.driver.clone(), function.driver_override.clone());
    Ok(Home { driver, driver_override, persistence })
}

pub(super) fn plan_return(look: Look<'_>, homes: &BTreeMap<PciAddress, Home>) -> Result<Vec<Step>, Refusal> {
    let mut steps = Vec::new();
    for (&address, home) in homes {
        let function = look.function(address)?;
        let moves = function.driver != home.driver;
        let persists = persistence(look, function, home, moves)?;
        if !moves && function.driver_override == home.driver_override && persists.is_none() {
            continue;
        }
        look.his_own(address)?;
        if moves {
            group_is_closed(look, function)?;
            steps.extend(cleaned(look.host, function));
            steps.extend(driver::leave(look, function)?);
            steps.extend(driver::enter(function, home));
        } else if function.driver_override != home.driver_override {
            steps.extend(driver::enter(function, &Home { driver: None, ..home.clone() }));
        }
        steps.extend(persists);
    }
    Ok(steps)
}

/// Only what a guest had is cleaned, and only by what leaves its neighbours alone.
fn cleaned(host: &Host, function: &PciFunction) -> Option<Step> {
    let methods = if on_vfio(function) { ladder(host, function.address) } else { Vec::new() };
    (!methods.is_empty()).then_some(Step::Reset { address: function.address, methods })
}

/// While a guest has any function of a group, none of the others changes its driver.
fn group_is_closed(look: Look<'_>, function: &PciFunction) -> Result<(), Refusal> {
    let same = |peer: &&PciFunction| peer.iommu_group.is_some() && peer.iommu_group == function.iommu_group;
    for peer in look.host.pci.devices.iter().filter(same).filter(|peer| on_vfio(peer)) {
        look.not_held(peer.address).map_err(|held| Refusal { device: function.address.to_string(), ..held })?;
    }
    Ok(())
}

/// A driver that takes a GPU anew starts without persistence.
fn persistence(look: Look<'_>, function: &PciFunction, home: &Home, moves: bool) -> Result<Option<Step>, Refusal> {
    let Some(to) = home.persistence else { return Ok(None) };
    let Some(gpu) = look.gpu(function)? else {
        let message = format!("{} had persistence and is no GPU of NVIDIA's now", function.address);
        return Err(Refusal::new(
            Reason::DeviceUnsuitable,
            function.address,
            message,
            "another card is in its slot: see to it",
        ));
    };
    let from = if moves { Some(false) } else { gpu.persistence };
    Ok(from.filter(|from| *from != to).map(|from| Step::SetPersistence { gpu: function.address, from, to }))
}

#[cfg(test)]
mod tests;
