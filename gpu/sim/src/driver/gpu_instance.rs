//! GPU instances: which fit, where they go, what they are called.
//!
//! An instance takes a run of memory slices, a number of compute slices, and media engines, each from what the board has; and no
//! profile is there more often than its count allows. `1g+me` lists seven placements: its engines, not its placements, limit it.

use croft_gpu::gpu::Span;

use crate::boards::{Engines, MigProfile, MigShape};
use crate::driver::Return;
use crate::state::{GpuInstance, GpuState};

/// The MIG side of a board. `NotSupported`: it has none.
pub fn mig_shape(gpu: &GpuState) -> Result<&'static MigShape, Return> {
    gpu.shape().mig.as_ref().ok_or(Return::NotSupported)
}

/// A profile by its id on this board.
pub fn profile(gpu: &GpuState, id: u32) -> Result<&'static MigProfile, Return> {
    mig_shape(gpu)?.profile(id).ok_or(Return::InvalidArgument)
}

/// How many more of this profile would fit now. With MIG off: on the empty board, as driver 580 says it.
pub fn remaining_capacity(gpu: &GpuState, id: u32) -> Result<u32, Return> {
    let (shape, profile) = (mig_shape(gpu)?, profile(gpu, id)?);
    let mut taken = Taken::by(shape, &gpu.instances);
    let mut count = 0;
    // Placements of one profile never overlap each other, so the order in which they are tried does not matter.
    while let Some(placement) = first_fit(shape, &taken, profile) {
        taken.add(profile, placement);
        count += 1;
    }
    Ok(count)
}

/// `at`: `None` lets the driver choose. Gives the instance's id. `InsufficientResources`: something that it needs is taken.
pub fn create_gpu_instance(gpu: &mut GpuState, id: u32, at: Option<Span>) -> Result<u32, Return> {
    let shape = mig_shape(gpu)?;
    if !gpu.mig.current {
        return Err(Return::NotSupported);
    }
    let profile = profile(gpu, id)?;
    let taken = Taken::by(shape, &gpu.instances);
    let placement = match at {
        Some(at) if at.size != profile.memory_slices || !profile.starts.contains(&at.start) => {
            return Err(Return::InvalidArgument);
        }
        Some(at) => taken.fits(shape, profile, at).then_some(at),
        None => first_fit(shape, &taken, profile),
    };
    let placement = placement.ok_or(Return::InsufficientResources)?;
    let taken_ids: Vec<_> = gpu.instances.iter().map(|instance| instance.id).collect();
    let id = ids(shape.memory_slices / profile.memory_slices).find(|id| !taken_ids.contains(id));
    let id = id.ok_or(Return::InsufficientResources)?;
    let (compute_instances, heterogeneous) = (Vec::new(), false);
    gpu.instances.push(GpuInstance { id, profile: profile.id, placement, compute_instances, heterogeneous });
    Ok(id)
}

/// `InUse`: a compute instance or a vGPU stands on it.
pub fn destroy_gpu_instance(gpu: &mut GpuState, id: u32) -> Result<(), Return> {
    let at = gpu.instances.iter().position(|instance| instance.id == id).ok_or(Return::NotFound)?;
    let carries_vgpu = gpu.virtual_functions.iter().any(|vf| vf.vgpu_type != 0 && vf.owner_gi == Some(id));
    if carries_vgpu || !gpu.instances[at].compute_instances.is_empty() {
        return Err(Return::InUse);
    }
    gpu.instances.remove(at);
    Ok(())
}

/// The ids of the pieces that an n-th of the board may have, in the order they are given out. They are the nodes of a binary
/// tree (0 the whole; 1, 2 the halves; …, 14 in all), and not in order: seven 1g on a real board were 13, 11, 12, 7, …
fn ids(pieces: u8) -> impl Iterator<Item = u32> {
    let order: &[u32] = match pieces {
        1 => &[0],
        2 => &[2, 1],
        4 => &[5, 3, 4, 6],
        _ => &[13, 11, 12, 7, 8, 9, 10, 14],
    };
    order.iter().copied()
}

