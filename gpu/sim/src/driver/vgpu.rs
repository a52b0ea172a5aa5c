//! vGPUs on NVIDIA's virtual functions: which types a function may become, and becoming it. On boards that make no functions
//! (Turing and older) they are mediated devices of the board itself, any number of them.
//!
//! Time-sliced ones share the GPU in turns: all of one size, or, where heterogeneous was set before the first, of any sizes that
//! the framebuffer has room for. MIG-backed ones stand on a GPU instance of their profile.

use croft_gpu::pci::PciAddress;
use rustix::io::Errno;

use crate::boards::{VgpuKind, VgpuType};
use crate::driver::Return;
use crate::state::{Flavour, GpuInstance, GpuState, VfState};

/// Every type of this board, whatever its mode is now.
pub fn supported_types(gpu: &GpuState) -> impl Iterator<Item = &'static VgpuType> + use<> {
    gpu.shape().vgpu_types.iter()
}

/// Those of its mode: MIG-backed ones with MIG on, time-sliced ones without.
fn types_of_mode(gpu: &GpuState) -> impl Iterator<Item = &'static VgpuType> + use<> {
    let mig = gpu.mig.current;
    supported_types(gpu).filter(move |vgpu| matches!(vgpu.kind, VgpuKind::MigBacked { .. }) == mig)
}

/// Do vGPUs of this board stand on the board itself?
#[must_use]
pub fn is_own_parent(gpu: &GpuState) -> bool {
    gpu.board().pci.sriov.is_none() && !gpu.shape().vgpu_types.is_empty()
}

/// What can be made on a function now, and how many of each: of most one, on a board itself as many as there is room for.
/// Nothing on a function that is a vGPU already.
#[must_use]
pub fn creatable_types(gpu: &GpuState, function: PciAddress) -> Vec<(&'static VgpuType, u32)> {
    let own = function == gpu.address && is_own_parent(gpu);
    let free = own || gpu.virtual_functions.iter().any(|vf| vf.address == function && vf.vgpu_type == 0);
    let types = types_of_mode(gpu).filter(|vgpu| free && home(gpu, vgpu).is_some());
    let made = u32::try_from(gpu.virtual_functions.len()).unwrap_or(u32::MAX);
    types.map(|vgpu| (vgpu, if own { vgpu.max.saturating_sub(made) } else { 1 })).collect()
}

/// A mediated device comes.
pub fn add_mdev(gpu: &mut GpuState, parent: PciAddress, id: u32) -> Result<(), Errno> {
    if parent != gpu.address {
        return set_vgpu_type(gpu, parent, id);
    }
    let mut creatable = creatable_types(gpu, parent).into_iter();
    creatable.find(|(vgpu, _)| vgpu.id == id).ok_or(Errno::IO)?;
    gpu.virtual_functions.push(VfState { address: parent, vgpu_type: id, owner_gi: None });
    Ok(())
}

/// A mediated device goes.
pub fn remove_mdev(gpu: &mut GpuState, parent: PciAddress, id: u32) -> Result<(), Errno> {
    if parent != gpu.address {
        return set_vgpu_type(gpu, parent, 0);
    }
    let is = |vf: &VfState| (vf.address, vf.vgpu_type) == (parent, id);
    let at = gpu.virtual_functions.iter().position(is).ok_or(Errno::NODEV)?;
    gpu.virtual_functions.remove(at);
    Ok(())
}

/// A write to `current_vgpu_type`. `EPERM`: the function is a vGPU already, or 0 was written where there is none. `EIO`: not
/// on the list of creatable types; with GPU instances that were made before the functions, that is every type.
pub fn set_vgpu_type(gpu: &mut GpuState, function: PciAddress, id: u32) -> Result<(), Errno> {
    let at = gpu.virtual_functions.iter().position(|vf| vf.address == function).ok_or(Errno::NODEV)?;
    if (gpu.virtual_functions[at].vgpu_type == 0) == (id == 0) {
        return Err(Errno::PERM);
    }
    let owner_gi = match id {
        0 => None,
        _ => {
            let vgpu = types_of_mode(gpu).find(|vgpu| vgpu.id == id).ok_or(Errno::IO)?;
            home(gpu, vgpu).ok_or(Errno::IO)?
        }
    };
    let function = &mut gpu.virtual_functions[at];
    (function.vgpu_type, function.owner_gi) = (id, owner_gi);
    Ok(())
}

