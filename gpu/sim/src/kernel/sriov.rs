//! Virtual functions: `sriov_numvfs`, `sriov_drivers_autoprobe`.
//!
//! A count goes through 0: from one to another the kernel answers EBUSY. More than the card has is ERANGE, and a driver that
//! makes none, or no driver at all, ENOENT. To 0 it takes away functions that are bound, vfio-pci's too, and waits for as
//! long as a guest has one open.

use croft_gpu::pci::PciAddress;

use super::drivers::{self, Numvfs};
use super::hardware::Iommu;
use super::machine::Machine;
use super::session::{Outcome, Session, Stop};
use super::shape::Shape;
use super::{bind, boot};
use crate::driver::Errno;

/// `sriov_numvfs`
pub(crate) fn set_count(session: &mut Session, address: PciAddress, value: &str) -> Outcome {
    let count = number(value).and_then(|count| u16::try_from(count).ok()).ok_or(Errno::INVAL)?;
    let function = session.machine.functions.get(&address).ok_or(Errno::NODEV)?;
    if count > function.total_functions() {
        return Err(Errno::RANGE.into());
    }
    let now = function.virtual_functions().len();
    if usize::from(count) == now {
        return Ok(());
    }
    let makes = match function.driver.as_deref().map(drivers::numvfs) {
        None | Some(Numvfs::Refuses) => false,
        Some(Numvfs::IfEnabled) => session.machine.enable_sriov,
        Some(Numvfs::Makes) => true,
    };
    if !makes {
        return Err(Errno::NOENT.into());
    }
    match (count, now) {
        (0, _) => remove_all(session, address),
        (_, 0) => make(session, address, count).map_err(Stop::Errno),
        _ => Err(Errno::BUSY.into()),
    }
}

/// `sriov_drivers_autoprobe`: of functions that come later.
pub(crate) fn set_autoprobe(session: &mut Session, address: PciAddress, value: &str) -> Outcome {
    let autoprobe = flag(value).ok_or(Errno::INVAL)?;
    let function = session.machine.functions.get_mut(&address).ok_or(Errno::NODEV)?;
    function.sriov.as_mut().ok_or(Errno::NODEV)?.autoprobe = autoprobe;
    Ok(())
}

/// `/sys/module/vfio_pci/parameters/enable_sriov`
pub(crate) fn set_vfio_parameter(session: &mut Session, value: &str) -> Outcome {
    session.machine.enable_sriov = flag(value).ok_or(Errno::INVAL)?;
    Ok(())
}

/// The functions appear one after the other, each with a group, and drivers look at them.
pub(crate) fn make(session: &mut Session, address: PciAddress, count: u16) -> Result<(), Errno> {
    let of = session.machine.functions.get(&address).ok_or(Errno::NODEV)?.clone();
    let shape = of.shape.sriov().ok_or(Errno::NODEV)?;
    let group = shared_group(&session.machine, of.group);
    for index in 0..count {
        let function = at(address, shape.offset + index * shape.stride);
        let flavour = session.machine.flavour;
        let mut made = boot::virtual_function(address, &of, flavour).ok_or(Errno::NODEV)?;
        if session.machine.iommu == Iommu::On && of.group.is_some() {
            made.group = Some(group.unwrap_or_else(|| session.machine.free_group()));
        }
        session.machine.functions.insert(function, made);
        let physical = session.machine.functions.get_mut(&address).and_then(|physical| physical.sriov.as_mut());
        physical.ok_or(Errno::NODEV)?.functions.push(function);
        bind::probe(session, function);
    }
    Ok(())
}

/// They go in the reverse order, each off its driver.
pub(crate) fn remove_all(session: &mut Session, address: PciAddress) -> Outcome {
    let Some(of) = session.machine.functions.get(&address) else { return Ok(()) };
    for function in of.virtual_functions().to_vec().into_iter().rev() {
        bind::detach(session, function)?;
        session.machine.functions.remove(&function);
    }
    if let Some(sriov) = session.machine.functions.get_mut(&address).and_then(|of| of.sriov.as_mut()) {
        sriov.functions.clear();
    }
    Ok(())
}

/// A function has a group of its own, unless the port above keeps nothing apart.
fn shared_group(machine: &Machine, group: Option<u32>) -> Option<u32> {
    let group = group?;
    machine.members(group).any(|(_, member)| member.shape == Shape::RootPort).then_some(group)
}

/// Routing ids run on across devices and buses.
fn at(physical: PciAddress, further: u16) -> PciAddress {
    let id = u16::from(physical.bus) << 8 | u16::from(physical.device) << 3 | u16::from(physical.function);
    let id = id.wrapping_add(further);
    PciAddress { bus: (id >> 8) as u8, device: (id >> 3) as u8 & 31, function: id as u8 & 7, ..physical }
}

/// As the kernel's kstrtoul with base 0, for what is written here: decimal, or hexadecimal after `0x`.
pub(crate) fn number(value: &str) -> Option<u64> {
    let text = value.strip_suffix('\n').unwrap_or(value);
    let digits = |text: &str, radix| {
        let all = !text.is_empty() && text.chars().all(|digit| digit.is_digit(radix));
        all.then(|| u64::from_str_radix(text, radix).ok()).flatten()
    };
    match text.strip_prefix("0x") {
        Some(text) => digits(text, 16),
        None => digits(text, 10),
    }
}

/// As kstrtobool: it looks at the beginning only.
fn flag(value: &str) -> Option<bool> {
    let mut letters = value.chars();
    match (letters.next()?.to_ascii_lowercase(), letters.next().map(|letter| letter.to_ascii_lowercase())) {
        ('y' | '1' | 't', _) | ('o', Some('n')) => Some(true),
        ('n' | '0' | 'f', _) | ('o', Some('f')) => Some(false),
        _ => None,
    }
}
