//! Who holds what, as planners ask it.

use croft_gpu::gpu::Mig;
use croft_gpu::host::{Host, VgpuFunction};
use croft_gpu::plan::{OwnedInstance, Owners, Wish};
use croft_gpu::usb::UsbDevice;
use uuid::Uuid;

use super::find::{self, Found};
use super::record::{Piece, Record};

/// `asker`: the instance for which the wish is; `None`: the host itself.
///
/// A change of a GPU's mode disturbs what is there, not what is still to be made: after a reboot the journal names slices
/// that went with the functions below them, and the mode must come back before they can.
pub(super) fn of(record: &Record, host: &Host, asker: Option<Uuid>, wish: &Wish) -> Owners {
    let counts = |piece: &Piece| !matches!(wish, Wish::Mode { .. }) || is_there(host, piece);
    let mut owners = Owners { asker: asker.map(|uid| uid.to_string()), ..Owners::default() };
    for (uid, _, piece) in record.pieces().filter(|(_, _, piece)| counts(piece)) {
        let owner = uid.to_string();
        match piece {
            Piece::Function(address) => drop(owners.functions.insert(address.to_string(), owner)),
            Piece::Mdev(uuid) => drop(owners.functions.insert(uuid.clone(), owner)),
            Piece::GpuInstance { gpu, piece } => {
                owners.gpu_instances.push(OwnedInstance { gpu: *gpu, piece: piece.clone(), owner });
            }
        }
    }
    // Whoever has a USB device has its controller, as far as others are concerned; where several are behind one, it is another's
    // for each of them.
    for (uid, device) in usb_devices(record, host) {
        for key in device.controller.iter().cloned().chain([device.port.to_string()]) {
            if asker != Some(uid) || !owners.functions.contains_key(&key) {
                owners.functions.insert(key, uid.to_string());
            }
        }
    }
    owners
}

/// USB devices that are plugged in, and who holds them.
pub(super) fn usb_devices<'r>(record: &'r Record, host: &'r Host) -> impl Iterator<Item = (Uuid, &'r UsbDevice)> + 'r {
    let holds = record.holds.iter().flat_map(|(uid, holds)| holds.values().map(move |hold| (*uid, hold)));
    holds.filter_map(|(uid, hold)| match find::device(host, record, &hold.device) {
        Ok(Found::Usb(device)) => Some((uid, device)),
        _ => None,
    })
}

fn is_there(host: &Host, piece: &Piece) -> bool {
    match piece {
        Piece::Function(address) => match host.vgpus.get(address) {
            Some(VgpuFunction::Vendor { current, .. }) => current.is_some(),
            // A function that is passed through whole, or whose GPU makes mediated devices.
            Some(VgpuFunction::Mdev { .. }) | None => true,
        },
        Piece::Mdev(uuid) => host.mdevs.iter().any(|mdev| mdev.uuid == *uuid),
        Piece::GpuInstance { gpu, piece } => {
            host.gpus.devices.iter().filter(|known| known.address == *gpu).any(|known| match &known.mig {
                Mig::Supported(mig) => mig
                    .instances
                    .iter()
                    .any(|instance| instance.profile == piece.profile && instance.placement == piece.placement),
                Mig::Unsupported => false,
                // Not seen is not gone.
                Mig::Unknown { .. } => true,
            })
        }
    }
}