/// Mixed framebuffer sizes, on the whole GPU or on one GPU instance. `InUse`: a vGPU is there already.
pub fn set_heterogeneous(gpu: &mut GpuState, flavour: Flavour, gi: Option<u32>, on: bool) -> Result<(), Return> {
    // With MIG on the sizes on each GPU instance are what matters, and there is no GPU-wide flag.
    if !flavour.makes_vgpus() || gpu.shape().vgpu_types.is_empty() || gpu.mig.current != gi.is_some() {
        return Err(Return::NotSupported);
    }
    let at = match gi {
        None => None,
        Some(gi) => Some(gpu.instances.iter().position(|instance| instance.id == gi).ok_or(Return::NotFound)?),
    };
    let flag = at.map_or(gpu.heterogeneous, |at| gpu.instances[at].heterogeneous);
    if flag != on && gpu.virtual_functions.iter().any(|vf| vf.vgpu_type != 0 && vf.owner_gi == gi) {
        return Err(Return::InUse);
    }
    match at {
        None => gpu.heterogeneous = on,
        Some(at) => gpu.instances[at].heterogeneous = on,
    }
    Ok(())
}

/// Where one more vGPU of this type would stand: `Some(None)` on the whole GPU, `Some(id)` on a GPU instance, `None` nowhere.
fn home(gpu: &GpuState, vgpu: &VgpuType) -> Option<Option<u32>> {
    match &vgpu.kind {
        VgpuKind::TimeSliced { max_mixed } => fits_in_turns(gpu, vgpu, *max_mixed).then_some(None),
        VgpuKind::MigBacked { profile } => {
            let profile = gpu.shape().mig.as_ref()?.profile_named(profile)?;
            let max_per_instance = vgpu.max / profile.max;
            let of_profile = |instance: &&GpuInstance| instance.profile == profile.id;
            let mut instances: Vec<_> = gpu.instances.iter().filter(of_profile).collect();
            instances.sort_by_key(|instance| instance.id);
            let instance = instances.into_iter().find(|instance| {
                let tenants: Vec<_> = tenants(gpu, Some(instance)).collect();
                let room = u32::try_from(tenants.len()).is_ok_and(|count| count < max_per_instance);
                // All of one framebuffer size, whatever their series [measured on an RTX PRO 6000].
                let alike = instance.heterogeneous
                    || tenants.iter().all(|tenant| tenant.framebuffer_gib == vgpu.framebuffer_gib);
                room && alike
            })?;
            Some(Some(instance.id))
        }
    }
}

fn fits_in_turns(gpu: &GpuState, vgpu: &VgpuType, max_mixed: u32) -> bool {
    let tenants: Vec<_> = tenants(gpu, None).collect();
    let count = |equal: bool| {
        let alike = tenants.iter().filter(|tenant| !equal || tenant.framebuffer_gib == vgpu.framebuffer_gib);
        u32::try_from(alike.count()).unwrap_or(u32::MAX)
    };
    if !gpu.heterogeneous {
        return count(true) == count(false) && count(true) < vgpu.max;
    }
    let used: u32 = tenants.iter().map(|tenant| tenant.framebuffer_gib).sum();
    let whole = gpu.shape().vgpu_types.iter().map(|vgpu| vgpu.framebuffer_gib).max().unwrap_or(0);
    count(true) < max_mixed && used + vgpu.framebuffer_gib <= whole
}

