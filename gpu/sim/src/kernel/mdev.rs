//! Mediated devices, of a vGPU host driver for older kernels: `mdev_supported_types/TYPE/create` and `UUID/remove`.

use croft_gpu::pci::PciAddress;

use super::machine::{Machine, Mdev};
use super::session::{Outcome, Session, Stop};
use super::sriov;
use crate::driver::{self, Errno};
use crate::state::Flavour;

/// Length of a UUID's text.
const UUID: usize = 36;

/// A UUID is written to a type's `create`. EINVAL: it is none. EEXIST: there is such a device. EIO: the driver makes no more
/// of that type there.
pub(crate) fn create(session: &mut Session, parent: PciAddress, type_id: u32, value: &str) -> Outcome {
    let uuid = uuid(value).ok_or(Errno::INVAL)?;
    if session.machine.mdevs.contains_key(&uuid) {
        return Err(Errno::EXIST.into());
    }
    let gpu = session.nvidia().parent_mut(parent).ok_or(Errno::NODEV)?;
    driver::add_mdev(gpu, parent, type_id).map_err(|_| Errno::IO)?;
    let (group, vfio) = (session.machine.free_group(), session.machine.free_vfio());
    session.machine.mdevs.insert(uuid, Mdev { parent, type_id, group, vfio });
    Ok(())
}

/// A number other than 0 is written to `remove`. Waits while a guest has the device open.
pub(crate) fn remove(session: &mut Session, uuid: &str, value: &str) -> Outcome {
    match sriov::number(value).ok_or(Errno::INVAL)? {
        0 => Ok(()),
        _ => remove_one(session, uuid),
    }
}

/// The driver leaves their parent.
pub(crate) fn remove_all(session: &mut Session, parent: PciAddress) -> Outcome {
    let of_parent = session.machine.mdevs.iter().filter(|(_, mdev)| mdev.parent == parent);
    let uuids: Vec<_> = of_parent.map(|(uuid, _)| uuid.clone()).collect();
    uuids.iter().try_for_each(|uuid| remove_one(session, uuid))
}

fn remove_one(session: &mut Session, uuid: &str) -> Outcome {
    let mdev = session.machine.mdevs.get(uuid).ok_or(Errno::NODEV)?.clone();
    if session.is_open(&Machine::mdev_files(&mdev)) {
        return Err(Stop::Waits);
    }
    if let Some(gpu) = session.nvidia().parent_mut(mdev.parent) {
        driver::remove_mdev(gpu, mdev.parent, mdev.type_id)?;
    }
    session.machine.mdevs.remove(uuid);
    Ok(())
}

/// Written as `%pUl` writes it: in small letters.
fn uuid(value: &str) -> Option<String> {
    let text = value.strip_suffix('\n').unwrap_or(value);
    let dash = |at: usize| [8, 13, 18, 23].contains(&at);
    let fits = |(at, byte): (usize, u8)| if dash(at) { byte == b'-' } else { byte.is_ascii_hexdigit() };
    (text.len() == UUID && text.bytes().enumerate().all(fits)).then(|| text.to_ascii_lowercase())
}

/// Does this function offer mediated devices?
pub(crate) fn is_parent(machine: &Machine, function: PciAddress) -> bool {
    machine.flavour == Flavour::VgpuMdev && machine.vgpu(function).is_some()
}
