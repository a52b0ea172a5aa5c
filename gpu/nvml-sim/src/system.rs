//! The library itself: starting it, its versions, and which GPUs there are.

use std::ffi::{c_char, c_int, c_uint};

use croft_gpu::pci::PciAddress;
use croft_gpu_sim::driver::Return;
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use crate::c::export;
use crate::call::{self, Code};
use crate::handle::{Thing, give};

/// CUDA 13.0, which came with driver 580.
const CUDA: c_int = 13_000;

#[expect(unsafe_code, reason = "exported to C")]
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    call::number(|| call::init("nvmlInit_v2"))
}

#[expect(unsafe_code, reason = "exported to C")]
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    call::number(|| call::init("nvmlInitWithFlags"))
}

#[expect(unsafe_code, reason = "exported to C")]
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    call::number(|| call::shutdown("nvmlShutdown"))
}

#[expect(unsafe_code, reason = "exported to C")]
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(code: nvmlReturn_t) -> *const c_char {
    let text = match code {
        0 => c"The operation was successful",
        1 => c"Uninitialized",
        2 => c"Invalid Argument",
        3 => c"Not Supported",
        4 => c"Insufficient Permissions",
        6 => c"Not Found",
        7 => c"Insufficient Size",
        9 => c"Driver Not Loaded",
        10 => c"Timeout",
        15 => c"GPU is lost",
        16 => c"GPU requires reset",
        19 => c"In use by another client",
        20 => c"Insufficient Memory",
        23 => c"Insufficient Resources",
        25 => c"Function arguments version mismatch",
        29 => c"Invalid state",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}

export! {
    fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) |call| {
        Ok(version.text(length, &call.host()?.driver.version)?)
    }

    fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) |call| {
        Ok(version.text(length, &format!("13.{}", call.host()?.driver.version))?)
    }

    fn nvmlSystemGetCudaDriverVersion(version: *mut c_int) |call| {
        call.host()?;
        Ok(version.put(CUDA)?)
    }

    fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) |call| {
        call.host()?;
        Ok(version.put(CUDA)?)
    }

    fn nvmlDeviceGetCount_v2(count: *mut c_uint) |call| {
        let count_now = call.host()?.gpus.iter().filter(|gpu| gpu.driver_loaded).count();
        Ok(count.put(small(count_now))?)
    }

    fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut nvmlDevice_t) |call| {
        let host = call.host()?;
        let mut gpus = host.gpus.iter().filter(|gpu| gpu.driver_loaded);
        let gpu = usize::try_from(index).ok().and_then(|index| gpus.nth(index)).ok_or(Return::InvalidArgument)?;
        if gpu.lost {
            return Err(Return::GpuIsLost.into());
        }
        Ok(device.put(give(Thing::Gpu(gpu.address)))?)
    }

    fn nvmlDeviceGetHandleByPciBusId_v2(bus_id: *const c_char, device: *mut nvmlDevice_t) |call| {
        let address = parse(bus_id.text()?).ok_or(Return::InvalidArgument)?;
        call.view(address)?;
        Ok(device.put(give(Thing::Gpu(address)))?)
    }

    fn nvmlDeviceGetHandleBySerial(serial: *const c_char, device: *mut nvmlDevice_t) |call| {
        let (host, serial) = (call.host()?, serial.text()?);
        let mut gpus = host.gpus.iter().filter(|gpu| gpu.driver_loaded && !gpu.lost);
        let gpu = gpus.find(|gpu| gpu.serial == serial).ok_or(Return::NotFound)?;
        Ok(device.put(give(Thing::Gpu(gpu.address)))?)
    }

    fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut nvmlDevice_t) |call| {
        let (host, uuid) = (call.host()?, uuid.text()?);
        for gpu in host.gpus.iter().filter(|gpu| gpu.driver_loaded && !gpu.lost) {
            if gpu.uuid == uuid {
                return Ok(device.put(give(Thing::Gpu(gpu.address)))?);
            }
            for instance in &gpu.instances {
                if let Some(compute) = instance.compute_instances.iter().find(|compute| compute.uuid == uuid) {
                    let mig = Thing::Mig { gpu: gpu.address, gi: instance.id, ci: compute.id };
                    return Ok(device.put(give(mig))?);
                }
            }
        }
        Err(Code::from(Return::NotFound))
    }
}

/// `0000:41:00.0`; NVML writes and takes a domain of eight digits, too, and capitals.
fn parse(text: &str) -> Option<PciAddress> {
    let text = text.to_ascii_lowercase();
    let (domain, rest) = text.split_once(':')?;
    let domain = u32::from_str_radix(domain, 16).ok()?;
    format!("{domain:04x}:{rest}").parse().ok()
}

/// Counts of a simulated host fit.
pub fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
