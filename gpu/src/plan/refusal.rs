//! Why there is no plan. Each names the culprit and says what would help.

use serde::{Deserialize, Serialize};

use crate::pci::PciAddress;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}; {fix}")]
pub struct Refusal {
    /// UpperCamelCase; has a page in docs/errors.
    pub reason: Reason,
    /// The device that was asked for.
    pub device: String,
    /// What stands in the way, with its name: the peer, its driver, the process, the owner.
    pub message: String,
    pub fix: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// No such device now, or only an error where it was.
    DeviceNotSeen,
    NoIommuGroup,
    /// A companion of the group can not be given along: a bridge is no obstacle, a disk controller in use is.
    IommuGroupShared,
    /// A process has it open.
    DeviceHeldOpen,
    /// Another instance's, by the journal.
    DeviceOwned,
    DriverUnknown,
    SriovUnsupported,
    TooManyVirtualFunctions,
    /// Functions cannot be made or taken away beside some that are in use.
    VirtualFunctionsInUse,
    /// The GPU is set up for something else, and somebody uses it as that.
    GpuModeInUse,
    GpuModeUnknown,
    NotMigCapable,
    MigPending,
    UnknownProfile,
    PlacementTaken,
    UnknownVgpuType,
    VgpuTypeNotCreatable,
    VgpuFrameworkMissing,
    FabricManagerUnavailable,
    FabricPartitionUnknown,
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
