//! GPU instances.

use std::ffi::c_uint;

use croft_gpu::gpu::Span;
use croft_gpu_sim::boards::MigProfile;
use croft_gpu_sim::driver::{self, Return, mig_shape};
use croft_gpu_sim::state::GpuInstance;
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlGpuInstance_t, nvmlGpuInstanceInfo_t, nvmlGpuInstancePlacement_t, nvmlGpuInstanceProfileInfo_t,
    nvmlGpuInstanceProfileInfo_v2_t, nvmlGpuInstanceProfileInfo_v3_t,
};

use crate::c::{Out, export, field};
use crate::call::{Code, View};
use crate::handle::{Thing, find, give};
use crate::system::small;

/// Behind the last profile that driver 580.159 enumerates on Hopper: from here on arguments are invalid, before it a number
/// without a profile is a hole.
const PROFILES: u32 = 0x11;

/// NVML_GPU_INSTANCE_PROFILE_CAPS_GFX
const GRAPHICS: u32 = 0x2;

export! {
    fn nvmlDeviceGetGpuInstanceProfileInfo(
        device: nvmlDevice_t,
        profile: c_uint,
        info: *mut nvmlGpuInstanceProfileInfo_t,
    ) |call| {
        let profile = enumerated(&call.gpu(device)?, profile)?;
        Ok(info.put(nvmlGpuInstanceProfileInfo_t {
            id: profile.id,
            isP2pSupported: 0,
            sliceCount: profile.compute_slices.into(),
            instanceCount: profile.max,
            multiprocessorCount: profile.multiprocessors,
            copyEngineCount: profile.copy_engines,
            decoderCount: profile.engines.decoders,
            encoderCount: profile.encoders,
            jpegCount: profile.engines.jpeg,
            ofaCount: profile.engines.ofa,
            memorySizeMB: profile.memory_mib,
        })?)
    }

    fn nvmlDeviceGetGpuInstanceProfileInfoV(
        device: nvmlDevice_t,
        profile: c_uint,
        info: *mut nvmlGpuInstanceProfileInfo_v2_t,
    ) |call| {
        describe(enumerated(&call.gpu(device)?, profile)?, info)
    }

    fn nvmlDeviceGetGpuInstanceProfileInfoByIdV(
        device: nvmlDevice_t,
        id: c_uint,
        info: *mut nvmlGpuInstanceProfileInfo_v2_t,
    ) |call| {
        let gpu = call.gpu(device)?;
        describe(driver::profile(&gpu, id)?, info)
    }

    /// All of them, taken or not, with MIG off too.
    fn nvmlDeviceGetGpuInstancePossiblePlacements_v2(
        device: nvmlDevice_t,
        id: c_uint,
        placements: *mut nvmlGpuInstancePlacement_t,
        count: *mut c_uint,
    ) |call| {
        let gpu = call.gpu(device)?;
        let profile = driver::profile(&gpu, id)?;
        count.put(small(profile.starts.len()))?;
        if placements.is_null() {
            return Ok(());
        }
        let size = profile.memory_slices.into();
        let all = profile.starts.iter().map(|&start| nvmlGpuInstancePlacement_t { start: start.into(), size });
        Ok(placements.put_all(all)?)
    }

    fn nvmlDeviceGetGpuInstanceRemainingCapacity(device: nvmlDevice_t, id: c_uint, count: *mut c_uint) |call| {
        let gpu = call.gpu(device)?;
        Ok(count.put(driver::remaining_capacity(&gpu, id)?)?)
    }

    fn nvmlDeviceCreateGpuInstance(device: nvmlDevice_t, id: c_uint, instance: *mut nvmlGpuInstance_t) |call| {
        if instance.is_null() {
            return Err(Return::InvalidArgument.into());
        }
        let gpu = call.target(device)?;
        let gi = call.change(gpu, |gpu, _| driver::create_gpu_instance(gpu, id, None))?;
        Ok(instance.put(give(Thing::GpuInstance { gpu, gi }))?)
    }

    fn nvmlDeviceCreateGpuInstanceWithPlacement(
        device: nvmlDevice_t,
        id: c_uint,
        placement: *const nvmlGpuInstancePlacement_t,
        instance: *mut nvmlGpuInstance_t,
    ) |call| {
        if instance.is_null() {
            return Err(Return::InvalidArgument.into());
        }
        let at = placement.get()?;
        let at = span(at.start, at.size)?;
        let gpu = call.target(device)?;
        let gi = call.change(gpu, |gpu, _| driver::create_gpu_instance(gpu, id, Some(at)))?;
        Ok(instance.put(give(Thing::GpuInstance { gpu, gi }))?)
    }

    fn nvmlGpuInstanceDestroy(instance: nvmlGpuInstance_t) |call| {
        let Thing::GpuInstance { gpu, gi } = find(instance)? else { return Err(Return::InvalidArgument.into()) };
        call.change(gpu, |gpu, _| driver::destroy_gpu_instance(gpu, gi))
    }

    /// The caller has room for as many as the profile allows.
    fn nvmlDeviceGetGpuInstances(
        device: nvmlDevice_t,
        id: c_uint,
        instances: *mut nvmlGpuInstance_t,
        count: *mut c_uint,
    ) |call| {
        let gpu = call.gpu(device)?;
        if !gpu.mig.current {
            return Err(Return::NotSupported.into());
        }
        driver::profile(&gpu, id)?;
        let of_profile = |instance: &&GpuInstance| instance.profile == id;
        let ids: Vec<_> = gpu.instances.iter().filter(of_profile).map(|instance| instance.id).collect();
        count.put(small(ids.len()))?;
        Ok(instances.put_all(ids.iter().map(|&gi| give(Thing::GpuInstance { gpu: gpu.address, gi })))?)
    }

    fn nvmlDeviceGetGpuInstanceById(device: nvmlDevice_t, id: c_uint, instance: *mut nvmlGpuInstance_t) |call| {
        let gpu = call.gpu(device)?;
        if !gpu.mig.current {
            return Err(Return::NotSupported.into());
        }
        let gi = gpu.instance(id)?.id;
        Ok(instance.put(give(Thing::GpuInstance { gpu: gpu.address, gi }))?)
    }

    fn nvmlGpuInstanceGetInfo(instance: nvmlGpuInstance_t, info: *mut nvmlGpuInstanceInfo_t) |call| {
        let (gpu, gi) = call.instance(instance)?;
        let GpuInstance { id, profile, placement, .. } = *gpu.instance(gi)?;
        Ok(info.put(nvmlGpuInstanceInfo_t {
            device: give(Thing::Gpu(gpu.address)),
            id,
            profileId: profile,
            placement: nvmlGpuInstancePlacement_t { start: placement.start.into(), size: placement.size.into() },
        })?)
    }
}

