//! What happens to a machine that whoever looks at its Node should read there: the fault of the VM, or of its host, in the words
//! that its instance has.

use super::machine::Guest;
use crate::Timestamp;
use crate::condition::ConditionStatus;
use crate::instance::{Instance, State};
use crate::join::cluster::Severity;
use crate::join::keep;

/// As the agent names it.
const DEVICES_ATTACHED: &str = "DevicesAttached";
/// What a guest that is well does when its user says so.
const ASKED_FOR: [&str; 2] = ["RebootRequested", "StopRequested"];

/// One of them, for the Node's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiding {
    /// The same for as long as it is the same fault, whatever the numbers in its message.
    pub key: String,
    /// In one word, as events have it.
    pub reason: &'static str,
    pub message: String,
    pub severity: Severity,
}

/// The gravest of now; `None`: nothing.
#[must_use]
pub fn of(instance: &Instance, now: Timestamp) -> Option<Tiding> {
    let node = instance.node.as_ref()?;
    let (status, guest) = (&instance.status, Guest::of(instance));
    let tell = |reason: &'static str, word: &str, message: &str| {
        let why = [word, message].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
        let (key, message) = (format!("{reason}/{word}"), format!("{}: {why}", instance.name()));
        Some(Tiding { key, reason, message, severity: Severity::Warning })
    };
    let (word, message) = (status.reason.as_str(), status.message.as_str());
    if node.lost {
        return tell("VmLost", "HostFenced", "its host was fenced: the machine is off for certain");
    }
    match status.state {
        State::Failed => return tell("VmFailed", word, message),
        State::Unknown => return tell("VmUnknown", word, message),
        State::Placing if !word.is_empty() => return tell("VmNotPlaced", word, message),
        State::Stopped if guest.wanted => return tell("VmOff", word, message),
        State::Starting | State::Running if !word.is_empty() && !ASKED_FOR.contains(&word) => {
            return tell("VmTroubled", word, message);
        }
        _ => {}
    }
    let observed = status.observed.as_ref();
    let devices = observed.and_then(|seen| seen.conditions.iter().find(|condition| condition.kind == DEVICES_ATTACHED));
    if let Some(lacks) = devices.filter(|devices| devices.status == ConditionStatus::False && guest.wanted) {
        return tell("VmDevicesMissing", &lacks.reason, &lacks.message);
    }
    let at = node.repairs.last().filter(|_| keep::is_in_repair(node, now))?;
    let (reason, what) = match keep::was_rebuilt(node) {
        false => ("VmRestarted", "restarted in place"),
        true => ("VmRebuilt", "rebuilt with a new disk"),
    };
    let message = format!("{}: {what}, because the node was not well", instance.name());
    Some(Tiding { key: format!("{reason}/{}", at.0), reason, message, severity: Severity::Normal })
}
