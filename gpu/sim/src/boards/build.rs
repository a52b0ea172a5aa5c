//! Short forms for the files of this directory, so that a board reads like its data sheet.

pub(super) use super::mig::{Engines, MigProfile, MigShape, ProfileKind};
pub(super) use super::pci::{BarSize, MadeBy, PciShape, Space, SriovShape};
pub(super) use super::vgpu::{hopper_types, other_types};
pub(super) use super::{Architecture, Board, GpuShape};

pub(super) const fn engines(decoders: u32, jpeg: u32, ofa: u32) -> Engines {
    Engines { decoders, jpeg, ofa }
}

/// A row of a profile table, with the columns of `nvidia-smi mig -lgip` and `-lgipp` side by side.
#[expect(clippy::too_many_arguments, reason = "a row of a table")]
pub(super) const fn profile(
    kind: ProfileKind,
    name: &'static str,
    id: u32,
    memory_mib: u64,
    multiprocessors: u32,
    (compute_slices, memory_slices, starts): (u8, u8, &'static [u8]),
    max: u32,
    (copy_engines, encoders): (u32, u32),
    (decoders, jpeg, ofa): (u32, u32, u32),
) -> MigProfile {
    let engines = Engines { decoders, jpeg, ofa };
    MigProfile {
        kind,
        name,
        id,
        memory_mib,
        multiprocessors,
        compute_slices,
        memory_slices,
        starts,
        max,
        copy_engines,
        encoders,
        engines,
    }
}
