//! A function for a guest, with its whole IOMMU group: all of it goes to vfio-pci, or none of it.
//!
//! Bridges stay where they are: `pcieport` moves no data of its own, and the kernel lets a group with it be used. Companions
//! of the same card (a GPU's audio and USB-C functions) go along. What the host may live on (a disk or network controller on
//! a driver, anything on a driver in another slot) is never taken along: the refusal names it.

use crate::host::{Fabric, FabricPartition};
use crate::pci::{PciFunction, Sriov};

use super::look::{Look, VFIO_DRIVER, on_driver, on_vfio};
use super::refusal::{Reason, Refusal};
use super::step::Step;
use super::{Home, driver};
use crate::pci::PciAddress;

/// Drivers that a group may have beside a guest (`driver_managed_dma` in the kernel).
const HARMLESS: [&str; 2] = ["pcieport", "pci-stub"];

pub(super) fn plan(look: Look<'_>, address: PciAddress) -> Result<Vec<Step>, Refusal> {
    let function = look.function(address)?;
    suitable(look, function)?;
    look.not_anothers(address)?;
    let group = group(look, function)?;
    let mut going = vec![function];
    for &peer in group.iter().filter(|peer| peer.address != address) {
        if goes_along(function, peer)? {
            look.not_anothers(peer.address)?;
            going.push(peer);
        }
    }
    if going.iter().all(|function| on_vfio(function)) {
        // Nothing to do. If the journal does not give it to the asker, whoever has it open is a stranger.
        let mut strangers = going.iter().filter(|function| look.owner(&function.address.to_string()).is_none());
        return strangers.try_for_each(|function| look.not_held(function.address)).map(|()| Vec::new());
    }
    placeable(look, function)?;
    let home =
        Home { driver: Some(VFIO_DRIVER.to_owned()), driver_override: Some(VFIO_DRIVER.to_owned()), persistence: None };
    let mut steps = Vec::new();
    for function in going {
        if on_vfio(function) {
            look.not_held(function.address)?;
            continue;
        }
        steps.extend(driver::leave(look, function)?);
        steps.extend(driver::enter(function, &home));
    }
    Ok(steps)
}

/// The functions that go to a guest together with this one: not its bridges.
pub(super) fn companions(look: Look<'_>, function: &PciFunction) -> Result<Vec<PciAddress>, Refusal> {
    let mut companions = Vec::new();
    for peer in group(look, function)? {
        if peer.address != function.address && goes_along(function, peer)? {
            companions.push(peer.address);
        }
    }
    Ok(companions)
}

fn suitable(look: Look<'_>, function: &PciFunction) -> Result<(), Refusal> {
    let address = function.address;
    let unsuitable = |message: String, fix: &str| Err(Refusal::new(Reason::DeviceUnsuitable, address, message, fix));
    if is_bridge(function) {
        return unsuitable(format!("{address} is a bridge, which no guest can have"), "name the device behind it");
    }
    if let Sriov::Virtual { physical } = function.sriov {
        let is_gpu = match look.function(physical) {
            Ok(physical) => look.gpu(physical)?.is_some(),
            Err(refusal) => return Err(refusal),
        };
        if is_gpu {
            let message = format!("{address} is a virtual function of GPU {physical}: it stays on the host's driver");
            return unsuitable(message, "wish for a vGPU on it");
        }
    }
    Ok(())
}

/// What keeps a GPU from being given anew, and not from whoever has it.
fn placeable(look: Look<'_>, function: &PciFunction) -> Result<(), Refusal> {
    let address = function.address;
    let Some(gpu) = look.gpu(function)? else { return Ok(()) };
    look.healthy(gpu)?;
    let fabric =
        |message: String, fix: &str| Err(Refusal::new(Reason::FabricManagerUnavailable, address, message, fix));
    match &look.host.fabric {
        Fabric::None => Ok(()),
        Fabric::Unavailable { why } => fabric(
            format!("whole GPUs of this host share NVSwitches: {why}"),
            "run Fabric Manager in shared NVSwitch mode",
        ),
        Fabric::Shared { partitions }
            if partitions.iter().any(|whole| whole.unread.is_none() && whole.gpus.contains(&address)) =>
        {
            Ok(())
        }
        Fabric::Shared { partitions } => {
            let unread = |partition: &FabricPartition| Some((partition.id, partition.unread.clone()?));
            // It may be the one of which that is not known.
            let unread = partitions.iter().filter_map(unread).map(|(id, why)| format!("; of partition {id}, {why}"));
            let message = format!("{address} is in no partition of Fabric Manager's{}", unread.collect::<String>());
            fabric(message, "see Fabric Manager's list of partitions")
        }
    }
}

/// Every function of the group, with the function itself. Fails where one that may be of it could not be read.
fn group<'a>(look: Look<'a>, function: &PciFunction) -> Result<Vec<&'a PciFunction>, Refusal> {
    let address = function.address;
    let Some(group) = function.iommu_group else {
        let message = format!("no IOMMU isolates {address}");
        let fix = "turn VT-d or AMD-Vi on in the firmware, and intel_iommu=on on the kernel's command line";
        return Err(Refusal::new(Reason::NoIommuGroup, address, message, fix));
    };
    let members: Vec<_> = look.host.pci.devices.iter().filter(|peer| peer.iommu_group == Some(group)).collect();
    // A function that is not listed has told nobody its group. Groups reach over buses only above a bridge without ACS, and
    // there the bus of each member is looked at.
    for error in &look.host.pci.errors {
        let Some(unread) = error.device.split_whitespace().find_map(|word| word.parse::<PciAddress>().ok()) else {
            continue;
        };
        let listed = members.iter().any(|member| member.address == unread);
        let near = members.iter().any(|peer| (peer.address.domain, peer.address.bus) == (unread.domain, unread.bus));
        if near && (listed || !look.host.pci.devices.iter().any(|other| other.address == unread)) {
            look.function(unread)?;
        }
    }
    Ok(members)
}

fn is_bridge(function: &PciFunction) -> bool {
    function.class >> 16 == 0x06
}

/// Does the peer go to the guest, too? `false`: it may stay as it is.
fn goes_along(function: &PciFunction, peer: &PciFunction) -> Result<bool, Refusal> {
    let shared = |why: &str, fix: String| {
        let what = peer.class_name.clone().unwrap_or_else(|| format!("class {:06x}", peer.class));
        let message = format!(
            "{} shares IOMMU group {} with {} ({what}, {}), {why}",
            function.address,
            function.iommu_group.unwrap_or_default(),
            peer.address,
            on_driver(peer)
        );
        Err(Refusal::new(Reason::IommuGroupShared, function.address, message, fix))
    };
    let move_it = "move the card to a slot whose root port isolates it (ACS)";
    let Some(driver) = peer.driver.as_deref().filter(|_| !on_vfio(peer)) else { return Ok(!is_bridge(peer)) };
    if is_bridge(peer) {
        return if HARMLESS.contains(&driver) {
            Ok(false)
        } else {
            shared("whose driver moves data of its own", move_it.to_owned())
        };
    }
    let unbind = || format!("unbind {} from {driver} if the host can do without it, or {move_it}", peer.address);
    let slot = |of: &PciFunction| (of.address.domain, of.address.bus, of.address.device);
    match peer.class >> 16 {
        _ if slot(peer) != slot(function) => shared("which the host uses and which is another card", unbind()),
        0x01 | 0x02 => shared("which the host may live on", unbind()),
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests;
