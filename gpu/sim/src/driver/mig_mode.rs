//! MIG mode of one GPU: what is asked for, and what is true of it yet.

use crate::boards::Architecture;
use crate::driver::Return;
use crate::state::{Flavour, GpuState};

/// What `nvmlDeviceSetMigMode` says beside its return code: the code says "accepted", this says whether it is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Effective,
    /// Pending until whoever uses the GPU is gone and the mode is set once more, or the GPU is reset.
    InUse,
    /// Pending until the guest that was given the board is started again.
    ResetRequired,
}

/// `others`: clients of this GPU beside the caller, from [`crate::clients::of`].
pub fn set_mig_mode(gpu: &mut GpuState, flavour: Flavour, on: bool, others: usize) -> Result<Activation, Return> {
    if gpu.shape().mig.is_none() {
        return Err(Return::NotSupported);
    }
    gpu.mig.pending = on;
    if gpu.mig.current == on {
        return Ok(Activation::Effective);
    }
    // Refused in both directions: `-mig 0` with functions is measured, `-mig 1` follows from what the mode change must unbind.
    if others > 0 || !gpu.virtual_functions.is_empty() || !gpu.instances.is_empty() {
        return Ok(Activation::InUse);
    }
    if flavour == Flavour::Guest && gpu.shape().architecture <= Architecture::Ampere {
        return Ok(Activation::ResetRequired);
    }
    gpu.mig.current = on;
    Ok(Activation::Effective)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boards::{A100_SXM_80GB, Board, H100_SXM_80GB, L40S_48GB};
    use crate::driver::{create_gpu_instance, destroy_gpu_instance, reboot, reset, sriov_disabled, sriov_enabled};
    use crate::state::{MigMode, Nvidia};

    fn gpu(board: &Board) -> GpuState {
        GpuState::new(board, "0000:41:00.0".parse().unwrap(), 0)
    }

    const ON: MigMode = MigMode { current: true, pending: true };
    const WAITING: MigMode = MigMode { current: false, pending: true };

    #[test]
    fn a_mode_that_somebody_prevents_is_pending() {
        let mut h100 = gpu(&H100_SXM_80GB);
        let host = Flavour::Datacenter;
        assert_eq!(set_mig_mode(&mut h100, host, true, 1), Ok(Activation::InUse));
        assert_eq!(h100.mig, WAITING);
        assert_eq!(set_mig_mode(&mut h100, host, true, 0), Ok(Activation::Effective));
        assert_eq!(h100.mig, ON);

        let id = create_gpu_instance(&mut h100, 19, None).unwrap();
        assert_eq!(set_mig_mode(&mut h100, host, false, 0), Ok(Activation::InUse));
        assert_eq!(h100.mig, MigMode { current: true, pending: false });
        destroy_gpu_instance(&mut h100, id).unwrap();
        sriov_enabled(&mut h100, &["0000:41:00.2".parse().unwrap()]);
        assert_eq!(set_mig_mode(&mut h100, host, false, 0), Ok(Activation::InUse), "functions are on");
        sriov_disabled(&mut h100);
        assert_eq!(set_mig_mode(&mut h100, host, false, 0), Ok(Activation::Effective));
        assert_eq!(h100.mig, MigMode::default());
    }

    #[test]
    fn a_board_without_mig_says_so() {
        let mut l40s = gpu(&L40S_48GB);
        assert_eq!(set_mig_mode(&mut l40s, Flavour::Datacenter, true, 0), Err(Return::NotSupported));
        assert_eq!(l40s.mig, MigMode::default());
    }

    #[test]
    fn ampere_in_a_guest_waits_for_a_reset() {
        let mut a100 = gpu(&A100_SXM_80GB);
        assert_eq!(set_mig_mode(&mut a100, Flavour::Guest, true, 0), Ok(Activation::ResetRequired));
        assert_eq!(a100.mig, WAITING);
        reset(&mut a100);
        assert_eq!(a100.mig, ON);
        assert_eq!(set_mig_mode(&mut gpu(&H100_SXM_80GB), Flavour::Guest, true, 0), Ok(Activation::Effective));
    }

    #[test]
    fn ampere_remembers_its_mode_over_a_reboot_and_hopper_forgets() {
        let mut host = Nvidia::new(Flavour::Datacenter);
        host.gpus = vec![gpu(&A100_SXM_80GB), gpu(&H100_SXM_80GB)];
        for gpu in &mut host.gpus {
            set_mig_mode(gpu, Flavour::Datacenter, true, 0).unwrap();
            create_gpu_instance(gpu, 9, None).unwrap();
        }
        reboot(&mut host);
        assert_eq!((host.gpus[0].mig, host.gpus[1].mig), (ON, MigMode::default()));
        assert!(host.gpus.iter().all(|gpu| gpu.instances.is_empty()));
    }
}
