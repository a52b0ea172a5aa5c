//! Everything that was captured from real boards, asked of simulated ones, field by field.
#![expect(unsafe_code, reason = "the raw functions of NVML are what is compared")]

use std::ffi::c_char;
use std::mem::zeroed;

use croft_gpu_sim::boards::{Board, H100_SXM_80GB, H200_SXM_141GB};
use croft_gpu_sim::state::Flavour;
use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::*;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::{host, on_host};

pub const H100: &str = include_str!("../data/h100.json");
pub const H200: &str = include_str!("../data/h200.json");

/// The guest that the capture was made in.
pub fn guest(board: &Board, captured: &str) -> TempDir {
    let captured: Value = serde_json::from_str(captured).unwrap();
    host(Flavour::Guest, &[board], |state| {
        let gpu = &mut state.gpus[0];
        gpu.uuid = captured["UUID"].as_str().unwrap().to_owned();
        gpu.serial = captured["Serial"].as_str().unwrap().to_owned();
        gpu.persistence = true;
    })
}

/// Every difference, by name. Keys of one side alone are differences.
pub fn differences(captured: &str, told: &Value) -> Vec<String> {
    let captured: Value = serde_json::from_str(captured).unwrap();
    let mut found = Vec::new();
    compare("", &captured, told, &mut found);
    found
}

fn compare(path: &str, real: &Value, simulated: &Value, found: &mut Vec<String>) {
    match (real, simulated) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let side = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or(json!("(missing)"));
                compare(&format!("{path}/{key}"), &side(a), &side(b), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().for_each(|(at, (a, b))| compare(&format!("{path}/{at}"), a, b, found));
        }
        _ if real == simulated => {}
        _ => found.push(format!("{path}: real {real}, simulated {simulated}")),
    }
}

#[test]
fn a_simulated_h100_tells_what_a_real_one_told() {
    let test = "captured::a_simulated_h100_tells_what_a_real_one_told";
    on_host(
        test,
        || guest(&H100_SXM_80GB, H100),
        |_, nvml| {
            assert_eq!(differences(H100, &capture(nvml)), Vec::<String>::new());
        },
    );
}

#[test]
fn a_simulated_h200_tells_what_a_real_one_told() {
    let test = "captured::a_simulated_h200_tells_what_a_real_one_told";
    on_host(
        test,
        || guest(&H200_SXM_141GB, H200),
        |_, nvml| {
            assert_eq!(differences(H200, &capture(nvml)), Vec::<String>::new());
            assert!(!differences(H100, &capture(nvml)).is_empty(), "the comparison sees nothing");
        },
    );
}

/// A function by its name; all of them are there.
macro_rules! f {
    ($nvml:expr, $name:ident) => {
        *$nvml.lib().$name.as_ref().unwrap_or_else(|_| panic!("{} is not exported", stringify!($name)))
    };
}

fn version<T>(number: u32) -> u32 {
    u32::try_from(size_of::<T>()).unwrap() | number << 24
}

