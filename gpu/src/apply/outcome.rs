//! What became of a plan.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::StepError;
use super::guard::Culprit;
use super::reset::ResetRecord;
use super::words;
use super::work::Remembered;
use crate::plan::Step;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The wish is true.
    Applied { resets: Vec<ResetRecord> },
    /// It is not, and see [`Failure::undone`] for what the device is like now.
    Failed(Box<Failure>),
    /// A helper process hangs in the kernel. The device must not be written to any more, by anybody, until a reboot.
    Stuck(Box<Stuck>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which of the plan's steps, from 0.
    pub index: usize,
    pub step: Step,
    pub error: StepError,
    pub culprits: Vec<Culprit>,
    pub undone: Undone,
    /// Resets that happened before the failure, and the one that failed.
    pub resets: Vec<ResetRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "undone", rename_all = "snake_case")]
pub enum Undone {
    /// The device is as it was before the plan.
    Whole,
    /// It is not: `left` is still done, the last of it first. That is doubt, and doubt means quarantine.
    Not { error: StepError, left: Vec<Left> },
}

/// A step that is still done, and what its undo needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub step: Step,
    pub remembered: Vec<Remembered>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stuck {
    pub index: usize,
    /// What its helper hangs in: the step, or the undo of one.
    pub step: Step,
    /// Left behind, asleep in the kernel. It may wake up one day, and then it ends.
    pub pid: u32,
    pub culprits: Vec<Culprit>,
    /// Steps of the plan that were done and stay done, the last one first.
    pub left: Vec<Left>,
    pub resets: Vec<ResetRecord>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {}: {}", words::of(&self.step), self.error)?;
        say_culprits(f, &self.culprits)?;
        match &self.undone {
            Undone::Whole => f.write_str("; the device is as it was before"),
            Undone::Not { error, left } => {
                let left: Vec<String> = left.iter().map(|left| words::of(&left.step)).collect();
                write!(f, "; and it could not be put back ({error}): still done: {}", left.join(", "))
            }
        }
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} hangs in the kernel, told to {}", self.pid, words::of(&self.step))?;
        say_culprits(f, &self.culprits)?;
        f.write_str("; nothing more is written to the device: reboot the host")
    }
}

fn say_culprits(f: &mut fmt::Formatter<'_>, culprits: &[Culprit]) -> fmt::Result {
    culprits.iter().try_for_each(|culprit| write!(f, "; {culprit}"))
}

pub(super) fn overran(step: &Step, deadline: Duration) -> StepError {
    StepError::new(format!("told the host to {}; it did not return within {deadline:?}", words::of(step)))
}
