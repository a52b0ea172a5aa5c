//! Drivers and functions: `bind`, `unbind`, `drivers_probe`, `driver_override`, `new_id`, `remove_id`.
//!
//! Two answers surprise people. `drivers_probe` succeeds whether or not anything was bound. And a virtual function whose
//! physical one has `sriov_drivers_autoprobe` 0 is bound by nobody, not even after `new_id`, unless an override names the driver.

use croft_gpu::pci::PciAddress;

use super::drivers::{self, AtUnbind};
use super::hardware::Iommu;
use super::machine::Machine;
use super::session::{Outcome, Session, Stop};
use super::{mdev, sriov, usb};
use crate::driver::{self, Errno};

/// What is written is a name, perhaps with a newline.
pub(crate) fn named(machine: &Machine, value: &str) -> Result<PciAddress, Errno> {
    let name = value.strip_suffix('\n').unwrap_or(value);
    let address = name.parse().map_err(|_| Errno::NODEV)?;
    machine.functions.contains_key(&address).then_some(address).ok_or(Errno::NODEV)
}

/// `/sys/bus/pci/drivers_probe`
pub(crate) fn drivers_probe(session: &mut Session, value: &str) -> Outcome {
    let address = named(&session.machine, value)?;
    probe(session, address);
    Ok(())
}

/// `drivers/NAME/bind`
pub(crate) fn bind(session: &mut Session, driver: &str, value: &str) -> Outcome {
    let address = named(&session.machine, value)?;
    if !drivers::matches(&session.machine, driver, address) {
        return Err(Errno::NODEV.into());
    }
    if session.machine.functions[&address].driver.is_some() {
        return Err(Errno::BUSY.into());
    }
    attach(session, address, driver).map_err(Stop::Errno)
}

/// `drivers/NAME/unbind`
pub(crate) fn unbind(session: &mut Session, driver: &str, value: &str) -> Outcome {
    let address = named(&session.machine, value)?;
    if !session.machine.functions[&address].is_on(driver) {
        return Err(Errno::NODEV.into());
    }
    detach(session, address)
}

/// `/proc/driver/nvidia/gpus/ADDRESS/unbindLock`: granted while no client has the GPU open; then none gets in. That it was not
/// is seen by who reads it back.
pub(crate) fn unbind_lock(session: &mut Session, gpu: &str, value: &str) -> Outcome {
    let address = named(&session.machine, gpu)?;
    let wanted = sriov::number(value).ok_or(Errno::INVAL)? == 1;
    let granted = wanted && !session.is_used(address);
    let gpu = session.gpu(address).ok_or(Errno::NODEV)?;
    gpu.unbind_locked = granted || (wanted && gpu.unbind_locked);
    Ok(())
}

/// `driver_override` of a function. Has no effect on a driver that is bound.
pub(crate) fn set_override(session: &mut Session, address: PciAddress, value: &str) -> Outcome {
    // A page, less its end.
    if value.len() >= 4095 {
        return Err(Errno::INVAL.into());
    }
    let name = value.split('\n').next().unwrap_or_default();
    let function = session.machine.functions.get_mut(&address).ok_or(Errno::NODEV)?;
    function.driver_override = (!name.is_empty()).then(|| name.to_owned());
    Ok(())
}

/// `drivers/NAME/new_id`: and whatever is unbound and has these ids is bound at once.
pub(crate) fn new_id(session: &mut Session, driver: &str, value: &str) -> Outcome {
    let ids = ids(value)?;
    let known = session.machine.functions.iter().any(|(&address, function)| {
        let facts = function.shape.facts();
        let same = facts.is_some_and(|facts| (facts.vendor, facts.device) == ids);
        same && drivers::has_id(&session.machine, driver, address)
    });
    let dynamic = session.machine.dynamic_ids.entry(driver.to_owned()).or_default();
    if known || !dynamic.insert(ids) {
        return Err(Errno::EXIST.into());
    }
    let addresses: Vec<_> = session.machine.functions.keys().copied().collect();
    for address in addresses {
        let unbound = session.machine.functions[&address].driver.is_none();
        if unbound && drivers::matches(&session.machine, driver, address) {
            // The one that will not be bound keeps the others from nothing.
            let _ = attach(session, address, driver);
        }
    }
    Ok(())
}

/// `drivers/NAME/remove_id`: what is bound stays so.
pub(crate) fn remove_id(session: &mut Session, driver: &str, value: &str) -> Outcome {
    let ids = ids(value)?;
    match session.machine.dynamic_ids.get_mut(driver).is_some_and(|known| known.remove(&ids)) {
        true => Ok(()),
        false => Err(Errno::NODEV.into()),
    }
}

/// Vendor and device in hexadecimal; what may follow only narrows the match, and is not looked at here.
fn ids(value: &str) -> Result<(u16, u16), Errno> {
    let mut words = value.split_whitespace().map(|word| u16::from_str_radix(word.trim_start_matches("0x"), 16));
    match (words.next(), words.next()) {
        (Some(Ok(vendor)), Some(Ok(device))) => Ok((vendor, device)),
        _ => Err(Errno::INVAL),
    }
}