/// What `tests/capture.py` does, through nvml-wrapper's raw functions.
fn capture(nvml: &Nvml) -> Value {
    let mut all = json!({ "init": 0, "IsMigDeviceHandle": "absent" });
    let text = |f: &dyn Fn(*mut c_char, u32) -> u32| {
        let mut room = [0; 96];
        match f(room.as_mut_ptr(), 96) {
            0 => json!(string(&room)),
            code => json!(code),
        }
    };
    // SAFETY: every pointer is to a live local of the type that nvml.h names, here and below.
    unsafe {
        all["driver"] = text(&|room, size| f!(nvml, nvmlSystemGetDriverVersion)(room, size));
        all["nvml"] = text(&|room, size| f!(nvml, nvmlSystemGetNVMLVersion)(room, size));
        let mut count = 0;
        f!(nvml, nvmlDeviceGetCount_v2)(&raw mut count);
        all["count"] = json!(count);
        let mut device: nvmlDevice_t = std::ptr::null_mut();
        all["handle"] = json!(f!(nvml, nvmlDeviceGetHandleByIndex_v2)(0, &raw mut device));
        macro_rules! texts {
            ($($key:literal $name:ident)*) => {
                $(all[$key] = text(&|room, size| f!(nvml, $name)(device, room, size));)*
            };
        }
        texts! {
            "Name" nvmlDeviceGetName "UUID" nvmlDeviceGetUUID "Serial" nvmlDeviceGetSerial
            "BoardPartNumber" nvmlDeviceGetBoardPartNumber "VbiosVersion" nvmlDeviceGetVbiosVersion
            "InforomImageVersion" nvmlDeviceGetInforomImageVersion
        }
        macro_rules! numbers {
            ($($key:literal $name:ident)*) => {
                $({
                    let mut value = 0;
                    let code = f!(nvml, $name)(device, &raw mut value);
                    all[$key] = if code == 0 { json!(value) } else { json!(format!("err {code}")) };
                })*
            };
        }
        numbers! {
            "MinorNumber" nvmlDeviceGetMinorNumber "Architecture" nvmlDeviceGetArchitecture
            "MultiGpuBoard" nvmlDeviceGetMultiGpuBoard "BoardId" nvmlDeviceGetBoardId
            "CurrPcieLinkGeneration" nvmlDeviceGetCurrPcieLinkGeneration "CurrPcieLinkWidth" nvmlDeviceGetCurrPcieLinkWidth
            "MaxPcieLinkGeneration" nvmlDeviceGetMaxPcieLinkGeneration "MaxPcieLinkWidth" nvmlDeviceGetMaxPcieLinkWidth
            "GpuMaxPcieLinkGeneration" nvmlDeviceGetGpuMaxPcieLinkGeneration "PersistenceMode" nvmlDeviceGetPersistenceMode
            "ComputeMode" nvmlDeviceGetComputeMode "VirtualizationMode" nvmlDeviceGetVirtualizationMode
            "HostVgpuMode" nvmlDeviceGetHostVgpuMode "MaxMigDeviceCount" nvmlDeviceGetMaxMigDeviceCount
            "NumGpuCores" nvmlDeviceGetNumGpuCores "MemoryBusWidth" nvmlDeviceGetMemoryBusWidth
            "NumaNodeId" nvmlDeviceGetNumaNodeId "BusType" nvmlDeviceGetBusType "IrqNum" nvmlDeviceGetIrqNum
        }
        let (mut a, mut b) = (0, 0);
        let code = f!(nvml, nvmlDeviceGetMigMode)(device, &raw mut a, &raw mut b);
        all["MigMode"] = json!([code, a, b]);
        let code = f!(nvml, nvmlDeviceGetEccMode)(device, &raw mut a, &raw mut b);
        all["EccMode"] = json!([code, a, b]);
        let mut memory = nvmlMemory_v2_t { version: version::<nvmlMemory_v2_t>(2), ..zeroed() };
        let code = f!(nvml, nvmlDeviceGetMemoryInfo_v2)(device, &raw mut memory);
        all["Memory_v2"] = json!([code, memory.total, memory.reserved, memory.free, memory.used]);
        all["gpu_instance_profiles"] = (0..0x14).map(|number| profile(nvml, device, number)).collect();
        macro_rules! lists {
            ($($name:ident)*) => {
                $({
                    let mut count = 0;
                    let code = f!(nvml, $name)(device, &raw mut count, std::ptr::null_mut());
                    all[stringify!($name)] = json!([code, count]);
                })*
            };
        }
        lists! { nvmlDeviceGetSupportedVgpus nvmlDeviceGetCreatableVgpus nvmlDeviceGetActiveVgpus }
        for capability in 0..14 {
            let mut result = 0;
            let code = f!(nvml, nvmlDeviceGetVgpuCapabilities)(device, capability, &raw mut result);
            all[format!("vgpu_capability_{capability}")] = json!([code, result]);
        }
        let mut types = 0;
        let code = f!(nvml, nvmlDeviceGetSupportedEventTypes)(device, &raw mut types);
        all["SupportedEventTypes"] = json!([code, types]);
        for number in [2, 3] {
            let mut info = nvmlGpuFabricInfoV_t { version: version::<nvmlGpuFabricInfoV_t>(number), ..zeroed() };
            let code = f!(nvml, nvmlDeviceGetGpuFabricInfoV)(device, &raw mut info);
            let uuid: String = info.clusterUuid.iter().map(|byte| format!("{byte:02x}")).collect();
            all[format!("fabric_v{number}")] =
                json!([code, uuid, info.status, info.cliqueId, info.state, info.healthMask, info.healthSummary]);
        }
        for link in 0..18 {
            let mut active = 0;
            let code = f!(nvml, nvmlDeviceGetNvLinkState)(device, link, &raw mut active);
            all[format!("nvlink_{link}")] = json!([code, active]);
        }
    }
    all
}

