//! Compute instances.

use std::ffi::c_uint;

use croft_gpu_sim::boards::MigProfile;
use croft_gpu_sim::driver::{self, ComputeProfile, Return, compute_profile, mig_shape};
use nvml_wrapper_sys::bindings::{
    nvmlComputeInstance_t, nvmlComputeInstanceInfo_t, nvmlComputeInstancePlacement_t, nvmlComputeInstanceProfileInfo_t,
    nvmlComputeInstanceProfileInfo_v2_t, nvmlComputeInstanceProfileInfo_v3_t, nvmlGpuInstance_t,
};

use crate::c::{export, field};
use crate::call::{Code, View};
use crate::gpu_instance::span;
use crate::handle::{Thing, find, give};
use crate::system::small;

export! {
    fn nvmlGpuInstanceGetComputeInstanceProfileInfo(
        instance: nvmlGpuInstance_t,
        profile: c_uint,
        engines: c_uint,
        info: *mut nvmlComputeInstanceProfileInfo_t,
    ) |call| {
        let (gpu, gi) = call.instance(instance)?;
        let (profile, whole) = enumerated(&gpu, gi, profile, engines)?;
        Ok(info.put(nvmlComputeInstanceProfileInfo_t {
            id: profile.id,
            sliceCount: profile.compute_slices.into(),
            instanceCount: small(profile.starts.len()),
            multiprocessorCount: profile.multiprocessors,
            sharedCopyEngineCount: whole.copy_engines,
            sharedDecoderCount: whole.engines.decoders,
            sharedEncoderCount: whole.encoders,
            sharedJpegCount: whole.engines.jpeg,
            sharedOfaCount: whole.engines.ofa,
        })?)
    }

    fn nvmlGpuInstanceGetComputeInstanceProfileInfoV(
        instance: nvmlGpuInstance_t,
        profile: c_uint,
        engines: c_uint,
        info: *mut nvmlComputeInstanceProfileInfo_v2_t,
    ) |call| {
        let (gpu, gi) = call.instance(instance)?;
        let (profile, whole) = enumerated(&gpu, gi, profile, engines)?;
        let name = field(&match profile.compute_slices == whole.compute_slices {
            true => format!("MIG {}", whole.name),
            false => format!("MIG {}c.{}", profile.compute_slices, whole.name),
        });
        if let Ok(info) = info.versioned::<nvmlComputeInstanceProfileInfo_v3_t>(3) {
            return Ok(info.put(nvmlComputeInstanceProfileInfo_v3_t {
                version: 0,
                id: profile.id,
                sliceCount: profile.compute_slices.into(),
                instanceCount: small(profile.starts.len()),
                multiprocessorCount: profile.multiprocessors,
                sharedCopyEngineCount: whole.copy_engines,
                sharedDecoderCount: whole.engines.decoders,
                sharedEncoderCount: whole.encoders,
                sharedJpegCount: whole.engines.jpeg,
                sharedOfaCount: whole.engines.ofa,
                name,
                capabilities: 0,
            })?);
        }
        let info = info.versioned::<nvmlComputeInstanceProfileInfo_v2_t>(2)?;
        Ok(info.put(nvmlComputeInstanceProfileInfo_v2_t {
            version: 0,
            id: profile.id,
            sliceCount: profile.compute_slices.into(),
            instanceCount: small(profile.starts.len()),
            multiprocessorCount: profile.multiprocessors,
            sharedCopyEngineCount: whole.copy_engines,
            sharedDecoderCount: whole.engines.decoders,
            sharedEncoderCount: whole.encoders,
            sharedJpegCount: whole.engines.jpeg,
            sharedOfaCount: whole.engines.ofa,
            name,
        })?)
    }

    fn nvmlGpuInstanceGetComputeInstanceRemainingCapacity(
        instance: nvmlGpuInstance_t,
        id: c_uint,
        count: *mut c_uint,
    ) |call| {
        let (gpu, gi) = call.instance(instance)?;
        Ok(count.put(driver::remaining_compute_capacity(&gpu, gpu.instance(gi)?, id)?)?)
    }

    fn nvmlGpuInstanceGetComputeInstancePossiblePlacements(
        instance: nvmlGpuInstance_t,
        id: c_uint,
        placements: *mut nvmlComputeInstancePlacement_t,
        count: *mut c_uint,
    ) |call| {
        let (gpu, gi) = call.instance(instance)?;
        let profile = compute_profile(&gpu, gpu.instance(gi)?, id)?;
        count.put(small(profile.starts.len()))?;
        if placements.is_null() {
            return Ok(());
        }
        let size = profile.compute_slices.into();
        let all = profile.starts.iter().map(|&start| nvmlComputeInstancePlacement_t { start: start.into(), size });
        Ok(placements.put_all(all)?)
    }

    fn nvmlGpuInstanceCreateComputeInstance(
        instance: nvmlGpuInstance_t,
        id: c_uint,
        compute: *mut nvmlComputeInstance_t,
    ) |call| {
        let Thing::GpuInstance { gpu, gi } = find(instance)? else { return Err(Return::InvalidArgument.into()) };
        if compute.is_null() {
            return Err(Return::InvalidArgument.into());
        }
        let ci = call.change(gpu, |gpu, _| driver::create_compute_instance(gpu, gi, id, None))?;
        Ok(compute.put(give(Thing::ComputeInstance { gpu, gi, ci }))?)
    }

    fn nvmlGpuInstanceCreateComputeInstanceWithPlacement(
        instance: nvmlGpuInstance_t,
        id: c_uint,
        placement: *const nvmlComputeInstancePlacement_t,
        compute: *mut nvmlComputeInstance_t,
    ) |call| {
        let Thing::GpuInstance { gpu, gi } = find(instance)? else { return Err(Return::InvalidArgument.into()) };
        if compute.is_null() {
            return Err(Return::InvalidArgument.into());
        }
        let at = placement.get()?;
        let at = span(at.start, at.size)?;
        let ci = call.change(gpu, |gpu, _| driver::create_compute_instance(gpu, gi, id, Some(at)))?;
        Ok(compute.put(give(Thing::ComputeInstance { gpu, gi, ci }))?)
    }

    fn nvmlComputeInstanceDestroy(compute: nvmlComputeInstance_t) |call| {
        let Thing::ComputeInstance { gpu, gi, ci } = find(compute)? else { return Err(Return::InvalidArgument.into()) };
        call.change(gpu, |gpu, _| driver::destroy_compute_instance(gpu, gi, ci))
    }

    fn nvmlGpuInstanceGetComputeInstances(
        instance: nvmlGpuInstance_t,
        id: c_uint,
        computes: *mut nvmlComputeInstance_t,
        count: *mut c_uint,
    ) |call| {
        let (gpu, gi) = call.instance(instance)?;
        let instance = gpu.instance(gi)?;
        compute_profile(&gpu, instance, id)?;
        let ids = instance.compute_instances.iter().filter(|compute| compute.profile == id).map(|compute| compute.id);
        let ids: Vec<_> = ids.collect();
        count.put(small(ids.len()))?;
        Ok(computes.put_all(ids.iter().map(|&ci| give(Thing::ComputeInstance { gpu: gpu.address, gi, ci })))?)
    }

    fn nvmlGpuInstanceGetComputeInstanceById(
        instance: nvmlGpuInstance_t,
        id: c_uint,
        compute: *mut nvmlComputeInstance_t,
    ) |call| {
        let (gpu, gi) = call.instance(instance)?;
        let ci = gpu.compute_instance(gi, id)?.id;
        Ok(compute.put(give(Thing::ComputeInstance { gpu: gpu.address, gi, ci }))?)
    }

    fn nvmlComputeInstanceGetInfo_v2(compute: nvmlComputeInstance_t, info: *mut nvmlComputeInstanceInfo_t) |call| {
        let Thing::ComputeInstance { gpu, gi, ci } = find(compute)? else { return Err(Return::InvalidArgument.into()) };
        let view = call.view(gpu)?;
        let found = view.compute_instance(gi, ci)?;
        let placement = found.placement;
        Ok(info.put(nvmlComputeInstanceInfo_t {
            device: give(Thing::Gpu(gpu)),
            gpuInstance: give(Thing::GpuInstance { gpu, gi }),
            id: found.id,
            profileId: found.profile,
            placement: nvmlComputeInstancePlacement_t { start: placement.start.into(), size: placement.size.into() },
        })?)
    }
}

/// A kind of compute instance, and the kind of GPU instance around it. There is one engine profile: shared, 0.
fn enumerated(gpu: &View, gi: u32, number: u32, engines: u32) -> Result<(ComputeProfile, &'static MigProfile), Code> {
    if engines != 0 {
        return Err(Return::InvalidArgument.into());
    }
    let instance = gpu.instance(gi)?;
    let whole = mig_shape(gpu)?.profile(instance.profile).ok_or(Return::NotFound)?;
    Ok((compute_profile(gpu, instance, number)?, whole))
}
