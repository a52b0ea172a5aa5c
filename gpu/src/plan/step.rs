//! A step: one effect on the host, and the one that takes it back.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::gpu::Span;
use crate::pci::PciAddress;
use crate::usb::UsbPort;

/// One effect. Carries what it found, so that the undo needs no second look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// `driver_override` of a function; `None`: whoever matches by id.
    SetDriverOverride {
        address: PciAddress,
        from: Option<String>,
        to: Option<String>,
    },
    /// Off its driver. Undone by binding it again.
    Unbind {
        address: PciAddress,
        driver: String,
    },
    /// `drivers_probe` under a `driver_override` for the moment, and the `driver` link read back: the write alone proves nothing.
    Bind {
        address: PciAddress,
        driver: String,
    },
    /// Whether new virtual functions find a driver by themselves.
    SetAutoprobe {
        physical: PciAddress,
        from: bool,
        to: bool,
    },
    /// `sriov_numvfs`; one of the two is 0. May block for as long as a guest holds a function.
    SetVirtualFunctions {
        physical: PciAddress,
        from: u16,
        to: u16,
    },
    /// NVIDIA's own tool; rebinds the driver, and wipes every GPU instance and the heterogeneous flag.
    SriovManage {
        gpu: PciAddress,
        enable: bool,
    },
    SetPersistence {
        gpu: PciAddress,
        from: bool,
        to: bool,
    },
    SetMigMode {
        gpu: PciAddress,
        from: bool,
        to: bool,
    },
    /// With its one compute instance over the whole of it.
    CreateGpuInstance {
        gpu: PciAddress,
        profile: String,
        placement: Span,
    },
    DestroyGpuInstance {
        gpu: PciAddress,
        profile: String,
        placement: Span,
    },
    CreateMdev {
        parent: String,
        type_id: String,
        uuid: String,
    },
    RemoveMdev {
        parent: String,
        type_id: String,
        uuid: String,
    },
    /// Writes the id that `type_name` has on this very card now; the list is read again just before. `placement`: of the GPU
    /// instance below, where it stands on one.
    SetVgpuType {
        function: PciAddress,
        type_name: String,
        #[serde(default)]
        placement: Option<Span>,
    },
    ClearVgpuType {
        function: PciAddress,
        type_name: String,
        #[serde(default)]
        placement: Option<Span>,
    },
    /// Mixed framebuffer sizes on one GPU, or in one GPU instance.
    SetHeterogeneous {
        gpu: PciAddress,
        placement: Option<Span>,
        from: bool,
        to: bool,
    },
    ActivateFabricPartition {
        id: u32,
    },
    DeactivateFabricPartition {
        id: u32,
    },
    /// By the first of `methods` that works. Has no undo and needs none.
    Reset {
        address: PciAddress,
        methods: Vec<String>,
    },
    /// The port of a USB device is reset, with what is still the same device in it. Has no undo and needs none.
    ResetUsb {
        port: UsbPort,
        vendor: u16,
        product: u16,
        serial: Option<String>,
    },
}

impl Step {
    /// What takes it back; `None`: there is nothing to take back.
    #[must_use]
    pub fn undo(&self) -> Option<Step> {
        Some(match self.clone() {
            Step::SetDriverOverride { address, from, to } => Step::SetDriverOverride { address, from: to, to: from },
            Step::Unbind { address, driver } => Step::Bind { address, driver },
            Step::Bind { address, driver } => Step::Unbind { address, driver },
            Step::SetAutoprobe { physical, from, to } => Step::SetAutoprobe { physical, from: to, to: from },
            Step::SetVirtualFunctions { physical, from, to } => {
                Step::SetVirtualFunctions { physical, from: to, to: from }
            }
            Step::SriovManage { gpu, enable } => Step::SriovManage { gpu, enable: !enable },
            Step::SetPersistence { gpu, from, to } => Step::SetPersistence { gpu, from: to, to: from },
            Step::SetMigMode { gpu, from, to } => Step::SetMigMode { gpu, from: to, to: from },
            Step::CreateGpuInstance { gpu, profile, placement } => Step::DestroyGpuInstance { gpu, profile, placement },
            Step::DestroyGpuInstance { gpu, profile, placement } => Step::CreateGpuInstance { gpu, profile, placement },
            Step::CreateMdev { parent, type_id, uuid } => Step::RemoveMdev { parent, type_id, uuid },
            Step::RemoveMdev { parent, type_id, uuid } => Step::CreateMdev { parent, type_id, uuid },
            Step::SetVgpuType { function, type_name, placement } => {
                Step::ClearVgpuType { function, type_name, placement }
            }
            Step::ClearVgpuType { function, type_name, placement } => {
                Step::SetVgpuType { function, type_name, placement }
            }
            Step::SetHeterogeneous { gpu, placement, from, to } => {
                Step::SetHeterogeneous { gpu, placement, from: to, to: from }
            }
            Step::ActivateFabricPartition { id } => Step::DeactivateFabricPartition { id },
            Step::DeactivateFabricPartition { id } => Step::ActivateFabricPartition { id },
            Step::Reset { .. } | Step::ResetUsb { .. } => return None,
        })
    }

    /// After this the step counts as stuck: its helper is killed, and the device is written to no more.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(match self {
            Step::SetDriverOverride { .. } | Step::SetAutoprobe { .. } => 5,
            Step::CreateMdev { .. } | Step::RemoveMdev { .. } => 15,
            Step::SetVgpuType { .. } | Step::ClearVgpuType { .. } | Step::SetHeterogeneous { .. } => 15,
            Step::Bind { .. } | Step::Unbind { .. } | Step::SetPersistence { .. } => 30,
            // The kernel waits a minute for a device to answer after each way of resetting it (PCIE_RESET_READY_POLL_MS).
            Step::Reset { methods, .. } => RESET + RESET_METHOD * (methods.len() as u64).min(RESET_METHODS),
            Step::ResetUsb { .. } => 30,
            Step::CreateGpuInstance { .. } | Step::DestroyGpuInstance { .. } => 30,
            Step::SetVirtualFunctions { .. } | Step::ActivateFabricPartition { .. } => 60,
            Step::DeactivateFabricPartition { .. } => 60,
            Step::SetMigMode { .. } | Step::SriovManage { .. } => 120,
        })
    }

    /// No step takes longer than this.
    pub const LONGEST: Duration = Duration::from_secs(RESET + RESET_METHOD * RESET_METHODS);
}

/// In seconds.
const RESET: u64 = 15;
const RESET_METHOD: u64 = 65;
/// As many as the kernel knows (PCI_NUM_RESET_METHODS, less the one that is none).
const RESET_METHODS: u64 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    /// A reset that is slow to fail must not be taken for one that never returns: the next method may work.
    #[test]
    fn a_reset_has_the_time_that_the_kernel_may_take_for_each_method() {
        let reset = |methods: &[&str]| Step::Reset {
            address: "0000:41:00.0".parse().unwrap(),
            methods: methods.iter().map(|&method| method.to_owned()).collect(),
        };
        for methods in [&["flr"][..], &["flr", "bus", "pm"]] {
            let longest = Duration::from_secs(60) * u32::try_from(methods.len()).unwrap();
            assert!(reset(methods).deadline() > longest + Duration::from_secs(10), "{methods:?}");
        }
    }
}
