//! vGPUs of mixed framebuffer sizes, on one GPU or on one GPU instance.

use croft_gpu_sim::driver::{self, Return};
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlGpuInstance_t, nvmlVgpuHeterogeneousMode_t};

use crate::c::{Out, export};
use crate::call::Code;
use crate::handle::{Thing, find};
use crate::hardware::switch;
use crate::vgpu_type::vgpu_host;

export! {
    fn nvmlDeviceGetVgpuHeterogeneousMode(device: nvmlDevice_t, mode: *mut nvmlVgpuHeterogeneousMode_t) |call| {
        let gpu = vgpu_host(call.gpu(device)?)?;
        if gpu.mig.current {
            return Err(Return::NotSupported.into());
        }
        tell(mode, gpu.heterogeneous)
    }

    fn nvmlDeviceSetVgpuHeterogeneousMode(device: nvmlDevice_t, mode: *const nvmlVgpuHeterogeneousMode_t) |call| {
        let on = wanted(mode.get()?)?;
        let address = call.target(device)?;
        call.change(address, |gpu, host| driver::set_heterogeneous(gpu, host.driver.flavour, None, on))
    }

    fn nvmlGpuInstanceGetVgpuHeterogeneousMode(instance: nvmlGpuInstance_t, mode: *mut nvmlVgpuHeterogeneousMode_t) |call| {
        let (gpu, gi) = call.instance(instance)?;
        let gpu = vgpu_host(gpu)?;
        tell(mode, gpu.instance(gi)?.heterogeneous)
    }

    fn nvmlGpuInstanceSetVgpuHeterogeneousMode(
        instance: nvmlGpuInstance_t,
        mode: *const nvmlVgpuHeterogeneousMode_t,
    ) |call| {
        let on = wanted(mode.get()?)?;
        let Thing::GpuInstance { gpu, gi } = find(instance)? else { return Err(Return::InvalidArgument.into()) };
        call.change(gpu, |gpu, host| driver::set_heterogeneous(gpu, host.driver.flavour, Some(gi), on))
    }
}

fn tell(mode: Out<nvmlVgpuHeterogeneousMode_t>, on: bool) -> Result<(), Code> {
    let mode = mode.versioned::<nvmlVgpuHeterogeneousMode_t>(1)?;
    let version = mode.get()?.version;
    Ok(mode.put(nvmlVgpuHeterogeneousMode_t { version, mode: on.into() })?)
}

fn wanted(mode: nvmlVgpuHeterogeneousMode_t) -> Result<bool, Return> {
    let size = u32::try_from(size_of_val(&mode)).unwrap_or(u32::MAX);
    if mode.version != (size | 1 << 24) {
        return Err(Return::VersionMismatch);
    }
    switch(mode.mode)
}
