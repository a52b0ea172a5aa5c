//! Why there is no plan. Each names the culprit and says what would help.

use serde::{Deserialize, Serialize};

use crate::pci::PciAddress;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}; {fix}")]
pub struct Refusal {
    pub reason: Reason,
    /// The device that was asked for.
    pub device: String,
    /// What stands in the way, with its name: the peer, its driver, the process, the owner.
    pub message: String,
    pub fix: String,
}

/// A word of a refusal: so it is written in JSON, in a condition's reason, and in the name of its page in docs/errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// No such device now, or an error where it was.
    DeviceNotSeen,
    /// The device is of a kind that this cannot be wished of: a bridge, a hub, a virtual function of NVIDIA's on vfio-pci.
    DeviceUnsuitable,
    NoIommuGroup,
    /// A companion of the group can not be given along: a bridge is no obstacle, a disk controller in use is.
    IommuGroupShared,
    /// A process has it open.
    DeviceHeldOpen,
    /// Another instance's, by the journal.
    DeviceOwned,
    /// On another driver than the wish needs, or on none.
    DriverUnsuitable,
    SriovUnsupported,
    TooManyVirtualFunctions,
    /// Functions cannot be made or taken away beside some that are in use.
    VirtualFunctionsInUse,
    /// The GPU is set up for something else, and somebody uses it as that.
    GpuModeInUse,
    /// The GPU is set up for something else, and nobody uses it: change its mode first.
    GpuModeWrong,
    /// What the GPU is set up for cannot be told.
    GpuModeUnknown,
    GpuUnhealthy,
    NotMigCapable,
    MigPending,
    UnknownProfile,
    /// The profile starts nowhere there.
    UnknownPlacement,
    PlacementTaken,
    /// Another instance of the same profile is free, and the driver might put the vGPU on that one.
    GpuInstanceAmbiguous,
    UnknownVgpuType,
    /// The type does not go with the GPU instance, or needs one, or needs none.
    VgpuTypeMismatch,
    VgpuTypeNotCreatable,
    /// The function carries another vGPU.
    VgpuFunctionTaken,
    VgpuFrameworkMissing,
    MdevUuidInvalid,
    MdevUuidTaken,
    FabricManagerUnavailable,
    FabricPartitionUnknown,
    /// The partition shares a GPU with one that is active.
    FabricPartitionOverlap,
    /// No USB device is what was selected.
    UsbNotFound,
    /// Several are.
    UsbAmbiguous,
}

impl Reason {
    /// Every one, for the test that each has its page.
    pub const ALL: &[Reason] = &[
        Reason::DeviceNotSeen,
        Reason::DeviceUnsuitable,
        Reason::NoIommuGroup,
        Reason::IommuGroupShared,
        Reason::DeviceHeldOpen,
        Reason::DeviceOwned,
        Reason::DriverUnsuitable,
        Reason::SriovUnsupported,
        Reason::TooManyVirtualFunctions,
        Reason::VirtualFunctionsInUse,
        Reason::GpuModeInUse,
        Reason::GpuModeWrong,
        Reason::GpuModeUnknown,
        Reason::GpuUnhealthy,
        Reason::NotMigCapable,
        Reason::MigPending,
        Reason::UnknownProfile,
        Reason::UnknownPlacement,
        Reason::PlacementTaken,
        Reason::GpuInstanceAmbiguous,
        Reason::UnknownVgpuType,
        Reason::VgpuTypeMismatch,
        Reason::VgpuTypeNotCreatable,
        Reason::VgpuFunctionTaken,
        Reason::VgpuFrameworkMissing,
        Reason::MdevUuidInvalid,
        Reason::MdevUuidTaken,
        Reason::FabricManagerUnavailable,
        Reason::FabricPartitionUnknown,
        Reason::FabricPartitionOverlap,
        Reason::UsbNotFound,
        Reason::UsbAmbiguous,
    ];

    /// As serde writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Reason::DeviceNotSeen => "DeviceNotSeen",
            Reason::DeviceUnsuitable => "DeviceUnsuitable",
            Reason::NoIommuGroup => "NoIommuGroup",
            Reason::IommuGroupShared => "IommuGroupShared",
            Reason::DeviceHeldOpen => "DeviceHeldOpen",
            Reason::DeviceOwned => "DeviceOwned",
            Reason::DriverUnsuitable => "DriverUnsuitable",
            Reason::SriovUnsupported => "SriovUnsupported",
            Reason::TooManyVirtualFunctions => "TooManyVirtualFunctions",
            Reason::VirtualFunctionsInUse => "VirtualFunctionsInUse",
            Reason::GpuModeInUse => "GpuModeInUse",
            Reason::GpuModeWrong => "GpuModeWrong",
            Reason::GpuModeUnknown => "GpuModeUnknown",
            Reason::GpuUnhealthy => "GpuUnhealthy",
            Reason::NotMigCapable => "NotMigCapable",
            Reason::MigPending => "MigPending",
            Reason::UnknownProfile => "UnknownProfile",
            Reason::UnknownPlacement => "UnknownPlacement",
            Reason::PlacementTaken => "PlacementTaken",
            Reason::GpuInstanceAmbiguous => "GpuInstanceAmbiguous",
            Reason::UnknownVgpuType => "UnknownVgpuType",
            Reason::VgpuTypeMismatch => "VgpuTypeMismatch",
            Reason::VgpuTypeNotCreatable => "VgpuTypeNotCreatable",
            Reason::VgpuFunctionTaken => "VgpuFunctionTaken",
            Reason::VgpuFrameworkMissing => "VgpuFrameworkMissing",
            Reason::MdevUuidInvalid => "MdevUuidInvalid",
            Reason::MdevUuidTaken => "MdevUuidTaken",
            Reason::FabricManagerUnavailable => "FabricManagerUnavailable",
            Reason::FabricPartitionUnknown => "FabricPartitionUnknown",
            Reason::FabricPartitionOverlap => "FabricPartitionOverlap",
            Reason::UsbNotFound => "UsbNotFound",
            Reason::UsbAmbiguous => "UsbAmbiguous",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

impl Refusal {
    pub(crate) fn new(
        reason: Reason,
        device: impl std::fmt::Display,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Refusal {
        Refusal { reason, device: device.to_string(), message: message.into(), fix: fix.into() }
    }

    pub(crate) fn not_seen(address: PciAddress) -> Refusal {
        let message = format!("{address} was not seen in the last look at this host");
        Refusal::new(Reason::DeviceNotSeen, address, message, "check the slot, and the host's probe errors")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_reason_has_its_page() {
        let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors");
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.to_string());
            let page = std::fs::read_to_string(pages.join(format!("{reason}.md"))).unwrap_or_default();
            assert!(
                page.starts_with(&format!("# {reason}\n")),
                "docs/errors/{reason}.md is missing, or has another title"
            );
            for part in ["**What it means.**", "**What to do.**"] {
                assert!(page.contains(part), "docs/errors/{reason}.md lacks {part}");
            }
        }
    }

    #[test]
    fn every_reason_is_listed() {
        // As many words as the enum has variants; serde names them all when it meets one it does not know.
        let error = serde_json::from_str::<Reason>("\"Other\"").unwrap_err().to_string();
        assert_eq!(error.matches('`').count() / 2 - 1, Reason::ALL.len(), "{error}");
    }
}
