//! What an instance's host is told of its power, while its node says otherwise than its user.
//!
//! A change of power is let through when the node allows it. Until then what was told last stands, counter and all: a host that
//! saw a counter which is not its own might start what it need not. What was told last is therefore a fact of the record
//! ([`PowerTold`]), written by whoever changes intent or node ([`tell_power`]), and never guessed from the phase.

use serde::{Deserialize, Serialize};

use super::{Phase, gates, wanted};
use crate::instance::{Instance, Power};
use crate::maintenance::power_asked;

/// As its host was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerTold {
    pub power: Power,
    /// The counter of the start or stop that was let through.
    pub generation: i64,
}

impl PowerTold {
    /// Nobody has told it to run.
    pub const NOTHING: Self = Self { power: Power::Stopped, generation: 0 };

    /// Of a record from before this was kept: a stop that is not held back would be worse than one that is.
    pub(super) fn unknown() -> Self {
        Self { power: Power::Running, generation: 0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// As the user wants it.
    Not,
    /// Not to start it yet.
    Off,
    /// Not to stop it yet.
    On,
}

/// A stop that is held back is not there for the host, and neither is a delete or a start.
#[must_use]
pub fn held(instance: &Instance) -> Held {
    let Some(node) = &instance.node else { return Held::Not };
    let ran = node.power_told.power == Power::Running;
    if wanted(instance) {
        // While it leaves it goes on with what it has; one that was not told to run would find no token that is good.
        let may = gates(node.phase).start && !node.lost && (node.phase != Phase::Leaving || ran);
        return if may { Held::Not } else { Held::Off };
    }
    // Where nothing was told to run, no pod is there to wait for.
    if gates(node.phase).stop || node.released || !ran { Held::Not } else { Held::On }
}

/// The power that its host is told, and the counter with it.
#[must_use]
pub fn power_told(instance: &Instance) -> (Power, i64) {
    let told = instance.node.as_ref().map_or(PowerTold::NOTHING, |node| node.power_told);
    match held(instance) {
        Held::Not => {
            // What is to be removed is to be off, whatever was asked of it before.
            let (power, generation) = power_asked(instance);
            (if instance.meta.delete_time.is_some() { Power::Stopped } else { power }, generation)
        }
        Held::Off => (Power::Stopped, told.generation),
        Held::On => (Power::Running, told.generation),
    }
}

/// After every change of an instance's intent or node, in the commit that makes it.
pub fn tell_power(instance: &mut Instance) {
    let (power, generation) = power_told(instance);
    if let Some(node) = &mut instance.node {
        node.power_told = PowerTold { power, generation };
    }
}