/// Offers an unbound function to the drivers that match it. Nobody tells whether one took it.
pub(crate) fn probe(session: &mut Session, address: PciAddress) {
    for driver in candidates(&session.machine, address) {
        if attach(session, address, &driver).is_ok() {
            return;
        }
    }
}

/// The same at boot, when no process runs that could stand in the way.
pub(crate) fn take_by_id(machine: &mut Machine, address: PciAddress) {
    for driver in candidates(machine, address) {
        if may_attach(machine, address, &driver).is_ok() {
            return set_driver(machine, address, &driver);
        }
    }
}

fn candidates(machine: &Machine, address: PciAddress) -> Vec<String> {
    let Some(function) = machine.functions.get(&address).filter(|function| function.driver.is_none()) else {
        return Vec::new();
    };
    let by_id = || {
        // Tables come before dynamic ids: their drivers were there first.
        let table = function.shape.facts().and_then(|facts| facts.driver).map(str::to_owned);
        let dynamic = machine.dynamic_ids.keys().filter(|driver| drivers::has_id(machine, driver, address));
        table.into_iter().chain(dynamic.cloned()).collect()
    };
    let wanted = function.driver_override.clone().map_or_else(by_id, |driver| vec![driver]);
    wanted.into_iter().filter(|driver| machine.drivers.contains(driver)).collect()
}

fn may_attach(machine: &Machine, address: PciAddress, driver: &str) -> Result<(), Errno> {
    let function = machine.functions.get(&address).ok_or(Errno::NODEV)?;
    if let Some(physical) = function.physical {
        let of = machine.functions.get(&physical).ok_or(Errno::NODEV)?;
        let autoprobe = of.sriov.as_ref().is_some_and(|sriov| sriov.autoprobe);
        if !autoprobe && function.driver_override.is_none() {
            return Err(Errno::NODEV);
        }
        // NVIDIA's functions are nothing without the driver on the GPU itself, and that with vGPUs.
        if driver == drivers::NVIDIA && !(of.is_on(drivers::NVIDIA) && machine.flavour.makes_vgpus()) {
            return Err(Errno::NODEV);
        }
    }
    if driver == drivers::VFIO_PCI && (function.group.is_none() || machine.iommu == Iommu::Off) {
        return Err(Errno::INVAL);
    }
    Ok(())
}

/// A driver takes an unbound function, or its probe fails.
fn attach(session: &mut Session, address: PciAddress, driver: &str) -> Result<(), Errno> {
    may_attach(&session.machine, address, driver)?;
    let group = session.machine.functions[&address].group;
    if let Some(group) = group
        && !drivers::lets_group_be_used(driver)
        && group_is_open(session, group)
    {
        return Err(Errno::BUSY);
    }
    set_driver(&mut session.machine, address, driver);
    let functions = session.machine.functions[&address].virtual_functions().to_vec();
    if driver == drivers::NVIDIA
        && let Some(gpu) = session.gpu(address)
    {
        driver::bound(gpu);
        if !functions.is_empty() {
            driver::sriov_enabled(gpu, &functions);
        }
    }
    if driver == drivers::XHCI_HCD {
        usb::return_to_bus(session);
    }
    Ok(())
}

fn set_driver(machine: &mut Machine, address: PciAddress, driver: &str) {
    let vfio = match &machine.functions.get(&address) {
        Some(function) if drivers::makes_vfio_device(driver, function, machine) => Some(machine.free_vfio()),
        _ => None,
    };
    if let Some(function) = machine.functions.get_mut(&address) {
        function.driver = Some(driver.to_owned());
        function.vfio = vfio;
    }
}

fn group_is_open(session: &Session, group: u32) -> bool {
    let members = session.machine.members(group).filter(|(_, function)| function.vfio.is_some());
    members.into_iter().any(|(address, _)| session.is_open(&session.machine.files(address)))
}

/// The driver lets go of a function, with all that hung on it. Waits for whoever has it open: a guest, or a program that has
/// `/dev/nvidiaN` open.
pub(crate) fn detach(session: &mut Session, address: PciAddress) -> Outcome {
    let Some(function) = session.machine.functions.get(&address) else { return Ok(()) };
    let Some(driver) = function.driver.clone() else { return Ok(()) };
    let physical = function.physical;
    if session.is_used(address) {
        return Err(Stop::Waits);
    }
    mdev::remove_all(session, address)?;
    if drivers::at_unbind(&driver) == AtUnbind::TakesThemAway {
        sriov::remove_all(session, address)?;
    }
    if driver == drivers::NVIDIA {
        let of = session.gpu(physical.unwrap_or(address));
        match (of, physical) {
            (Some(gpu), None) => driver::unbound(gpu),
            // Nothing is refused here that the driver can do anything about: an empty function has nothing to lose.
            (Some(gpu), Some(_)) => drop(driver::set_vgpu_type(gpu, address, 0)),
            (None, _) => {}
        }
    }
    if driver == drivers::XHCI_HCD {
        session.machine.usb.clear();
    }
    if let Some(function) = session.machine.functions.get_mut(&address) {
        (function.driver, function.vfio) = (None, None);
    }
    Ok(())
}
