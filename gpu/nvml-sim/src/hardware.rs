//! What the board has and how it is: links, memory, ECC, modes that are not MIG.

use std::ffi::{c_uint, c_ulonglong};

use croft_gpu_sim::boards::Architecture;
use croft_gpu_sim::driver::Return;
use croft_gpu_sim::state::Flavour;
use nvml_wrapper_sys::bindings::{
    nvmlComputeMode_t, nvmlDevice_t, nvmlEccCounterType_t, nvmlEnableState_t, nvmlGpuVirtualizationMode_t,
    nvmlHostVgpuMode_t, nvmlMemory_t, nvmlMemory_v2_t, nvmlMemoryErrorType_t,
};

use crate::c::export;
use crate::call::{Code, View};

export! {
    fn nvmlDeviceGetCurrPcieLinkGeneration(device: nvmlDevice_t, generation: *mut c_uint) |call| {
        Ok(generation.put(link_generation(&call.gpu(device)?))?)
    }

    fn nvmlDeviceGetMaxPcieLinkGeneration(device: nvmlDevice_t, generation: *mut c_uint) |call| {
        Ok(generation.put(link_generation(&call.gpu(device)?))?)
    }

    fn nvmlDeviceGetGpuMaxPcieLinkGeneration(device: nvmlDevice_t, generation: *mut c_uint) |call| {
        Ok(generation.put(link_generation(&call.gpu(device)?))?)
    }

    fn nvmlDeviceGetCurrPcieLinkWidth(device: nvmlDevice_t, width: *mut c_uint) |call| {
        Ok(width.put(call.gpu(device)?.board().pci.link_width.into())?)
    }

    fn nvmlDeviceGetMaxPcieLinkWidth(device: nvmlDevice_t, width: *mut c_uint) |call| {
        Ok(width.put(call.gpu(device)?.board().pci.link_width.into())?)
    }

    fn nvmlDeviceGetNumGpuCores(device: nvmlDevice_t, cores: *mut c_uint) |call| {
        Ok(cores.put(call.gpu(device)?.shape().cores)?)
    }

    fn nvmlDeviceGetMemoryBusWidth(device: nvmlDevice_t, bits: *mut c_uint) |call| {
        Ok(bits.put(call.gpu(device)?.shape().memory_bus_bits)?)
    }

    /// Nobody runs anything on a simulated GPU: what the driver keeps is all that is used.
    fn nvmlDeviceGetMemoryInfo(device: nvmlDevice_t, memory: *mut nvmlMemory_t) |call| {
        let (total, reserved) = memory_of(call.device(device)?)?;
        Ok(memory.put(nvmlMemory_t { total, free: total - reserved, used: reserved })?)
    }

    fn nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, memory: *mut nvmlMemory_v2_t) |call| {
        let (total, reserved) = memory_of(call.device(device)?)?;
        let memory = memory.versioned::<nvmlMemory_v2_t>(2)?;
        let version = memory.get()?.version;
        Ok(memory.put(nvmlMemory_v2_t { version, total, reserved, free: total - reserved, used: 0 })?)
    }

    fn nvmlDeviceGetPersistenceMode(device: nvmlDevice_t, mode: *mut nvmlEnableState_t) |call| {
        Ok(mode.put(call.gpu(device)?.persistence.into())?)
    }

    fn nvmlDeviceSetPersistenceMode(device: nvmlDevice_t, mode: nvmlEnableState_t) |call| {
        let on = switch(mode)?;
        let address = call.target(device)?;
        call.change(address, |gpu, _| {
            gpu.persistence = on;
            Ok(())
        })
    }

    fn nvmlDeviceGetComputeMode(device: nvmlDevice_t, mode: *mut nvmlComputeMode_t) |call| {
        call.gpu(device)?;
        Ok(mode.put(0)?)
    }

    fn nvmlDeviceGetVirtualizationMode(device: nvmlDevice_t, mode: *mut nvmlGpuVirtualizationMode_t) |call| {
        Ok(mode.put(match call.gpu(device)?.host.driver.flavour {
            Flavour::Datacenter => 0,
            Flavour::Guest => 1,
            Flavour::VgpuVendor | Flavour::VgpuMdev => 3,
        })?)
    }

    fn nvmlDeviceGetHostVgpuMode(device: nvmlDevice_t, mode: *mut nvmlHostVgpuMode_t) |call| {
        let gpu = call.gpu(device)?;
        if !gpu.host.driver.flavour.makes_vgpus() {
            return Err(Return::NotSupported.into());
        }
        Ok(mode.put(gpu.board().pci.sriov.is_some().into())?)
    }

    /// Only boards that share memory with their CPU say one.
    fn nvmlDeviceGetNumaNodeId(device: nvmlDevice_t, _node: *mut c_uint) |call| {
        call.gpu(device)?;
        Err(Return::NotSupported.into())
    }

    /// Handed out from 41 on: that was the number in the guest of one board.
    fn nvmlDeviceGetIrqNum(device: nvmlDevice_t, irq: *mut c_uint) |call| {
        Ok(irq.put(41 + call.gpu(device)?.minor)?)
    }

    fn nvmlDeviceGetEccMode(device: nvmlDevice_t, current: *mut nvmlEnableState_t, pending: *mut nvmlEnableState_t) |call| {
        call.gpu(device)?;
        current.put(1)?;
        Ok(pending.put(1)?)
    }

    fn nvmlDeviceGetTotalEccErrors(
        device: nvmlDevice_t,
        error_type: nvmlMemoryErrorType_t,
        counter: nvmlEccCounterType_t,
        count: *mut c_ulonglong,
    ) |call| {
        let ecc = call.gpu(device)?.ecc;
        Ok(count.put(match (error_type, counter) {
            (0, 0) => ecc.volatile_corrected,
            (1, 0) => ecc.volatile_uncorrected,
            (0, 1) => ecc.aggregate_corrected,
            (1, 1) => ecc.aggregate_uncorrected,
            _ => return Err(Return::InvalidArgument.into()),
        })?)
    }

    fn nvmlDeviceGetRemappedRows(
        device: nvmlDevice_t,
        corrected: *mut c_uint,
        uncorrected: *mut c_uint,
        pending: *mut c_uint,
        failed: *mut c_uint,
    ) |call| {
        let gpu = call.gpu(device)?;
        // Older boards retire pages instead.
        if gpu.shape().architecture < Architecture::Ampere {
            return Err(Return::NotSupported.into());
        }
        corrected.put(0)?;
        uncorrected.put(gpu.ecc.remapped_rows_uncorrected)?;
        pending.put(gpu.ecc.remap_pending.into())?;
        Ok(failed.put(gpu.ecc.remap_failed.into())?)
    }

    fn nvmlDeviceGetRetiredPagesPendingStatus(device: nvmlDevice_t, pending: *mut nvmlEnableState_t) |call| {
        let gpu = call.gpu(device)?;
        if gpu.shape().architecture >= Architecture::Ampere {
            return Err(Return::NotSupported.into());
        }
        Ok(pending.put(gpu.ecc.remap_pending.into())?)
    }
}

/// 32 GT/s is the fifth generation; each has twice the speed of the one before.
fn link_generation(gpu: &View) -> u32 {
    match gpu.board().pci.link_speed.split('.').next() {
        Some("64") => 6,
        Some("32") => 5,
        Some("16") => 4,
        Some("8") => 3,
        Some("5") => 2,
        _ => 1,
    }
}

/// Total and reserved, in bytes.
fn memory_of((gpu, mig): (View, Option<(u32, u32)>)) -> Result<(u64, u64), Code> {
    let shape = gpu.shape();
    let Some((gi, _)) = mig else { return Ok((shape.memory_bytes, shape.memory_reserved_bytes)) };
    let profile = gpu.instance(gi)?.profile;
    let profile = shape.mig.as_ref().and_then(|mig| mig.profile(profile)).ok_or(Return::NotFound)?;
    Ok((profile.memory_mib << 20, 0))
}

/// NVML_FEATURE_DISABLED or _ENABLED.
pub fn switch(state: u32) -> Result<bool, Return> {
    match state {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Return::InvalidArgument),
    }
}
