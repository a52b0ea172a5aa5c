//! NVLink and the fabric behind NVSwitch. In a guest with one whole board there is neither: captured.

use std::ffi::c_uint;

use croft_gpu_sim::driver::{Return, fabric_partitions};
use croft_gpu_sim::state::FabricManager;
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlEnableState_t, nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfo_v3_t, nvmlGpuFabricInfoV_t,
};

use crate::c::export;
use crate::call::View;

/// Links of a Hopper or Blackwell board; older ones have fewer, which is unverified here.
const LINKS: u32 = 18;

export! {
    fn nvmlDeviceGetNvLinkState(device: nvmlDevice_t, link: c_uint, active: *mut nvmlEnableState_t) |call| {
        let gpu = call.gpu(device)?;
        if link >= LINKS {
            return Err(Return::InvalidArgument.into());
        }
        match state(&gpu) {
            State::NotSupported => Err(Return::NotSupported.into()),
            State::NotStarted => Ok(active.put(0)?),
            State::Completed => Ok(active.put(1)?),
        }
    }

    fn nvmlDeviceGetGpuFabricInfoV(device: nvmlDevice_t, info: *mut nvmlGpuFabricInfoV_t) |call| {
        let state = state(&call.gpu(device)?) as u8;
        let (cluster_uuid, status, clique) = ([0; 16], 0, 0);
        if let Ok(info) = info.versioned::<nvmlGpuFabricInfo_v2_t>(2) {
            let version = info.get()?.version;
            return Ok(info.put(nvmlGpuFabricInfo_v2_t {
                version,
                clusterUuid: cluster_uuid,
                status,
                cliqueId: clique,
                state,
                healthMask: 0,
            })?);
        }
        let info = info.versioned::<nvmlGpuFabricInfo_v3_t>(3)?;
        let version = info.get()?.version;
        Ok(info.put(nvmlGpuFabricInfo_v3_t {
            version,
            clusterUuid: cluster_uuid,
            status,
            cliqueId: clique,
            state,
            healthMask: 0,
            healthSummary: 0,
        })?)
    }
}

/// NVML_GPU_FABRIC_STATE_*
#[derive(Clone, Copy)]
enum State {
    NotSupported = 0,
    NotStarted = 1,
    Completed = 3,
}

fn state(gpu: &View) -> State {
    let Some(fabric) = &gpu.host.fabric else { return State::NotSupported };
    if !gpu.shape().nvswitch {
        return State::NotSupported;
    }
    let joined = match fabric_partitions(&gpu.host) {
        Ok(partitions) => partitions.iter().any(|partition| partition.active && partition.gpus.contains(&gpu.address)),
        Err(_) => fabric.manager == FabricManager::BareMetal,
    };
    if joined { State::Completed } else { State::NotStarted }
}
