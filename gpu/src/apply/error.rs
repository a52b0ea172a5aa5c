//! What a step that went wrong says: short enough to be sent from the helper process to the agent, whole enough to act on.

use std::io;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{FsError, ProbeCause, ProbeError, chain};
use crate::nvml::{NvmlError, code};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    /// On one line, with its causes.
    pub message: String,
    /// The kernel's own word.
    pub errno: Option<i32>,
    /// NVML's own word.
    pub nvml: Option<u32>,
    /// Neither the step nor the device is to blame, and nothing of it was done: it can be tried again as it is.
    #[serde(default)]
    pub deferred: Option<Deferred>,
}

/// Why a step has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deferred {
    /// A process that an agent of before has left works on the device, and will end.
    HeldBy { pid: u32 },
    /// Whoever applies the plan was told to stop.
    Stopped,
}

impl StepError {
    pub fn new(message: impl Into<String>) -> StepError {
        StepError { message: message.into(), errno: None, nvml: None, deferred: None }
    }

    pub fn errno(message: impl Into<String>, errno: Errno) -> StepError {
        StepError { errno: Some(errno.raw_os_error()), ..StepError::new(message) }
    }

    pub(super) fn deferred(message: impl Into<String>, deferred: Deferred) -> StepError {
        StepError { deferred: Some(deferred), ..StepError::new(message) }
    }

    /// Is it such that a process with the device open explains it? Then it is worth a look who that is. Not where the host
    /// said something else: a name beside an unrelated error sends people the wrong way.
    ///
    /// EPERM is what NVIDIA's driver answers on a function that a guest has open, EIO on a type that no longer fits. An effect
    /// that did not show, or that did not come in time, has no code at all.
    #[must_use]
    pub fn suggests_a_holder(&self) -> bool {
        let errnos = [Errno::BUSY, Errno::PERM, Errno::ACCESS, Errno::AGAIN, Errno::IO, Errno::TXTBSY];
        match (self.errno, self.nvml) {
            // It says itself who it is.
            _ if self.deferred.is_some() => false,
            (Some(errno), _) => errnos.iter().any(|holder| holder.raw_os_error() == errno),
            (None, Some(nvml)) => [code::IN_USE, code::NO_PERMISSION].contains(&nvml),
            (None, None) => true,
        }
    }

    pub(super) fn context(mut self, doing: impl std::fmt::Display) -> StepError {
        self.message = format!("{doing}: {}", self.message);
        self
    }
}

impl From<FsError> for StepError {
    fn from(error: FsError) -> StepError {
        StepError { errno: error.errno(), ..StepError::new(chain(&error)) }
    }
}

impl From<io::Error> for StepError {
    fn from(error: io::Error) -> StepError {
        StepError { errno: error.raw_os_error(), ..StepError::new(chain(&error)) }
    }
}

impl From<NvmlError> for StepError {
    fn from(error: NvmlError) -> StepError {
        StepError { nvml: error.code(), ..StepError::new(chain(&error)) }
    }
}

impl From<ProbeError> for StepError {
    fn from(error: ProbeError) -> StepError {
        let errno = if let ProbeCause::Fs(source) = &error.source { source.errno() } else { None };
        StepError { errno, ..StepError::new(chain(&error)) }
    }
}
