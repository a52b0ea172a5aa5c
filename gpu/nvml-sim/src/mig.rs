//! MIG mode, and compute instances as devices of their own.

use std::ffi::c_uint;

use croft_gpu_sim::driver::{self, Activation, Return, compute_profile, mig_shape};
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlDeviceAttributes_t, nvmlReturn_t};

use crate::c::export;
use crate::call::Code;
use crate::handle::{Thing, find, give};
use crate::hardware::switch;

export! {
    fn nvmlDeviceGetMigMode(device: nvmlDevice_t, current: *mut c_uint, pending: *mut c_uint) |call| {
        let gpu = call.gpu(device)?;
        mig_shape(&gpu)?;
        current.put(gpu.mig.current.into())?;
        Ok(pending.put(gpu.mig.pending.into())?)
    }

    fn nvmlDeviceSetMigMode(device: nvmlDevice_t, mode: c_uint, status: *mut nvmlReturn_t) |call| {
        let on = switch(mode)?;
        let address = call.target(device)?;
        let others = call.others(&*call.look(address)?)?;
        let activation = call.change(address, |gpu, host| {
            driver::set_mig_mode(gpu, host.driver.flavour, on, others.len())
        })?;
        Ok(status.put(match activation {
            Activation::Effective => 0,
            Activation::InUse => Return::InUse as u32,
            Activation::ResetRequired => Return::ResetRequired as u32,
        })?)
    }

    /// 0 with MIG off.
    fn nvmlDeviceGetMaxMigDeviceCount(device: nvmlDevice_t, count: *mut c_uint) |call| {
        let gpu = call.gpu(device)?;
        let slices = if gpu.mig.current { mig_shape(&gpu)?.compute_slices } else { 0 };
        Ok(count.put(slices.into())?)
    }

    fn nvmlDeviceIsMigDeviceHandle(device: nvmlDevice_t, is: *mut c_uint) |call| {
        let (_, mig) = call.device(device)?;
        Ok(is.put(mig.is_some().into())?)
    }

    fn nvmlDeviceGetMigDeviceHandleByIndex(device: nvmlDevice_t, index: c_uint, mig_device: *mut nvmlDevice_t) |call| {
        let gpu = call.gpu(device)?;
        if !gpu.mig.current {
            return Err(Return::NotSupported.into());
        }
        if index >= u32::from(mig_shape(&gpu)?.compute_slices) {
            return Err(Return::InvalidArgument.into());
        }
        let all = gpu.instances.iter().flat_map(|gi| gi.compute_instances.iter().map(|ci| (gi.id, ci.id)));
        let mut all: Vec<_> = all.collect();
        all.sort_unstable();
        let at = usize::try_from(index).ok().and_then(|index| all.get(index));
        let &(gi, ci) = at.ok_or(Return::NotFound)?;
        Ok(mig_device.put(give(Thing::Mig { gpu: gpu.address, gi, ci }))?)
    }

    fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig_device: nvmlDevice_t, device: *mut nvmlDevice_t) |call| {
        let Thing::Mig { gpu, .. } = find(mig_device)? else { return Err(Return::InvalidArgument.into()) };
        call.view(gpu)?;
        Ok(device.put(give(Thing::Gpu(gpu)))?)
    }

    fn nvmlDeviceGetGpuInstanceId(device: nvmlDevice_t, id: *mut c_uint) |call| {
        let (gpu, mig) = call.device(device)?;
        let (gi, ci) = mig.ok_or(Return::InvalidArgument)?;
        gpu.compute_instance(gi, ci)?;
        Ok(id.put(gi)?)
    }

    fn nvmlDeviceGetComputeInstanceId(device: nvmlDevice_t, id: *mut c_uint) |call| {
        let (gpu, mig) = call.device(device)?;
        let (gi, ci) = mig.ok_or(Return::InvalidArgument)?;
        gpu.compute_instance(gi, ci)?;
        Ok(id.put(ci)?)
    }

    fn nvmlDeviceGetAttributes_v2(device: nvmlDevice_t, attributes: *mut nvmlDeviceAttributes_t) |call| {
        let (gpu, mig) = call.device(device)?;
        let Some((gi, ci)) = mig else { return Err(Code::from(Return::NotSupported)) };
        let (instance, compute) = (gpu.instance(gi)?, gpu.compute_instance(gi, ci)?);
        let profile = mig_shape(&gpu)?.profile(instance.profile).ok_or(Return::NotFound)?;
        let part = compute_profile(&gpu, instance, compute.profile)?;
        Ok(attributes.put(nvmlDeviceAttributes_t {
            multiprocessorCount: part.multiprocessors,
            sharedCopyEngineCount: profile.copy_engines,
            sharedDecoderCount: profile.engines.decoders,
            sharedEncoderCount: profile.encoders,
            sharedJpegCount: profile.engines.jpeg,
            sharedOfaCount: profile.engines.ofa,
            gpuInstanceSliceCount: profile.compute_slices.into(),
            computeInstanceSliceCount: part.compute_slices.into(),
            memorySizeMB: profile.memory_mib,
        })?)
    }
}
