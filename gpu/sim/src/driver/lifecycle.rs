//! What comes and goes with the driver: binding, `sriov-manage`, reset, reboot.

use croft_gpu::pci::PciAddress;

use crate::boards::Architecture;
use crate::state::{Ecc, GpuState, Nvidia, VfState};

/// The nvidia driver has taken the function.
pub fn bound(gpu: &mut GpuState) {
    gpu.driver_loaded = true;
    gpu.unbind_locked = false;
    gpu.ecc = Ecc { volatile_corrected: 0, volatile_uncorrected: 0, ..gpu.ecc };
}

/// The nvidia driver has let go of the function: what it had made of the GPU is gone. Whether that was allowed, the kernel
/// does not ask.
pub fn unbound(gpu: &mut GpuState) {
    wipe(gpu);
    gpu.virtual_functions.clear();
    gpu.persistence = false;
    gpu.driver_loaded = false;
    gpu.unbind_locked = false;
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
    let board = gpu.address;
    gpu.virtual_functions.retain(|function| function.address != board);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boards::H100_SXM_80GB;
    use crate::driver::{activate_partition, create_gpu_instance, raise, set_mig_mode, tray};
    use crate::state::{EventKind, FabricManager, Flavour};

    fn carved() -> GpuState {
        let mut gpu = GpuState::new(&H100_SXM_80GB, "0000:41:00.0".parse().unwrap(), 0);
        set_mig_mode(&mut gpu, Flavour::VgpuVendor, true, 0).unwrap();
        sriov_enabled(&mut gpu, &["0000:41:00.2".parse().unwrap()]);
        create_gpu_instance(&mut gpu, 9, None).unwrap();
        gpu.persistence = true;
        gpu
    }

    #[test]
    fn what_the_driver_made_goes_with_it_and_the_mode_stays() {
        let mut gpu = carved();
        unbound(&mut gpu);
        assert!(gpu.instances.is_empty() && gpu.virtual_functions.is_empty() && !gpu.persistence && !gpu.driver_loaded);
        bound(&mut gpu);
        assert!(gpu.driver_loaded && gpu.mig.current);
    }

    #[test]
    fn a_guests_reset_leaves_hopper_without_its_mode() {
        let mut gpu = carved();
        reset(&mut gpu);
        assert!(gpu.mig.current && gpu.instances.is_empty(), "with the driver on it, which knows the mode");
        unbound(&mut gpu);
        reset(&mut gpu);
        assert!(!gpu.mig.current && !gpu.mig.pending);
    }

    #[test]
    fn after_a_reboot_nothing_is_left_but_what_boards_remember() {
        let mut host = Nvidia::new(Flavour::VgpuVendor);
        let gpu = carved();
        let address = gpu.address;
        host.fabric = Some(tray(FabricManager::SharedNvswitch, &[address]));
        host.gpus.push(gpu);
        activate_partition(&mut host, 0).unwrap();
        raise(&mut host, address, EventKind::EccDoubleBit);
        reboot(&mut host);
        let mut fresh = GpuState::new(&H100_SXM_80GB, address, 0);
        fresh.ecc.aggregate_uncorrected = 1;
        fresh.ecc.remapped_rows_uncorrected = 1;
        assert_eq!(host.gpus, [fresh]);
        assert!(host.events.is_empty() && host.fabric.unwrap().partitions.iter().all(|partition| !partition.active));
    }
}