/// Where the driver puts a piece that may go anywhere: halves from the front, smaller ones from the back. (On an A100
/// `-cgi 19,14,5` gave 6:1, 4:2 and 0:4.)
fn first_fit(shape: &MigShape, taken: &Taken, profile: &MigProfile) -> Option<Span> {
    let spans = profile.starts.iter().map(|&start| Span { start, size: profile.memory_slices });
    let mut free = spans.filter(|&span| taken.fits(shape, profile, span));
    if profile.memory_slices * 2 >= shape.memory_slices { free.next() } else { free.next_back() }
}

/// What of a board its instances hold.
struct Taken {
    memory: u16,
    compute: u8,
    engines: Engines,
    /// Profile ids, one for each instance.
    profiles: Vec<u32>,
}

impl Taken {
    fn by(shape: &MigShape, instances: &[GpuInstance]) -> Taken {
        let mut taken = Taken { memory: 0, compute: 0, engines: Engines::default(), profiles: Vec::new() };
        for instance in instances {
            if let Some(profile) = shape.profile(instance.profile) {
                taken.add(profile, instance.placement);
            }
        }
        taken
    }

    fn add(&mut self, profile: &MigProfile, placement: Span) {
        self.memory |= slices(placement);
        self.compute += profile.compute_slices;
        self.engines = self.engines.plus(profile.engines);
        self.profiles.push(profile.id);
    }

    fn fits(&self, shape: &MigShape, profile: &MigProfile, placement: Span) -> bool {
        let alike = self.profiles.iter().filter(|id| **id == profile.id).count();
        let engines = self.engines.plus(profile.engines);
        self.memory & slices(placement) == 0
            && self.compute + profile.compute_slices <= shape.compute_slices
            && engines.decoders <= shape.engines.decoders
            && engines.jpeg <= shape.engines.jpeg
            && engines.ofa <= shape.engines.ofa
            && u32::try_from(alike).is_ok_and(|alike| alike < profile.max)
    }
}

impl Engines {
    fn plus(self, other: Engines) -> Engines {
        let (decoders, jpeg) = (self.decoders + other.decoders, self.jpeg + other.jpeg);
        Engines { decoders, jpeg, ofa: self.ofa + other.ofa }
    }
}