/// The types of the vGPUs that stand on a GPU instance, or in turns on the whole GPU.
fn tenants<'a>(gpu: &'a GpuState, on: Option<&'a GpuInstance>) -> impl Iterator<Item = &'static VgpuType> + 'a {
    let on = on.map(|instance| instance.id);
    let here = gpu.virtual_functions.iter().filter(move |vf| vf.vgpu_type != 0 && vf.owner_gi == on);
    here.filter_map(|vf| gpu.shape().vgpu_types.iter().find(|vgpu| vgpu.id == vf.vgpu_type))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boards::{Board, H100_SXM_80GB, RTX_PRO_6000_96GB, T4_16GB};
    use crate::driver::{create_gpu_instance, destroy_gpu_instance, sriov_disabled, sriov_enabled};
    use crate::state::MigMode;

    const HOST: Flavour = Flavour::VgpuVendor;

    fn vf(index: u8) -> PciAddress {
        PciAddress { domain: 0, bus: 0x41, device: index / 8, function: index % 8 }
    }

    /// A board with eight functions made.
    fn vgpu_host(board: &Board, mig: bool) -> GpuState {
        let mut gpu = GpuState::new(board, vf(0), 0);
        gpu.mig = MigMode { current: mig, pending: mig };
        sriov_enabled(&mut gpu, &(2..10).map(vf).collect::<Vec<_>>());
        gpu
    }

    fn names(gpu: &GpuState, function: PciAddress) -> Vec<String> {
        creatable_types(gpu, function).into_iter().map(|(vgpu, _)| vgpu.name.clone()).collect()
    }

    fn set(gpu: &mut GpuState, function: PciAddress, name: &str) -> Result<(), Errno> {
        let id = gpu.shape().vgpu_types.iter().find(|vgpu| vgpu.name == name).unwrap().id;
        set_vgpu_type(gpu, function, id)
    }

    #[test]
    fn a_function_is_filled_once_and_emptied_once() {
        let mut gpu = vgpu_host(&H100_SXM_80GB, false);
        assert_eq!(set_vgpu_type(&mut gpu, vf(2), 0), Err(Errno::PERM));
        set(&mut gpu, vf(2), "H100XM-20C").unwrap();
        assert_eq!(set(&mut gpu, vf(2), "H100XM-20C"), Err(Errno::PERM));
        assert_eq!(names(&gpu, vf(2)), Vec::<String>::new());
        set_vgpu_type(&mut gpu, vf(2), 0).unwrap();
        assert_eq!(set_vgpu_type(&mut gpu, vf(2), 0), Err(Errno::PERM));
        assert_eq!(set_vgpu_type(&mut gpu, vf(2), 99_999), Err(Errno::IO));
        assert_eq!(set(&mut gpu, vf(30), "H100XM-20C"), Err(Errno::NODEV));
    }

    #[test]
    fn by_default_all_are_of_one_size() {
        let mut gpu = vgpu_host(&H100_SXM_80GB, false);
        assert!(names(&gpu, vf(2)).len() > 5);
        set(&mut gpu, vf(2), "H100XM-40C").unwrap();
        assert_eq!(names(&gpu, vf(3)), ["H100XM-40C"]);
        assert_eq!(set(&mut gpu, vf(3), "H100XM-20C"), Err(Errno::IO));
        set(&mut gpu, vf(3), "H100XM-40C").unwrap();
        assert_eq!(names(&gpu, vf(4)), Vec::<String>::new(), "two of 40 are all there are");
    }

    #[test]
    fn mixed_sizes_must_be_asked_for_before_the_first() {
        let mut gpu = vgpu_host(&H100_SXM_80GB, false);
        set(&mut gpu, vf(2), "H100XM-40C").unwrap();
        assert_eq!(set_heterogeneous(&mut gpu, HOST, None, true), Err(Return::InUse));
        set_vgpu_type(&mut gpu, vf(2), 0).unwrap();
        set_heterogeneous(&mut gpu, HOST, None, true).unwrap();
        set(&mut gpu, vf(2), "H100XM-40C").unwrap();
        set(&mut gpu, vf(3), "H100XM-20C").unwrap();
        set(&mut gpu, vf(4), "H100XM-20C").unwrap();
        assert_eq!(set(&mut gpu, vf(5), "H100XM-4C"), Err(Errno::IO), "the framebuffer is full but for one GiB");
        sriov_enabled(&mut gpu, &[vf(2)]);
        assert!(!gpu.heterogeneous, "the tool wipes the flag");
        assert_eq!(set_heterogeneous(&mut gpu, Flavour::Datacenter, None, true), Err(Return::NotSupported));
    }

    #[test]
    fn a_mig_backed_type_needs_its_gpu_instance_and_holds_it() {
        let mut gpu = vgpu_host(&H100_SXM_80GB, true);
        assert_eq!(names(&gpu, vf(2)), Vec::<String>::new());
        let gi = create_gpu_instance(&mut gpu, 14, None).unwrap();
        assert_eq!(names(&gpu, vf(2)), ["H100XM-2-20C"]);
        assert_eq!(set(&mut gpu, vf(2), "H100XM-20C"), Err(Errno::IO), "a time-sliced type, with MIG on");
        set(&mut gpu, vf(2), "H100XM-2-20C").unwrap();
        assert_eq!(gpu.virtual_functions[0].owner_gi, Some(gi));
        assert_eq!(set(&mut gpu, vf(3), "H100XM-2-20C"), Err(Errno::IO), "its only instance is taken");
        assert_eq!(destroy_gpu_instance(&mut gpu, gi), Err(Return::InUse));
        set_vgpu_type(&mut gpu, vf(2), 0).unwrap();
        destroy_gpu_instance(&mut gpu, gi).unwrap();
    }

    #[test]
    fn instances_made_before_the_functions_are_gone_with_them() {
        let mut gpu = vgpu_host(&H100_SXM_80GB, true);
        sriov_disabled(&mut gpu);
        create_gpu_instance(&mut gpu, 14, None).unwrap();
        sriov_enabled(&mut gpu, &[vf(2)]);
        assert_eq!(names(&gpu, vf(2)), Vec::<String>::new());
        assert_eq!(set(&mut gpu, vf(2), "H100XM-2-20C"), Err(Errno::IO));
        assert!(gpu.mig.current, "the mode survives");
    }

    /// Turing: no functions, and all vGPUs of one size on the board itself.
    #[test]
    fn a_board_without_functions_carries_them_itself() {
        let mut gpu = GpuState::new(&T4_16GB, vf(0), 0);
        let room = |gpu: &GpuState| {
            let types = creatable_types(gpu, vf(0)).into_iter();
            types.map(|(vgpu, count)| (vgpu.framebuffer_gib, count)).collect::<Vec<_>>()
        };
        assert_eq!(room(&gpu), [(1, 16), (2, 8), (4, 4), (8, 2), (16, 1)]);
        let id = |gib: u32| supported_types(&gpu).find(|vgpu| vgpu.framebuffer_gib == gib).unwrap().id;
        let (eight, four) = (id(8), id(4));
        add_mdev(&mut gpu, vf(0), eight).unwrap();
        assert_eq!(room(&gpu), [(8, 1)]);
        assert_eq!(add_mdev(&mut gpu, vf(0), four), Err(Errno::IO));
        add_mdev(&mut gpu, vf(0), eight).unwrap();
        assert_eq!(add_mdev(&mut gpu, vf(0), eight), Err(Errno::IO));
        assert_eq!(remove_mdev(&mut gpu, vf(0), four), Err(Errno::NODEV));
        for _ in 0..2 {
            remove_mdev(&mut gpu, vf(0), eight).unwrap();
        }
        assert_eq!(room(&gpu).len(), 5);
        assert_eq!(
            creatable_types(&vgpu_host(&H100_SXM_80GB, false), vf(0)),
            [],
            "a board with functions is none itself"
        );
    }

    #[test]
    fn several_may_share_a_graphics_instance_if_they_are_alike() {
        let mut gpu = vgpu_host(&RTX_PRO_6000_96GB, true);
        let type_name = |suffix: &str| format!("RTX Pro 6000 Blackwell DC-{suffix}");
        let plain = create_gpu_instance(&mut gpu, 14, None).unwrap();
        assert_eq!(names(&gpu, vf(2)), Vec::<String>::new(), "only +gfx carries vGPUs");
        destroy_gpu_instance(&mut gpu, plain).unwrap();
        let gi = create_gpu_instance(&mut gpu, 47, None).unwrap();
        set(&mut gpu, vf(2), &type_name("1-12Q")).unwrap();
        assert_eq!(names(&gpu, vf(3)), [type_name("1-12Q")]);
        set(&mut gpu, vf(3), &type_name("1-12Q")).unwrap();
        assert_eq!(names(&gpu, vf(4)), Vec::<String>::new());
        assert_eq!(set_heterogeneous(&mut gpu, HOST, Some(gi), true), Err(Return::InUse));
        assert_eq!(set_heterogeneous(&mut gpu, HOST, None, true), Err(Return::NotSupported));
    }
}
