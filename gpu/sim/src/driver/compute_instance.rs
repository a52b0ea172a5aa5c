//! Compute instances within one GPU instance. They share its memory and engines: tenants are told apart by GPU instances, and
//! each of those needs one compute instance over the whole of it before anything runs.
//!
//! Counts are those of the A100 (NVIDIA's own mock of it). SMs of a part of a GPU instance are unverified on every board.

use croft_gpu::gpu::Span;

use crate::boards::MigProfile;
use crate::driver::{Return, mig_shape};
use crate::state::{ComputeInstance, GpuInstance, GpuState, uuid_of};

/// A kind of compute instance in one kind of GPU instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComputeProfile {
    /// Both the number in NVML's enumeration and the id.
    pub id: u32,
    pub compute_slices: u8,
    pub multiprocessors: u32,
    /// Where it may start, in compute slices of the GPU instance.
    pub starts: &'static [u8],
}

/// NVML's enumeration: 1c, 2c, 3c, 4c, 7c.
const SLICES: [u8; 5] = [1, 2, 3, 4, 7];

/// How many numbers NVML's enumeration has; those without a profile here are holes.
pub const COMPUTE_PROFILES: u32 = 9;

/// `NotSupported`: a hole in the enumeration, or nothing that fits into such a GPU instance.
pub fn compute_profile(gpu: &GpuState, instance: &GpuInstance, id: u32) -> Result<ComputeProfile, Return> {
    if id >= COMPUTE_PROFILES {
        return Err(Return::InvalidArgument);
    }
    let shape = mig_shape(gpu)?;
    let whole = shape.profile(instance.profile).ok_or(Return::InvalidArgument)?;
    let slice = usize::try_from(id).ok().and_then(|at| SLICES.get(at)).copied();
    let slices = slice.ok_or(Return::NotSupported)?;
    let starts = starts(whole, slices).ok_or(Return::NotSupported)?;
    let multiprocessors = match slices == whole.compute_slices {
        true => whole.multiprocessors,
        false => u32::from(slices) * shape.profiles.first().map_or(0, |smallest| smallest.multiprocessors),
    };
    Ok(ComputeProfile { id, compute_slices: slices, multiprocessors, starts })
}

fn starts(whole: &MigProfile, slices: u8) -> Option<&'static [u8]> {
    Some(match (whole.compute_slices, slices) {
        (1, 1) | (2, 2) | (3, 2 | 3) | (4, 4) | (7, 4 | 7) => &[0],
        (2, 1) => &[0, 1],
        (3, 1) => &[0, 1, 2],
        (4, 1) => &[0, 1, 2, 3],
        (4, 2) => &[0, 2],
        (7, 1) => &[0, 1, 2, 3, 4, 5, 6],
        (7, 2) => &[0, 2, 4],
        (7, 3) => &[0, 4],
        _ => return None,
    })
}

/// How many more of this profile would fit into the GPU instance now.
pub fn remaining_compute_capacity(gpu: &GpuState, instance: &GpuInstance, id: u32) -> Result<u32, Return> {
    let profile = compute_profile(gpu, instance, id)?;
    Ok(u32::try_from(free(instance, profile).count()).unwrap_or(u32::MAX))
}

/// Gives the id of the new compute instance: the lowest that is free in its GPU instance.
pub fn create_compute_instance(gpu: &mut GpuState, gi: u32, id: u32, at: Option<Span>) -> Result<u32, Return> {
    let instance = instance(gpu, gi)?;
    let profile = compute_profile(gpu, instance, id)?;
    if at.is_some_and(|at| at.size != profile.compute_slices || !profile.starts.contains(&at.start)) {
        return Err(Return::InvalidArgument);
    }
    let placement = free(instance, profile).find(|span| at.is_none_or(|at| at == *span));
    let placement = placement.ok_or(Return::InsufficientResources)?;
    let taken = |id: &u32| instance.compute_instances.iter().any(|other| other.id == *id);
    let id = (0..8).find(|id| !taken(id)).ok_or(Return::InsufficientResources)?;
    let uuid = format!("MIG-{}", uuid_of(&format!("{}/{gi}/{id}", gpu.uuid)));
    let compute = ComputeInstance { id, profile: profile.id, placement, uuid };
    instance_mut(gpu, gi)?.compute_instances.push(compute);
    Ok(id)
}

