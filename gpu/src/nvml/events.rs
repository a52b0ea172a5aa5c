//! What GPUs report by themselves: Xid errors, memory errors beyond ECC, a GPU that went away.
#![expect(
    unsafe_code,
    reason = "nvml-wrapper drops the GPU instance that an event is about; NVML's own calls are used"
)]

use std::ops::ControlFlow;
use std::path::Path;
use std::ptr;

use nvml_wrapper::Device;
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t};
use serde::{Deserialize, Serialize};

use super::error::{NvmlError, code};
use super::session::{Nvml, call, if_supported};
use crate::gpu::{Fault, faults};
use crate::pci::PciAddress;

/// nvmlEventType… of nvml.h; the newer ones from R580 on.
const DOUBLE_BIT_ECC: u64 = 0x2;
const XID: u64 = 0x8;
const RETIREMENT_FAILED: u64 = 0x800;
const FATAL_POISON: u64 = 0x2000;
const GPU_UNAVAILABLE: u64 = 0x4000;
const WATCHED: u64 = DOUBLE_BIT_ECC | XID | RETIREMENT_FAILED | FATAL_POISON | GPU_UNAVAILABLE;

/// How often a watcher that hears nothing looks whether it is still wanted.
const BREATH_MILLISECONDS: u32 = 1000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuEvent {
    pub gpu: PciAddress,
    /// Where MIG is on: the instance that it is about, if it is about one.
    pub gpu_instance: Option<u32>,
    pub kind: GpuEventKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuEventKind {
    /// By NVIDIA's number.
    Xid(u64),
    /// ECC could not correct it, and the memory was not set aside.
    Memory,
    /// The GPU does not answer any more.
    Lost,
}

impl GpuEvent {
    /// What it says of the GPU; `None`: that a program on it went wrong, the GPU itself did not.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        match self.kind {
            GpuEventKind::Xid(number) if is_of_a_program(number) => None,
            // Whoever has one instance of a GPU must not be able to close it for the others.
            GpuEventKind::Xid(number) if self.gpu_instance.is_some() && !is_of_all(number) => None,
            // 79 is how the driver says it before the library does.
            GpuEventKind::Xid(79) | GpuEventKind::Lost => {
                Some(Fault::new(faults::FELL_OFF_THE_BUS, "the GPU does not answer any more"))
            }
            GpuEventKind::Xid(number) => {
                Some(Fault::new(faults::XID_ERROR, format!("the driver reported Xid {number}")))
            }
            GpuEventKind::Memory => {
                Some(Fault::new(faults::ECC_UNCORRECTED, "a memory error that ECC could not correct"))
            }
        }
    }
}

/// Xids that a faulty or killed program, or a guest's own driver, causes on a sound GPU: 8 one that does not end, 13 and 69 an
/// exception in a kernel, 31 a page fault, 32 a corrupt list of commands, 43 and 45 a channel that was stopped, 68 a fault of a
/// video program, 109 a context switch that took too long. And 94, bad memory that cost one program its life: the row that is
/// to be replaced is seen by every look.
fn is_of_a_program(xid: u64) -> bool {
    matches!(xid, 8 | 13 | 31 | 32 | 43 | 45 | 68 | 69 | 94 | 109)
}

/// Xids after which the whole GPU is in doubt, whichever instance met them: 48 and 140 memory beyond ECC, 62 and 119 and 120
/// its own processors, 64 a row that could not be replaced, 74 NVLink, 79 off the bus, 95 memory that was not contained.
fn is_of_all(xid: u64) -> bool {
    matches!(xid, 48 | 62 | 64 | 74 | 79 | 95 | 119 | 120 | 140)
}

