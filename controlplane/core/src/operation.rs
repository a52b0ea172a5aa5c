//! The long-running work behind a mutating call, and when it is done.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::{InstanceUid, OperationUid, TenantId};
use crate::meta::Labels;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    Create,
    Delete,
    Start,
    Stop,
    Reboot,
    Reset,
    Rebuild,
    Attach,
    Detach,
}

impl Verb {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Reboot => "reboot",
            Self::Reset => "reset",
            Self::Rebuild => "rebuild",
            Self::Attach => "attach",
            Self::Detach => "detach",
        }
    }
}

/// Why an operation failed. Stored, so plain text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A [`crate::Reason`] as text; the gRPC code follows from it.
    pub reason: String,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    pub uid: OperationUid,
    pub tenant: TenantId,
    /// Resource name.
    pub target: String,
    pub target_uid: InstanceUid,
    pub verb: Verb,
    /// The counter that the call raised (`power_generation` for create, start and stop; `reboot_generation`,
    /// `reset_generation`, `disk_generation`; the generation for attach and detach; unused for delete): done when truth has caught up with it.
    pub counter: i64,
    /// Which part of the target: the device request of an attach or detach. Empty: all of it.
    pub subject: String,
    pub actor: String,
    /// The target's, when the operation was accepted.
    pub labels: Labels,
    pub annotations: Labels,
    pub create_time: Timestamp,
    pub progress: String,
    pub done: bool,
    pub failure: Option<Failure>,
    pub end_time: Option<Timestamp>,
}

impl Operation {
    #[must_use]
    pub fn name(&self) -> String {
        format!("operations/{}", self.uid)
    }
}