pub fn destroy_compute_instance(gpu: &mut GpuState, gi: u32, id: u32) -> Result<(), Return> {
    let instance = instance_mut(gpu, gi)?;
    let at = instance.compute_instances.iter().position(|compute| compute.id == id).ok_or(Return::NotFound)?;
    instance.compute_instances.remove(at);
    Ok(())
}

/// A GPU instance by its id.
pub fn instance(gpu: &GpuState, gi: u32) -> Result<&GpuInstance, Return> {
    gpu.instances.iter().find(|instance| instance.id == gi).ok_or(Return::NotFound)
}

fn instance_mut(gpu: &mut GpuState, gi: u32) -> Result<&mut GpuInstance, Return> {
    gpu.instances.iter_mut().find(|instance| instance.id == gi).ok_or(Return::NotFound)
}

fn free(instance: &GpuInstance, profile: ComputeProfile) -> impl Iterator<Item = Span> {
    let spans = profile.starts.iter().map(move |&start| Span { start, size: profile.compute_slices });
    let overlaps = |a: Span, b: Span| a.start < b.start + b.size && b.start < a.start + a.size;
    spans.filter(move |&span| !instance.compute_instances.iter().any(|compute| overlaps(compute.placement, span)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boards::A100_SXM_80GB;
    use crate::driver::create_gpu_instance;
    use crate::state::MigMode;

    fn a100(profile: u32) -> (GpuState, u32) {
        let mut gpu = GpuState::new(&A100_SXM_80GB, "0000:41:00.0".parse().unwrap(), 0);
        gpu.mig = MigMode { current: true, pending: true };
        let gi = create_gpu_instance(&mut gpu, profile, None).unwrap();
        (gpu, gi)
    }

    #[test]
    fn the_counts_are_those_of_a_real_board() {
        let counts = |profile: u32| {
            let (gpu, gi) = a100(profile);
            let of = |id| remaining_compute_capacity(&gpu, instance(&gpu, gi).unwrap(), id).ok();
            (0..5).map(of).collect::<Vec<_>>()
        };
        assert_eq!(counts(19), [Some(1), None, None, None, None]);
        assert_eq!(counts(14), [Some(2), Some(1), None, None, None]);
        assert_eq!(counts(9), [Some(3), Some(1), Some(1), None, None]);
        assert_eq!(counts(5), [Some(4), Some(2), None, Some(1), None]);
        assert_eq!(counts(0), [Some(7), Some(3), Some(2), Some(1), Some(1)]);
    }

    #[test]
    fn compute_instances_share_the_slices_of_their_gpu_instance() {
        let (mut gpu, gi) = a100(9);
        assert_eq!(create_compute_instance(&mut gpu, gi, 1, None), Ok(0));
        assert_eq!(create_compute_instance(&mut gpu, gi, 2, None), Err(Return::InsufficientResources));
        assert_eq!(create_compute_instance(&mut gpu, gi, 0, Some(Span { start: 2, size: 1 })), Ok(1));
        assert_eq!(create_compute_instance(&mut gpu, gi, 0, None), Err(Return::InsufficientResources));
        assert_eq!(create_compute_instance(&mut gpu, gi, 3, None), Err(Return::NotSupported));
        assert_eq!(create_compute_instance(&mut gpu, gi, 9, None), Err(Return::InvalidArgument));
        assert_eq!(create_compute_instance(&mut gpu, gi + 1, 0, None), Err(Return::NotFound));
        destroy_compute_instance(&mut gpu, gi, 0).unwrap();
        assert_eq!(destroy_compute_instance(&mut gpu, gi, 0), Err(Return::NotFound));
        assert_eq!(create_compute_instance(&mut gpu, gi, 0, None), Ok(0));
    }

    #[test]
    fn the_whole_of_a_gpu_instance_has_all_its_multiprocessors() {
        let (gpu, gi) = a100(0);
        let profile = |id| compute_profile(&gpu, instance(&gpu, gi).unwrap(), id).unwrap();
        assert_eq!((profile(4).multiprocessors, profile(0).multiprocessors), (98, 14));
    }
}