/// Calls `tell` with every event of every GPU of the driver, and with `None` about once a second, until it breaks.
///
/// Ends with an error when the library does; a GPU that was lost is told before that. Keeps a session open all the while, so
/// mode changes are refused meanwhile: run it in a child, and end that before one.
pub fn watch_events(
    library: Option<&Path>,
    mut tell: impl FnMut(Option<GpuEvent>) -> ControlFlow<()>,
) -> Result<(), NvmlError> {
    let nvml = Nvml::open(library)?;
    let set = nvml.inner.create_event_set().map_err(|error| NvmlError::wrapped("nvmlEventSetCreate", error))?;
    let mut watched: Vec<(nvmlDevice_t, PciAddress)> = Vec::new();
    for gpu in nvml.gpus()? {
        let Ok(gpu) = gpu else { continue };
        let registered = nvml.device(gpu).and_then(|device| {
            // SAFETY: a live device and a live set of this session, which outlives both.
            let (handle, set) = unsafe { (device.handle(), set.handle()) };
            let types = types(&nvml, &device)?;
            if types != 0 {
                // SAFETY: as above.
                unsafe { call!(nvml, nvmlDeviceRegisterEvents(handle, types, set)) }?;
                watched.push((handle, gpu));
            }
            Ok(())
        });
        match registered {
            Err(error) if error.code() == Some(code::GPU_IS_LOST) => {
                if tell(Some(lost(gpu))).is_break() {
                    return Ok(());
                }
            }
            other => other?,
        }
    }
    loop {
        // SAFETY: a live set of this session.
        let event = match wait(&nvml, unsafe { set.handle() }) {
            Ok(None) => None,
            Ok(Some(data)) => event(&watched, &data),
            Err(error) if error.code() == Some(code::GPU_IS_LOST) => {
                // It does not say which.
                for (_, gpu) in &watched {
                    if is_lost(&nvml, *gpu) && tell(Some(lost(*gpu))).is_break() {
                        return Ok(());
                    }
                }
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        if tell(event).is_break() {
            return Ok(());
        }
    }
}

/// Those of the events that are watched which this GPU has.
fn types(nvml: &Nvml, device: &Device<'_>) -> Result<u64, NvmlError> {
    let mut supported = 0;
    // SAFETY: a live device of this session; the number outlives the call.
    let told = unsafe { call!(nvml, nvmlDeviceGetSupportedEventTypes(device.handle(), &raw mut supported)) };
    Ok(if_supported(told)?.map_or(0, |()| supported) & WATCHED)
}

fn wait(nvml: &Nvml, set: nvmlEventSet_t) -> Result<Option<nvmlEventData_t>, NvmlError> {
    let mut data = nvmlEventData_t {
        device: ptr::null_mut(),
        eventType: 0,
        eventData: 0,
        gpuInstanceId: u32::MAX,
        computeInstanceId: u32::MAX,
    };
    // SAFETY: a live set of the session; the library fills a structure of the type it asks for.
    match unsafe { call!(nvml, nvmlEventSetWait_v2(set, &raw mut data, BREATH_MILLISECONDS)) } {
        Ok(()) => Ok(Some(data)),
        Err(error) if error.code() == Some(code::TIMEOUT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn event(watched: &[(nvmlDevice_t, PciAddress)], data: &nvmlEventData_t) -> Option<GpuEvent> {
    let (_, gpu) = watched.iter().find(|(handle, _)| *handle == data.device)?;
    let kind = match data.eventType {
        XID => GpuEventKind::Xid(data.eventData),
        GPU_UNAVAILABLE => GpuEventKind::Lost,
        _ => GpuEventKind::Memory,
    };
    let gpu_instance = (data.gpuInstanceId != u32::MAX).then_some(data.gpuInstanceId);
    Some(GpuEvent { gpu: *gpu, gpu_instance, kind })
}

fn lost(gpu: PciAddress) -> GpuEvent {
    GpuEvent { gpu, gpu_instance: None, kind: GpuEventKind::Lost }
}

fn is_lost(nvml: &Nvml, gpu: PciAddress) -> bool {
    let answer = nvml
        .device(gpu)
        .and_then(|device| device.uuid().map(|_| ()).map_err(|error| NvmlError::wrapped("nvmlDeviceGetUUID", error)));
    answer.is_err_and(|error| error.code() == Some(code::GPU_IS_LOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_gpu_itself_did_is_a_fault() {
        let gpu = "0000:41:00.0".parse().unwrap();
        let fault = |kind| GpuEvent { gpu, gpu_instance: None, kind }.fault().map(|fault| fault.reason);
        assert_eq!(fault(GpuEventKind::Xid(31)), None, "a guest's program read a wrong address");
        assert_eq!(fault(GpuEventKind::Xid(48)).as_deref(), Some("XidError"));
        assert_eq!(fault(GpuEventKind::Xid(79)).as_deref(), Some("FellOffTheBus"));
        assert_eq!(fault(GpuEventKind::Lost).as_deref(), Some("FellOffTheBus"));
        assert_eq!(fault(GpuEventKind::Memory).as_deref(), Some("EccUncorrected"));
        let of_a_slice = |xid| GpuEvent { gpu, gpu_instance: Some(3), kind: GpuEventKind::Xid(xid) }.fault().is_some();
        assert_eq!(
            [94, 110, 48, 79].map(of_a_slice),
            [false, false, true, true],
            "its tenant closes it for nobody else"
        );
        assert!(fault(GpuEventKind::Xid(110)).is_some(), "a GPU that is nobody's slice");
    }

    #[test]
    fn without_a_library_nothing_is_watched() {
        let missing = Path::new("/nonexistent/libnvidia-ml.so.1");
        let ended = watch_events(Some(missing), |_| panic!("told of nothing"));
        assert!(matches!(ended, Err(NvmlError::NoLibrary { .. })));
    }
}
