//! Why a device cannot be had, or be given back, now: a word with a page in docs/errors, and what to do.

use croft_gpu::plan::Refusal;

use super::record::Mark;
use crate::reasons;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    pub reason: &'static str,
    pub message: String,
}

impl Obstacle {
    #[must_use]
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl From<Refusal> for Obstacle {
    fn from(refusal: Refusal) -> Self {
        Self { reason: refusal.reason.word(), message: refusal.to_string() }
    }
}

/// What is marked of a device, or of the card of which it is a function.
pub(super) fn of_mark(device: &str, mark: &Mark) -> Obstacle {
    let reason = word(&mark.reason).unwrap_or(reasons::DEVICE_QUARANTINED);
    Obstacle::new(reason, format!("{device}: {}", mark.message))
}

/// The library's constant for a word of its own; faults come as texts.
#[must_use]
pub(super) fn word(text: &str) -> Option<&'static str> {
    let plans = croft_gpu::plan::Reason::ALL.iter().map(|reason| reason.word());
    let faults = croft_gpu::gpu::faults::ALL.iter().copied();
    plans.chain(faults).chain(crate::reasons::ALL.iter().copied()).find(|known| *known == text)
}

/// Is this word one for which a device is the reason?
#[must_use]
pub fn is_obstacle(reason: &str) -> bool {
    let own = reason.starts_with("Device");
    own || croft_gpu::plan::Reason::ALL.iter().any(|known| known.word() == reason)
}