/// The profile at a number of NVML's enumeration.
fn enumerated(gpu: &View, number: u32) -> Result<&'static MigProfile, Return> {
    let shape = mig_shape(gpu)?;
    if number >= PROFILES {
        return Err(Return::InvalidArgument);
    }
    shape.profiles.iter().find(|profile| profile.kind as u32 == number).ok_or(Return::NotSupported)
}

/// The real driver clears the version field, fills the name of version 2 and leaves that of version 3 empty: captured.
fn describe(profile: &MigProfile, info: Out<nvmlGpuInstanceProfileInfo_v2_t>) -> Result<(), Code> {
    let capabilities = if profile.kind.graphics() { GRAPHICS } else { 0 };
    if let Ok(info) = info.versioned::<nvmlGpuInstanceProfileInfo_v3_t>(3) {
        return Ok(info.put(nvmlGpuInstanceProfileInfo_v3_t {
            version: 0,
            id: profile.id,
            sliceCount: profile.compute_slices.into(),
            instanceCount: profile.max,
            multiprocessorCount: profile.multiprocessors,
            copyEngineCount: profile.copy_engines,
            decoderCount: profile.engines.decoders,
            encoderCount: profile.encoders,
            jpegCount: profile.engines.jpeg,
            ofaCount: profile.engines.ofa,
            memorySizeMB: profile.memory_mib,
            name: field(""),
            capabilities,
        })?);
    }
    let info = info.versioned::<nvmlGpuInstanceProfileInfo_v2_t>(2)?;
    Ok(info.put(nvmlGpuInstanceProfileInfo_v2_t {
        version: 0,
        id: profile.id,
        isP2pSupported: 0,
        sliceCount: profile.compute_slices.into(),
        instanceCount: profile.max,
        multiprocessorCount: profile.multiprocessors,
        copyEngineCount: profile.copy_engines,
        decoderCount: profile.engines.decoders,
        encoderCount: profile.encoders,
        jpegCount: profile.engines.jpeg,
        ofaCount: profile.engines.ofa,
        memorySizeMB: profile.memory_mib,
        name: field(&format!("MIG {}", profile.name)),
    })?)
}

pub fn span(start: u32, size: u32) -> Result<Span, Return> {
    let byte = |number: u32| u8::try_from(number).map_err(|_| Return::InvalidArgument);
    Ok(Span { start: byte(start)?, size: byte(size)? })
}
