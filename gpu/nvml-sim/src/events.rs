//! Events: Xid and ECC errors, to whoever waits for them.

use std::collections::BTreeMap;
use std::ffi::{c_uint, c_ulonglong};
use std::ptr;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use croft_gpu::pci::PciAddress;
use croft_gpu_sim::driver::Return;
use croft_gpu_sim::state::EventKind;
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlEventData_t, nvmlEventSet_st, nvmlEventSet_t, nvmlEventTypeDoubleBitEccError,
    nvmlEventTypeSingleBitEccError, nvmlEventTypeXidCriticalError,
};

use crate::c::{Out, export};
use crate::call::{Call, Code};
use crate::handle::{Thing, give};

/// What driver 580.159 says on Hopper.
const SUPPORTED: u64 = 65_439;

/// How long a change may take to be noticed.
const PULSE: Duration = Duration::from_millis(20);

/// No GPU or compute instance: the event is about the whole GPU.
const WHOLE: u32 = u32::MAX;

#[derive(Clone, Debug, Default)]
struct Set {
    /// Which types of which GPUs.
    watched: Vec<(PciAddress, u64)>,
    /// The number of the last event that was heard or is too old to be.
    heard: u64,
}

static SETS: Mutex<BTreeMap<usize, Set>> = Mutex::new(BTreeMap::new());

export! {
    fn nvmlDeviceGetSupportedEventTypes(device: nvmlDevice_t, types: *mut c_ulonglong) |call| {
        call.gpu(device)?;
        Ok(types.put(SUPPORTED)?)
    }

    fn nvmlEventSetCreate(set: *mut nvmlEventSet_t) |call| {
        let heard = call.host()?.events.last().map_or(0, |event| event.number);
        let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = sets.last_key_value().map_or(16, |(last, _)| last + 16);
        sets.insert(handle, Set { watched: Vec::new(), heard });
        Ok(set.put(ptr::without_provenance_mut(handle))?)
    }

    fn nvmlEventSetFree(set: nvmlEventSet_t) |call| {
        call.host()?;
        let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(sets.remove(&set.address()).map(drop).ok_or(Return::InvalidArgument)?)
    }

    fn nvmlDeviceRegisterEvents(device: nvmlDevice_t, types: c_ulonglong, set: nvmlEventSet_t) |call| {
        let gpu = call.gpu(device)?;
        if types & !SUPPORTED != 0 {
            return Err(Return::NotSupported.into());
        }
        let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
        let set = sets.get_mut(&set.address()).ok_or(Return::InvalidArgument)?;
        set.watched.push((gpu.address, types));
        Ok(())
    }

    fn nvmlEventSetWait_v2(set: nvmlEventSet_t, data: *mut nvmlEventData_t, timeout_ms: c_uint) |call| {
        call.host()?;
        let deadline = Instant::now() + Duration::from_millis(timeout_ms.into());
        loop {
            if let Some(event) = next(call, set)? {
                return Ok(data.put(event)?);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Return::Timeout.into());
            }
            thread::sleep(left.min(PULSE));
        }
    }
}

/// The oldest event that the set has not heard. `GpuIsLost`: there is none, and one of its GPUs is gone.
fn next(call: &Call, handle: Out<nvmlEventSet_st>) -> Result<Option<nvmlEventData_t>, Code> {
    let host = call.host_again()?;
    let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
    let set = sets.get_mut(&handle.address()).ok_or(Return::InvalidArgument)?;
    for event in &host.events {
        if event.number <= set.heard {
            continue;
        }
        set.heard = event.number;
        let (kind, number) = match event.kind {
            EventKind::Xid(number) => (nvmlEventTypeXidCriticalError, number),
            EventKind::EccSingleBit => (nvmlEventTypeSingleBitEccError, 0),
            EventKind::EccDoubleBit => (nvmlEventTypeDoubleBitEccError, 0),
        };
        let kind = u64::from(kind);
        if set.watched.iter().any(|(gpu, types)| *gpu == event.gpu && types & kind != 0) {
            return Ok(Some(nvmlEventData_t {
                device: give(Thing::Gpu(event.gpu)),
                eventType: kind,
                eventData: number,
                gpuInstanceId: WHOLE,
                computeInstanceId: WHOLE,
            }));
        }
    }
    let lost = |address: &PciAddress| host.gpu(*address).is_none_or(|gpu| gpu.lost);
    if set.watched.iter().any(|(gpu, _)| lost(gpu)) {
        return Err(Return::GpuIsLost.into());
    }
    Ok(None)
}
