//! vGPUs that a guest has open. One that is only configured on its function is none yet, to NVML.

use std::ffi::c_uint;

use croft_gpu::pci::PciAddress;
use croft_gpu_sim::clients;
use croft_gpu_sim::driver::Return;
use croft_gpu_sim::state::{Nvidia, VfState};
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlVgpuInstance_t, nvmlVgpuTypeId_t};

use crate::c::export;
use crate::call::{Call, Code};
use crate::vgpu_type::{list, vgpu_host};

/// What stands for "none" where a GPU instance is asked for.
const NO_INSTANCE: u32 = u32::MAX;

export! {
    fn nvmlDeviceGetActiveVgpus(device: nvmlDevice_t, count: *mut c_uint, instances: *mut nvmlVgpuInstance_t) |call| {
        let gpu = vgpu_host(call.gpu(device)?)?;
        let mut active = Vec::new();
        for function in &gpu.virtual_functions {
            if is_active(call, function)? {
                active.push(id(function.address));
            }
        }
        list(&active, count, instances)
    }

    fn nvmlVgpuInstanceGetType(instance: nvmlVgpuInstance_t, vgpu_type: *mut nvmlVgpuTypeId_t) |call| {
        let host = call.host()?;
        Ok(vgpu_type.put(active(call, &host, instance)?.vgpu_type)?)
    }

    fn nvmlVgpuInstanceGetGpuInstanceId(instance: nvmlVgpuInstance_t, gpu_instance: *mut c_uint) |call| {
        let host = call.host()?;
        Ok(gpu_instance.put(active(call, &host, instance)?.owner_gi.unwrap_or(NO_INSTANCE))?)
    }
}

fn active<'a>(call: &Call, host: &'a Nvidia, instance: u32) -> Result<&'a VfState, Code> {
    let mut functions = host.gpus.iter().flat_map(|gpu| &gpu.virtual_functions);
    let function = functions.find(|function| id(function.address) == instance).ok_or(Return::NotFound)?;
    if is_active(call, function)? { Ok(function) } else { Err(Return::NotFound.into()) }
}

fn is_active(call: &Call, function: &VfState) -> Result<bool, Code> {
    Ok(function.vgpu_type != 0 && !clients::of_function(call.root(), function.address)?.is_empty())
}

/// A number by its place.
fn id(at: PciAddress) -> u32 {
    at.domain << 16 | u32::from(at.bus) << 8 | u32::from(at.device) << 3 | u32::from(at.function)
}
