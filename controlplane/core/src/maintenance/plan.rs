//! What a drain does to each instance of its host: said beforehand, and while it goes on what is still to be done.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{is_still, parked, resumes, runs, spent};
use crate::host;
use crate::id::InstanceUid;
use crate::instance::{Instance, Observed, Phase as GuestPhase, Power, machine as guest};
use crate::join::machine::DRAIN_DEADLINE;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Effect {
    /// Its guest is asked to power off.
    Stops,
    /// It is off already.
    StaysOff,
    /// Somebody deletes it: the drain waits until nothing is left of it.
    Leaves,
    /// The drain waits until somebody does something about it.
    Cannot,
}

impl Effect {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stops => "STOPS",
            Self::StaysOff => "STAYS_OFF",
            Self::Leaves => "LEAVES",
            Self::Cannot => "CANNOT",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// `tenants/acme/instances/web`
    pub instance: String,
    pub uid: InstanceUid,
    pub effect: Effect,
    /// How, or why.
    pub message: String,
    /// When the maintenance ends.
    pub starts_again: bool,
}

/// A step that somebody was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub instance: String,
    pub uid: InstanceUid,
    pub effect: Effect,
}

#[must_use]
pub fn plan(host: host::State, instances: &[Instance]) -> Vec<Step> {
    let mut steps: Vec<Step> = instances.iter().map(|instance| step(host, instance)).collect();
    steps.sort_by(|one, other| one.instance.cmp(&other.instance));
    steps
}

fn step(host: host::State, instance: &Instance) -> Step {
    let (effect, message) = effect(host, instance);
    let starts_again = match parked(instance) {
        Some(_) => resumes(instance),
        None => effect != Effect::Leaves && instance.intent.power == Power::Running && !super::rests(instance),
    };
    Step { instance: instance.name(), uid: instance.uid, effect, message, starts_again }
}

fn effect(host: host::State, instance: &Instance) -> (Effect, String) {
    if instance.meta.delete_time.is_some() {
        return (Effect::Leaves, "is being deleted; the drain waits until nothing is left of it".to_owned());
    }
    if guest::is_buried(instance) {
        return (Effect::Leaves, "leaves for another host; the drain waits until nothing is left of it".to_owned());
    }
    if is_still(instance) {
        return (Effect::StaysOff, "is off".to_owned());
    }
    if !matches!(host, host::State::Ready | host::State::Enrolled) {
        return (Effect::Cannot, "its host is not heard from: it may well be running".to_owned());
    }
    match &instance.status.observed {
        Some(seen) if seen.phase == GuestPhase::Failed && runs(seen) => (Effect::Cannot, failed(seen)),
        Some(seen) if runs(seen) => (Effect::Stops, stops(instance)),
        _ if parked(instance).is_some() => (Effect::StaysOff, "is off; its host has not confirmed it yet".to_owned()),
        _ => (Effect::StaysOff, "does not run now".to_owned()),
    }
}

fn failed(seen: &Observed) -> String {
    let message = if seen.message.is_empty() { String::new() } else { format!(": {}", seen.message) };
    format!(
        "may run, and its host does nothing about it ({}{message}); mend what that names, or delete it",
        seen.reason
    )
}

fn stops(instance: &Instance) -> String {
    let timeout = instance.intent.effective_stop_timeout();
    let asks = match timeout.as_secs() {
        0 => "its plug is pulled at once".to_owned(),
        _ => format!("it is asked to power off, and its plug is pulled after {}", spent(timeout)),
    };
    match &instance.node {
        Some(node) if !node.message.is_empty() && parked(instance).is_some() => {
            format!("node {}: {}; then {asks}", node.name, node.message)
        }
        Some(node) => format!(
            "the pods of node {} are moved first, for {} at most; then {asks}",
            node.name,
            spent(DRAIN_DEADLINE)
        ),
        None => asks,
    }
}

/// What is another way than somebody was shown, a sentence each.
#[must_use]
pub fn differences(shown: &[Expected], now: &[Step]) -> Vec<String> {
    let mut before: BTreeMap<InstanceUid, &Expected> = shown.iter().map(|step| (step.uid, step)).collect();
    let mut found = Vec::new();
    for step in now {
        match before.remove(&step.uid) {
            None => found.push(format!("{} has come: {}", step.instance, step.effect.as_str())),
            Some(shown) if shown.effect != step.effect => {
                let (was, is) = (shown.effect.as_str(), step.effect.as_str());
                found.push(format!("{} was {was}, and is {is} now: it {}", step.instance, step.message));
            }
            Some(_) => {}
        }
    }
    found.extend(before.values().map(|gone| format!("{} is gone", gone.instance)));
    found
}
