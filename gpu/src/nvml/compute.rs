//! Compute instances: how many compute slices of a GPU instance go to whom. Tenants are given GPU instances, never these, so
//! each GPU instance has one, over all of it.
#![expect(unsafe_code, reason = "nvml-wrapper has no calls for compute instances; NVML's own are used")]

use std::ptr;

use nvml_wrapper_sys::bindings::{
    nvmlComputeInstance_t, nvmlComputeInstanceInfo_t, nvmlComputeInstancePlacement_t, nvmlComputeInstanceProfileInfo_t,
    nvmlGpuInstance_t,
};

use super::error::{NvmlError, code};
use super::session::{Nvml, call};

/// Far beyond the last place in any driver's enumeration.
const LAST_PLACE: u32 = 0x20;
/// NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED: there is no other.
const SHARED_ENGINES: u32 = 0;

/// The ids of those in a GPU instance.
pub(super) fn ids(nvml: &Nvml, gpu_instance: nvmlGpuInstance_t) -> Result<Vec<u32>, NvmlError> {
    let mut ids = Vec::new();
    for profile in profiles(nvml, gpu_instance)? {
        let mut count = profile.instanceCount;
        let mut handles: Vec<nvmlComputeInstance_t> = vec![ptr::null_mut(); count as usize];
        // SAFETY: a handle of this session; nvml.h asks for room for `instanceCount` handles of the profile, and there is.
        unsafe {
            let room = handles.as_mut_ptr();
            call!(nvml, nvmlGpuInstanceGetComputeInstances(gpu_instance, profile.id, room, &raw mut count))
        }?;
        handles.truncate(count as usize);
        for handle in handles {
            let mut info = nvmlComputeInstanceInfo_t {
                device: ptr::null_mut(),
                gpuInstance: ptr::null_mut(),
                id: 0,
                profileId: 0,
                placement: nvmlComputeInstancePlacement_t { start: 0, size: 0 },
            };
            // SAFETY: the handle that the library has just given; it fills a structure of the type it asks for.
            unsafe { call!(nvml, nvmlComputeInstanceGetInfo_v2(handle, &raw mut info)) }?;
            ids.push(info.id);
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

pub(super) fn ensure_whole(nvml: &Nvml, gpu_instance: nvmlGpuInstance_t, slices: u32) -> Result<(), NvmlError> {
    const CALL: &str = "nvmlGpuInstanceCreateComputeInstance";
    if !ids(nvml, gpu_instance)?.is_empty() {
        return Ok(());
    }
    let profile = profiles(nvml, gpu_instance)?.into_iter().find(|profile| profile.sliceCount == slices);
    let Some(profile) = profile else {
        return Err(NvmlError::odd(CALL, format!("no compute profile of {slices} slices in this GPU instance")));
    };
    let mut made: nvmlComputeInstance_t = ptr::null_mut();
    // SAFETY: a handle of this session; the new one outlives the call.
    unsafe { call!(nvml, nvmlGpuInstanceCreateComputeInstance(gpu_instance, profile.id, &raw mut made)) }
}

pub(super) fn destroy(nvml: &Nvml, gpu_instance: nvmlGpuInstance_t, id: u32) -> Result<(), NvmlError> {
    let mut handle: nvmlComputeInstance_t = ptr::null_mut();
    // SAFETY: a handle of this session; the one that is looked up outlives the call.
    unsafe { call!(nvml, nvmlGpuInstanceGetComputeInstanceById(gpu_instance, id, &raw mut handle)) }?;
    // SAFETY: the handle that the library has just given.
    unsafe { call!(nvml, nvmlComputeInstanceDestroy(handle)) }
}

fn profiles(nvml: &Nvml, gpu_instance: nvmlGpuInstance_t) -> Result<Vec<nvmlComputeInstanceProfileInfo_t>, NvmlError> {
    let mut profiles = Vec::new();
    for place in 0..LAST_PLACE {
        let mut info = nvmlComputeInstanceProfileInfo_t {
            id: 0,
            sliceCount: 0,
            instanceCount: 0,
            multiprocessorCount: 0,
            sharedCopyEngineCount: 0,
            sharedDecoderCount: 0,
            sharedEncoderCount: 0,
            sharedJpegCount: 0,
            sharedOfaCount: 0,
        };
        // SAFETY: a handle of this session; the library fills a structure of the type it asks for.
        let told = unsafe {
            let room = &raw mut info;
            call!(nvml, nvmlGpuInstanceGetComputeInstanceProfileInfo(gpu_instance, place, SHARED_ENGINES, room))
        };
        match told {
            Ok(()) => profiles.push(info),
            Err(error) if error.code() == Some(code::NOT_SUPPORTED) => {}
            Err(error) if error.code() == Some(code::INVALID_ARGUMENT) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(profiles)
}
