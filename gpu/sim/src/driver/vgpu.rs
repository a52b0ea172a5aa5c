//! vGPUs on NVIDIA's virtual functions: which types a function may become, and becoming it.

use croft_gpu::pci::PciAddress;
use rustix::io::Errno;

use crate::boards::{VgpuKind, VgpuType};
use crate::state::{GpuInstance, GpuState};

/// Every type that this board can be cut into by its present mode: MIG-backed ones with MIG on, time-sliced ones without.
pub fn supported_types(gpu: &GpuState) -> impl Iterator<Item = &'static VgpuType> {
    let mig = gpu.mig.current;
    gpu.shape().vgpu_types.iter().filter(move |vgpu| matches!(vgpu.kind, VgpuKind::MigBacked { .. }) == mig)
}

/// What `creatable_vgpu_types` of a function lists: id and name. Empty on a function that is a vGPU already.
#[must_use]
pub fn creatable_types(gpu: &GpuState, function: PciAddress) -> Vec<(u32, String)> {
    let free = gpu.virtual_functions.iter().any(|vf| vf.address == function && vf.vgpu_type == 0);
    let types = supported_types(gpu).filter(|vgpu| free && home(gpu, vgpu).is_some());
    types.map(|vgpu| (vgpu.id, format!("NVIDIA {}", vgpu.name))).collect()
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
            let vgpu = supported_types(gpu).find(|vgpu| vgpu.id == id).ok_or(Errno::IO)?;
            home(gpu, vgpu).ok_or(Errno::IO)?
        }
    };
    let function = &mut gpu.virtual_functions[at];
    (function.vgpu_type, function.owner_gi) = (id, owner_gi);
    Ok(())
}

/// Where one more vGPU of this type would stand: `Some(None)` on the whole GPU, `Some(id)` on a GPU instance, `None` nowhere.
fn home(gpu: &GpuState, vgpu: &VgpuType) -> Option<Option<u32>> {
    match &vgpu.kind {
        VgpuKind::TimeSliced { max_equal, max_mixed } => {
            fits_in_turns(gpu, vgpu, *max_equal, *max_mixed).then_some(None)
        }
        VgpuKind::MigBacked { profile, max_per_instance } => {
            let profile = gpu.shape().mig.as_ref()?.profile_named(profile)?.id;
            let mut instances: Vec<_> = gpu.instances.iter().filter(|instance| instance.profile == profile).collect();
            instances.sort_by_key(|instance| instance.id);
            let instance = instances.into_iter().find(|instance| {
                let tenants: Vec<_> = tenants(gpu, Some(instance)).collect();
                let room = u32::try_from(tenants.len()).is_ok_and(|count| count < *max_per_instance);
                // All of one framebuffer size, whatever their series [measured on an RTX PRO 6000].
                let alike = instance.heterogeneous
                    || tenants.iter().all(|tenant| tenant.framebuffer_gib == vgpu.framebuffer_gib);
                room && alike
            })?;
            Some(Some(instance.id))
        }
    }
}

fn fits_in_turns(gpu: &GpuState, vgpu: &VgpuType, max_equal: u32, max_mixed: u32) -> bool {
    let tenants: Vec<_> = tenants(gpu, None).collect();
    let count = |equal: bool| {
        let alike = tenants.iter().filter(|tenant| !equal || tenant.framebuffer_gib == vgpu.framebuffer_gib);
        u32::try_from(alike.count()).unwrap_or(u32::MAX)
    };
    if !gpu.heterogeneous {
        return count(true) == count(false) && count(true) < max_equal;
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