fn slices(span: Span) -> u16 {
    ((1 << span.size) - 1) << span.start
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boards::{A30_PCIE_24GB, Board, H100_SXM_80GB, L40S_48GB, RTX_PRO_6000_96GB};
    use crate::driver::create_compute_instance;
    use crate::state::MigMode;

    fn mig(board: &Board) -> GpuState {
        let mut gpu = GpuState::new(board, "0000:41:00.0".parse().unwrap(), 0);
        gpu.mig = MigMode { current: true, pending: true };
        gpu
    }

    fn id(gpu: &GpuState, name: &str) -> u32 {
        mig_shape(gpu).unwrap().profile_named(name).unwrap().id
    }

    /// Creates by name and start; `None`: where the driver likes.
    fn create(gpu: &mut GpuState, name: &str, start: Option<u8>) -> Result<u32, Return> {
        let profile = mig_shape(gpu).unwrap().profile_named(name).unwrap();
        create_gpu_instance(gpu, profile.id, start.map(|start| Span { start, size: profile.memory_slices }))
    }

    #[test]
    fn mig_must_be_on_and_the_profile_the_boards() {
        let mut h100 = mig(&H100_SXM_80GB);
        assert_eq!(create_gpu_instance(&mut h100, 65, None), Err(Return::InvalidArgument), "an RTX PRO's profile");
        assert_eq!(create_gpu_instance(&mut h100, 9, Some(Span { start: 2, size: 4 })), Err(Return::InvalidArgument));
        assert_eq!(create_gpu_instance(&mut h100, 9, Some(Span { start: 0, size: 3 })), Err(Return::InvalidArgument));
        h100.mig = MigMode { current: false, pending: true };
        assert_eq!(create_gpu_instance(&mut h100, 19, None), Err(Return::NotSupported));
        assert_eq!(remaining_capacity(&h100, 19), Ok(7), "readable with MIG off");
        let mut l40s = mig(&L40S_48GB);
        assert_eq!(create_gpu_instance(&mut l40s, 19, None), Err(Return::NotSupported));
        assert_eq!(remaining_capacity(&l40s, 19), Err(Return::NotSupported));
    }

    #[test]
    fn seven_small_ones_have_the_ids_a_real_board_gave() {
        let mut h100 = mig(&H100_SXM_80GB);
        let ids: Vec<_> = (0..7).map(|_| create(&mut h100, "1g.10gb", None).unwrap()).collect();
        assert_eq!(ids[..4], [13, 11, 12, 7]);
        assert_eq!(create(&mut h100, "1g.10gb", None), Err(Return::InsufficientResources));
        destroy_gpu_instance(&mut h100, 12).unwrap();
        assert_eq!(destroy_gpu_instance(&mut h100, 12), Err(Return::NotFound));
        assert_eq!(create(&mut h100, "1g.10gb", None), Ok(12), "the id of the one that went");
    }

    #[test]
    fn memory_is_taken_before_compute_is() {
        let mut h100 = mig(&H100_SXM_80GB);
        create(&mut h100, "3g.40gb", Some(4)).unwrap();
        assert_eq!(create(&mut h100, "3g.40gb", Some(4)), Err(Return::InsufficientResources));
        create(&mut h100, "3g.40gb", Some(0)).unwrap();
        let small = id(&h100, "1g.10gb");
        assert_eq!(remaining_capacity(&h100, small), Ok(0), "a compute slice is left, and no memory");
    }

    #[test]
    fn compute_is_taken_before_memory_is() {
        let mut h100 = mig(&H100_SXM_80GB);
        create(&mut h100, "4g.40gb", Some(0)).unwrap();
        let wide = id(&h100, "1g.20gb");
        assert_eq!(remaining_capacity(&h100, wide), Ok(2));
        create(&mut h100, "2g.20gb", Some(4)).unwrap();
        create(&mut h100, "1g.20gb", Some(6)).unwrap();
        assert_eq!(remaining_capacity(&h100, id(&h100, "1g.10gb")), Ok(0));

        let mut h100 = mig(&H100_SXM_80GB);
        for start in [0, 2, 4] {
            create(&mut h100, "2g.20gb", Some(start)).unwrap();
        }
        create(&mut h100, "1g.20gb", Some(6)).unwrap();
        let mut h100 = mig(&H100_SXM_80GB);
        for start in 0..7 {
            create(&mut h100, "1g.10gb", Some(start)).unwrap();
        }
        assert_eq!(create(&mut h100, "1g.20gb", Some(6)), Err(Return::InsufficientResources));
    }

    #[test]
    fn one_set_of_media_engines_is_one_instance() {
        let mut h100 = mig(&H100_SXM_80GB);
        create(&mut h100, "1g.10gb+me", Some(3)).unwrap();
        assert_eq!(create(&mut h100, "1g.10gb+me", Some(4)), Err(Return::InsufficientResources));
        assert_eq!(remaining_capacity(&h100, 20), Ok(0));
        assert_eq!(remaining_capacity(&h100, 19), Ok(6));

        let mut a30 = mig(&A30_PCIE_24GB);
        create(&mut a30, "2g.12gb+me", Some(0)).unwrap();
        assert_eq!(create(&mut a30, "1g.6gb+me", Some(3)), Err(Return::InsufficientResources));
        create(&mut a30, "1g.6gb", Some(3)).unwrap();
    }

    #[test]
    fn all_media_engines_leave_room_for_instances_without_any() {
        let mut pro = mig(&RTX_PRO_6000_96GB);
        create(&mut pro, "1g.24gb+me.all", Some(0)).unwrap();
        assert_eq!(create(&mut pro, "1g.24gb", Some(1)), Err(Return::InsufficientResources));
        for start in 1..4 {
            create(&mut pro, "1g.24gb-me", Some(start)).unwrap();
        }
    }

    #[test]
    fn an_instance_in_use_stays() {
        let mut h100 = mig(&H100_SXM_80GB);
        let gi = create(&mut h100, "2g.20gb", Some(0)).unwrap();
        create_compute_instance(&mut h100, gi, 1, None).unwrap();
        assert_eq!(destroy_gpu_instance(&mut h100, gi), Err(Return::InUse));
    }
}
