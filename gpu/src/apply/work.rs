//! What is asked of a helper process, and what it answers: one JSON request on its standard input, JSON lines on its output.
//!
//! The first line says what was found before anything was touched, so that a helper which is killed later leaves behind
//! what is needed to put the device back.

use serde::{Deserialize, Serialize};

use super::access::Site;
use super::error::StepError;
use super::guard::Culprit;
use super::standing;
use crate::pci::PciAddress;
use crate::plan::Step;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub site: Site,
    pub work: Work,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum Work {
    /// Make the step's effect true, unless it is, and read it back.
    Do { step: Step },
    /// Make the step's effect untrue, unless it is, read that back, and put back what was `remembered`.
    Undo { step: Step, remembered: Vec<Remembered> },
    /// Touch nothing: say who may be the reason that the step failed.
    Explain { step: Step },
}

impl Work {
    #[must_use]
    pub fn step(&self) -> &Step {
        match self {
            Work::Do { step } | Work::Undo { step, .. } | Work::Explain { step } => step,
        }
    }
}

/// What a step changes for a moment only, as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Remembered {
    Attribute { path: String, text: String },
    Persistence { gpu: PciAddress, on: bool },
}

impl Remembered {
    /// Is it what the step itself sets for good? Then it is not to be put back after it.
    pub(super) fn is_set_by(&self, step: &Step) -> bool {
        match (self, step) {
            (Remembered::Attribute { path, .. }, Step::SetDriverOverride { address, .. }) => {
                *path == standing::driver_override_of(*address)
            }
            (Remembered::Persistence { gpu, .. }, Step::SetPersistence { gpu: of, .. }) => gpu == of,
            _ => false,
        }
    }

    pub(super) fn is_of_the_same(&self, other: &Remembered) -> bool {
        match (self, other) {
            (Remembered::Attribute { path, .. }, Remembered::Attribute { path: of, .. }) => path == of,
            (Remembered::Persistence { gpu, .. }, Remembered::Persistence { gpu: of, .. }) => gpu == of,
            _ => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    Found(Found),
    Done(Done),
    Failed {
        error: StepError,
    },
    /// Nothing was touched: a process that an agent of before has left, and that hangs in the kernel, has the device.
    HeldBack {
        pid: u32,
    },
}

/// How the device stood before the first effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub standing: Standing,
    pub remembered: Vec<Remembered>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// False: it was so already, and is none of this plan's doing.
    pub changed: bool,
    /// The method by which the device was reset.
    pub reset_method: Option<String>,
    /// The explanation that was asked for.
    #[serde(default)]
    pub culprits: Vec<Culprit>,
}

/// Where a device stands between a step not done and done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "snake_case")]
pub enum Standing {
    Before,
    /// What the step leaves when it is cut short. It can be finished, and it can be taken back.
    Between {
        found: String,
    },
    After,
    /// Something that the plan did not reckon with: it was made from an older look at the host.
    Other {
        found: String,
    },
}

impl Standing {
    /// `After` wins, should the two be the same.
    pub(super) fn of<T: PartialEq>(found: &T, before: &T, after: &T, words: impl FnOnce() -> String) -> Standing {
        match found {
            _ if found == after => Standing::After,
            _ if found == before => Standing::Before,
            _ => Standing::Other { found: words() },
        }
    }

    /// The same place, seen from the step's undo.
    pub(super) fn reversed(self) -> Standing {
        match self {
            Standing::Before => Standing::After,
            Standing::After => Standing::Before,
            other => other,
        }
    }
}
