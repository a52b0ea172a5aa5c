//! How an operator wants a host's devices to be divided, whoever uses them: standing virtual functions, and what a GPU is
//! kept for.

use serde::{Deserialize, Serialize};

use super::Mode;
use crate::error::{Error, Reason, Result};
use crate::id::{DeviceId, HostId};
use crate::validate::Violations;

pub const FUNCTIONS_MAX: u16 = 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    pub host: HostId,
    /// Raised by every change; 0: never set.
    pub generation: i64,
    pub devices: Vec<DeviceLayout>,
    /// Of the layout that the host spoke of last.
    pub told_generation: i64,
    /// What it said is not so.
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLayout {
    pub device: DeviceId,
    /// Virtual functions to keep; not for GPUs.
    pub virtual_functions: u16,
    /// GPUs: all that may be made of it. IDLE: given whole or not at all; FOREIGN: left to others; `None`: as requests come.
    pub gpu_mode: Option<Mode>,
}

impl Layout {
    #[must_use]
    pub fn empty(host: &HostId) -> Self {
        Self { host: host.clone(), generation: 0, devices: Vec::new(), told_generation: 0, problems: Vec::new() }
    }

    #[must_use]
    pub fn name(&self) -> String {
        format!("hosts/{}/layout", self.host)
    }

    #[must_use]
    pub fn etag(&self) -> String {
        format!("l{:x}", self.generation)
    }

    /// An empty etag matches everything.
    pub fn check_etag(&self, sent: &str) -> Result<()> {
        if sent.is_empty() || sent == self.etag() {
            return Ok(());
        }
        Err(Error::Conflict {
            reason: Reason::EtagMismatch,
            message: format!("{} has changed since its etag was read; get it again and decide again", self.name()),
        })
    }

    /// Whether the host says that all of it is so.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.told_generation >= self.generation && self.problems.is_empty()
    }

    /// What can be said without knowing the host's devices.
    pub fn check(&self, violations: &mut Violations) {
        for (at, one) in self.devices.iter().enumerate() {
            let field = |name: &str| format!("layout.devices[{at}].{name}");
            let twice = self.devices[..at].iter().any(|earlier| earlier.device == one.device);
            violations.check(!twice, &field("device"), format!("{} is there twice", one.device));
            violations.check(
                one.virtual_functions <= FUNCTIONS_MAX,
                &field("virtual_functions"),
                format!("0 to {FUNCTIONS_MAX}, not {}", one.virtual_functions),
            );
            violations.check(
                one.gpu_mode.is_none() || one.virtual_functions == 0,
                &field("virtual_functions"),
                "a GPU's virtual functions follow its mode",
            );
            violations.check(
                one.gpu_mode != Some(Mode::Passthrough),
                &field("gpu_mode"),
                "IDLE, VGPU, MIG_VGPU or FOREIGN; IDLE keeps a GPU for whoever asks for all of it",
            );
        }
    }
}
