//! Who holds what, as planners ask it.

use croft_gpu::gpu::Mig;
use croft_gpu::host::{Host, VgpuFunction};
use croft_gpu::plan::{OwnedInstance, Owners, Wish};
use uuid::Uuid;

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
    owners
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