/// One row of the profile enumeration, in all three versions.
unsafe fn profile(nvml: &Nvml, device: nvmlDevice_t, number: u32) -> Value {
    let mut row = json!({ "enum": number, "v1": null, "v2": null, "v3": null });
    macro_rules! fields {
        ($info:expr, $($name:ident)*) => { json!({ $(stringify!($name): $info.$name),* }) };
    }
    // SAFETY: the caller's device is live; structures and rooms are locals of the types that nvml.h names.
    unsafe {
        let mut v1: nvmlGpuInstanceProfileInfo_t = zeroed();
        let code = f!(nvml, nvmlDeviceGetGpuInstanceProfileInfo)(device, number, &raw mut v1);
        row["v1_rc"] = json!(code);
        let found = code == 0;
        if found {
            row["v1"] = fields!(v1, id isP2pSupported sliceCount instanceCount multiprocessorCount copyEngineCount
                decoderCount encoderCount jpegCount ofaCount memorySizeMB);
        }
        let mut v2 =
            nvmlGpuInstanceProfileInfo_v2_t { version: version::<nvmlGpuInstanceProfileInfo_v2_t>(2), ..zeroed() };
        let code = f!(nvml, nvmlDeviceGetGpuInstanceProfileInfoV)(device, number, &raw mut v2);
        row["v2_rc"] = json!(code);
        if code == 0 {
            row["v2"] = fields!(v2, version id isP2pSupported sliceCount instanceCount multiprocessorCount
                copyEngineCount decoderCount encoderCount jpegCount ofaCount memorySizeMB);
            row["v2"]["name"] = json!(string(&v2.name));
        }
        let mut v3 =
            nvmlGpuInstanceProfileInfo_v3_t { version: version::<nvmlGpuInstanceProfileInfo_v3_t>(3), ..zeroed() };
        let code = f!(nvml, nvmlDeviceGetGpuInstanceProfileInfoV)(device, number, (&raw mut v3).cast());
        row["v3_rc"] = json!(code);
        if code == 0 {
            row["v3"] = fields!(v3, version id sliceCount instanceCount multiprocessorCount copyEngineCount
                decoderCount encoderCount jpegCount ofaCount memorySizeMB capabilities);
            row["v3"]["name"] = json!(string(&v3.name));
        }
        if found {
            let placements = f!(nvml, nvmlDeviceGetGpuInstancePossiblePlacements_v2);
            let mut count = 0;
            row["placements_rc0"] = json!(placements(device, v1.id, std::ptr::null_mut(), &raw mut count));
            row["placements_count"] = json!(count);
            let mut room: [nvmlGpuInstancePlacement_t; 32] = zeroed();
            row["placements_rc"] = json!(placements(device, v1.id, room.as_mut_ptr(), &raw mut count));
            row["placements"] = room[..count as usize].iter().map(|span| json!([span.start, span.size])).collect();
            let mut remaining = 0;
            let capacity = f!(nvml, nvmlDeviceGetGpuInstanceRemainingCapacity);
            row["remaining_rc"] = json!(capacity(device, v1.id, &raw mut remaining));
            row["remaining"] = json!(remaining);
        }
    }
    row
}

fn string(room: &[c_char]) -> String {
    let bytes = room.iter().map(|byte| byte.cast_unsigned()).take_while(|byte| *byte != 0).collect();
    String::from_utf8(bytes).unwrap()
}
