//! vGPU types: what a board can be cut into for guests, by the vGPU host driver's word.

use std::ffi::{c_char, c_uint, c_ulonglong};

use croft_gpu_sim::boards::{VgpuKind, VgpuType};
use croft_gpu_sim::driver::{Return, creatable_types, mig_shape, supported_types};
use croft_gpu_sim::state::{GpuState, Nvidia};
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlDeviceVgpuCapability_t, nvmlVgpuTypeId_t, nvmlVgpuTypeMaxInstance_t,
};

use crate::c::{Out, export};
use crate::call::{Code, View};
use crate::system::small;

/// INVALID_GPU_INSTANCE_PROFILE_ID: the type is time-sliced.
const NO_PROFILE: u32 = u32::MAX;

/// NVML_DEVICE_VGPU_CAP_*
const FRACTIONAL_MULTI_VGPU: u32 = 0;
const HETEROGENEOUS_PROFILES: u32 = 1;
const HETEROGENEOUS_SIZES: u32 = 2;

export! {
    fn nvmlDeviceGetSupportedVgpus(device: nvmlDevice_t, count: *mut c_uint, types: *mut nvmlVgpuTypeId_t) |call| {
        let gpu = vgpu_host(call.gpu(device)?)?;
        let ids: Vec<_> = supported_types(&gpu).map(|vgpu| vgpu.id).collect();
        list(&ids, count, types)
    }

    /// On some function of this GPU.
    fn nvmlDeviceGetCreatableVgpus(device: nvmlDevice_t, count: *mut c_uint, types: *mut nvmlVgpuTypeId_t) |call| {
        let gpu = vgpu_host(call.gpu(device)?)?;
        let functions = gpu.virtual_functions.iter().map(|function| function.address).chain([gpu.address]);
        let creatable = functions.flat_map(|function| creatable_types(&gpu, function));
        let mut ids: Vec<_> = creatable.map(|(vgpu, _)| vgpu.id).collect();
        ids.sort_unstable();
        ids.dedup();
        list(&ids, count, types)
    }

    fn nvmlDeviceGetVgpuCapabilities(
        device: nvmlDevice_t,
        capability: nvmlDeviceVgpuCapability_t,
        result: *mut c_uint,
    ) |call| {
        vgpu_host(call.gpu(device)?)?;
        Ok(result.put(match capability {
            FRACTIONAL_MULTI_VGPU | HETEROGENEOUS_PROFILES | HETEROGENEOUS_SIZES => 1,
            // What a capability beyond these says of a real board is not known here.
            _ => return Err(Return::NotSupported.into()),
        })?)
    }

    fn nvmlVgpuTypeGetName(id: nvmlVgpuTypeId_t, name: *mut c_char, size: *mut c_uint) |call| {
        let host = call.host()?;
        let (_, vgpu) = known(&host, id)?;
        let text = format!("NVIDIA {}", vgpu.name);
        let room = size.get()?;
        size.put(small(text.len() + 1))?;
        Ok(name.text(room, &text)?)
    }

    /// By the last letter: C for compute, Q for workstations.
    fn nvmlVgpuTypeGetClass(id: nvmlVgpuTypeId_t, class: *mut c_char, size: *mut c_uint) |call| {
        let host = call.host()?;
        let (_, vgpu) = known(&host, id)?;
        let text = if vgpu.name.ends_with('Q') { "Quadro" } else { "Compute" };
        let room = size.get()?;
        size.put(small(text.len() + 1))?;
        Ok(class.text(room, text)?)
    }

    fn nvmlVgpuTypeGetFramebufferSize(id: nvmlVgpuTypeId_t, bytes: *mut c_ulonglong) |call| {
        let host = call.host()?;
        let (_, vgpu) = known(&host, id)?;
        Ok(bytes.put(u64::from(vgpu.framebuffer_gib) << 30)?)
    }

    fn nvmlVgpuTypeGetMaxInstances(device: nvmlDevice_t, id: nvmlVgpuTypeId_t, count: *mut c_uint) |call| {
        let gpu = vgpu_host(call.gpu(device)?)?;
        let vgpu = supported_types(&gpu).find(|vgpu| vgpu.id == id).ok_or(Return::InvalidArgument)?;
        Ok(count.put(vgpu.max)?)
    }

    fn nvmlVgpuTypeGetMaxInstancesPerGpuInstance(most: *mut nvmlVgpuTypeMaxInstance_t) |call| {
        let most = most.versioned::<nvmlVgpuTypeMaxInstance_t>(1)?;
        let asked = most.get()?;
        let host = call.host()?;
        let (gpu, vgpu) = known(&host, asked.vgpuTypeId)?;
        let VgpuKind::MigBacked { profile } = &vgpu.kind else { return Err(Return::NotSupported.into()) };
        let profile = mig_shape(gpu)?.profile_named(profile).ok_or(Return::NotSupported)?;
        Ok(most.put(nvmlVgpuTypeMaxInstance_t { maxInstancePerGI: vgpu.max / profile.max, ..asked })?)
    }

    fn nvmlVgpuTypeGetGpuInstanceProfileId(id: nvmlVgpuTypeId_t, profile_id: *mut c_uint) |call| {
        let host = call.host()?;
        let (gpu, vgpu) = known(&host, id)?;
        Ok(profile_id.put(match &vgpu.kind {
            VgpuKind::TimeSliced { .. } => NO_PROFILE,
            VgpuKind::MigBacked { profile } => mig_shape(gpu)?.profile_named(profile).ok_or(Return::NotSupported)?.id,
        })?)
    }
}

/// Other drivers answer every question about vGPUs so: captured in a guest.
pub fn vgpu_host(gpu: View) -> Result<View, Code> {
    if gpu.host.driver.flavour.makes_vgpus() && !gpu.shape().vgpu_types.is_empty() {
        Ok(gpu)
    } else {
        Err(Return::NotSupported.into())
    }
}

/// As much of a list as NVML gives: nothing but its length where the room is too small.
pub fn list<T: Copy>(values: &[T], count: Out<c_uint>, room: Out<T>) -> Result<(), Code> {
    let given = count.get()?;
    count.put(small(values.len()))?;
    if small(values.len()) > given {
        return Err(Return::InsufficientSize.into());
    }
    if values.is_empty() {
        return Ok(());
    }
    Ok(room.put_all(values.iter().copied())?)
}

/// A type of some board of this host.
fn known(host: &Nvidia, id: u32) -> Result<(&GpuState, &'static VgpuType), Code> {
    let gpus = host.gpus.iter().filter(|gpu| gpu.driver_loaded && host.driver.flavour.makes_vgpus());
    let mut types = gpus.flat_map(|gpu| supported_types(gpu).map(move |vgpu| (gpu, vgpu)));
    Ok(types.find(|(_, vgpu)| vgpu.id == id).ok_or(Return::InvalidArgument)?)
}
