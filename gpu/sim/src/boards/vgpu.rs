//! The vGPU types of a board, from tables that come with this crate.
//!
//! Names, sizes and counts are NVIDIA's; the **ids** are the simulator's unless the board's file says otherwise: they change
//! from release to release, and nobody should keep one.

/// What a virtual function can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VgpuType {
    pub id: u32,
    /// `H100XM-2-20C`; the driver writes `NVIDIA ` before it.
    pub name: String,
    /// Nominal, in GiB.
    pub framebuffer_gib: u32,
    pub kind: VgpuKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VgpuKind {
    /// Shares the whole GPU in turns: so many of equal size at once, or so many of this one among others.
    TimeSliced { max_equal: u32, max_mixed: u32 },
    /// Stands on a GPU instance of this profile, so many on each.
    MigBacked { profile: String, max_per_instance: u32 },
}
