//! A device as the plane knows it: the host's word, and beside it what is the plane's own.

use std::collections::BTreeSet;

use croft_gpu_geometry::Occupancy;
use serde::{Deserialize, Serialize};

use super::{Atom, Device, Mode};
use crate::Timestamp;
use crate::id::{HostId, InstanceUid};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub host: HostId,
    /// As the host told it last; MISSING once it told of all others.
    pub device: Device,
    /// By an operator, with what he said.
    pub quarantine: Option<String>,
    /// Rises with every release; 0: never released.
    pub release_counter: i64,
    pub update_time: Timestamp,
    /// GPUs.
    pub promise: Option<Promise>,
    pub holders: Vec<Holder>,
}

/// What a GPU is promised for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// IDLE: nobody holds any of it.
    pub mode: Mode,
    /// What time-sliced vGPUs share.
    pub framebuffer_mib: i64,
    pub framebuffer_used_mib: i64,
    /// The one size of a GPU that cannot mix sizes; 0: none yet.
    pub vgpu_size_mib: i64,
}

/// One instance's part of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub uid: InstanceUid,
    /// `tenants/{tenant}/instances/{instance}`
    pub name: String,
    pub atoms: Vec<Atom>,
    /// Empty: none. Of several slices of one GPU, each once.
    pub mig_profiles: Vec<String>,
    pub vgpu_types: Vec<String>,
}

impl Record {
    #[must_use]
    pub fn name(&self) -> String {
        format!("hosts/{}/devices/{}", self.host, self.device.id)
    }

    /// Nothing of it is left to give.
    #[must_use]
    pub fn in_use(&self) -> bool {
        let taken: BTreeSet<Atom> = self.holders.iter().flat_map(|holder| holder.atoms.iter().copied()).collect();
        if taken.contains(&Atom::Whole) {
            return true;
        }
        let functions = taken.iter().filter(|atom| matches!(atom, Atom::Function(_))).count();
        let total = usize::from(self.device.functions_total);
        (total > 0 && functions >= total) || self.no_slice_left(&taken)
    }

    fn no_slice_left(&self, taken: &BTreeSet<Atom>) -> bool {
        let (Some(gpu), Some(promise)) = (&self.device.gpu, &self.promise) else { return false };
        match promise.mode {
            Mode::MigVgpu => {
                let Some(board) = gpu.board.as_ref().and_then(|report| report.board().ok()) else { return true };
                let pieces =
                    taken.iter().filter_map(|atom| if let Atom::Mig(atom) = atom { Some(*atom) } else { None });
                pieces.collect::<Occupancy>().placements_free(&board).next().is_none()
            }
            Mode::Vgpu => {
                let left = promise.framebuffer_mib - promise.framebuffer_used_mib;
                gpu.vgpu_types.iter().filter(|one| one.mig_profile.is_empty()).all(|one| {
                    let other_size = promise.vgpu_size_mib != 0 && promise.vgpu_size_mib != one.framebuffer_mib;
                    one.framebuffer_mib > left || (other_size && !gpu.heterogeneous_capable)
                })
            }
            Mode::Idle | Mode::Passthrough | Mode::Foreign => false,
        }
    }
}
