//! What comes and goes with the driver: binding, `sriov-manage`, reset, reboot.

use croft_gpu::pci::PciAddress;

use crate::boards::Architecture;
use crate::state::{Ecc, GpuState, Nvidia, VfState};

/// The nvidia driver has taken the function.
pub fn bound(gpu: &mut GpuState) {
    gpu.driver_loaded = true;
    gpu.ecc = Ecc { volatile_corrected: 0, volatile_uncorrected: 0, ..gpu.ecc };
}

/// The nvidia driver has let go of the function: what it had made of the GPU is gone. Whether that was allowed, the kernel
/// does not ask.
pub fn unbound(gpu: &mut GpuState) {
    wipe(gpu);
    gpu.virtual_functions.clear();
    gpu.persistence = false;
    gpu.driver_loaded = false;
}

/// `sriov-manage -e` has made these functions. It rebinds the driver on the way, which wipes every GPU instance and the
/// heterogeneous flag; MIG mode survives (measured on an RTX PRO 6000 with the vGPU host driver).
pub fn sriov_enabled(gpu: &mut GpuState, functions: &[PciAddress]) {
    wipe(gpu);
    let function = |&address| VfState { address, vgpu_type: 0, owner_gi: None };
    gpu.virtual_functions = functions.iter().map(function).collect();
}

/// `sriov-manage -d` has taken them away; wipes as `-e` does.
pub fn sriov_disabled(gpu: &mut GpuState) {
    wipe(gpu);
    gpu.virtual_functions.clear();
}

/// The function was reset. What waited for it comes true; GPU instances do not outlive it. From Hopper on MIG mode is
/// nothing that a board remembers: it lives in the driver.
pub fn reset(gpu: &mut GpuState) {
    wipe(gpu);
    gpu.mig.current = gpu.mig.pending;
    if !gpu.driver_loaded {
        forget_mig_mode(gpu);
    }
    gpu.ecc.remap_pending = false;
    gpu.lost = false;
}

/// The machine was started again, and the driver has taken every board anew.
pub fn reboot(nvidia: &mut Nvidia) {
    nvidia.events.clear();
    for gpu in &mut nvidia.gpus {
        unbound(gpu);
        gpu.mig.current = gpu.mig.pending;
        forget_mig_mode(gpu);
        gpu.ecc.remap_pending = false;
        gpu.lost = false;
        bound(gpu);
    }
    for partition in nvidia.fabric.iter_mut().flat_map(|fabric| &mut fabric.partitions) {
        partition.active = false;
    }
}

fn wipe(gpu: &mut GpuState) {
    gpu.instances.clear();
    gpu.heterogeneous = false;
    for function in &mut gpu.virtual_functions {
        (function.vgpu_type, function.owner_gi) = (0, None);
    }
}

/// Ampere keeps the mode in its InfoROM; later boards do not.
fn forget_mig_mode(gpu: &mut GpuState) {
    if gpu.shape().architecture > Architecture::Ampere {
        gpu.mig.current = false;
        gpu.mig.pending = false;
    }
}
