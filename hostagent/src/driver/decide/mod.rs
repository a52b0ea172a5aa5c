//! What to do next about one VM: a pure function of the journal, one look at the hypervisor, and the clock.
//!
//! The task that owns the VM (`crate::driver`) calls [`decide`], does what it says, looks again, and so on until it says
//! wait. It takes no hints: every row below reads the whole [`View`]. The rows in their order, first match wins, and
//! the picture are in docs/states/agent-driver.md.
//!
//! Refuses to touch anything.

use std::time::Duration;

use croft_proto::agent::v1::instance_observation::Phase;
use croft_proto::v1::instance_spec;

use crate::clock::Steady;
use crate::devices::View as DeviceView;
use crate::hypervisor::{Domain, OffReason, Power};
use crate::journal::Record;
use crate::reasons;

pub mod devices;
mod running;
mod stopping;
#[cfg(test)]
mod tests;
mod trouble;

pub use running::{RESTART_BACK_OFF_MAX, STREAK_ENDS_AFTER, back_off};
pub(super) use trouble::exponential;
pub use trouble::{Intent, Trouble};

/// How often a guest that was asked to stop is asked again: ACPI events are lost on a guest that is still booting.
pub const ASK_AGAIN: Duration = Duration::from_secs(15);
/// How often a guest that waits for disk space is told to go on.
pub const RESUME_EVERY: Duration = Duration::from_secs(30);
/// Below this much free space, resuming a guest that ran out of it would only pause it again.
pub const RESUME_FLOOR_GIB: u64 = 1;
/// A stop that somebody took back may still end the run this long after its deadline.
const STOP_LINGERS: Duration = Duration::from_secs(60);

/// Everything that the decision may depend on.
#[derive(Debug, Clone)]
pub struct View<'a> {
    pub record: &'a Record,
    pub seen: Seen<'a>,
    pub boot_id: &'a str,
    pub now: Steady,
    pub starts: Starts,
    /// What this agent can do.
    pub features: &'a [&'a str],
    pub devices: &'a DeviceView,
    /// Restarts of the guest that this process saw; see `Hypervisor::guest_restarts`.
    pub guest_restarts: Option<u64>,
    pub disk_free_gib: u64,
    pub memory: &'a Memory,
}

/// The domain, in one successful look, or that there was none.
#[derive(Debug, Clone, Copy)]
pub enum Seen<'a> {
    /// The hypervisor did not answer. Says nothing about the domain.
    Nothing(&'a str),
    Absent,
    Present(&'a Domain),
}

/// May VMs be started on this host?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starts {
    Allowed,
    /// The machine restarted, so it may have been fenced: the plane must confirm the epoch first. The same while the
    /// tombstones of a new epoch are carried out.
    AwaitEpoch,
}

/// What the driver knows only as long as its process lives. Losing it costs a repetition, never a mistake.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Generation for which image and definition were made sure of, in this boot and since the last failed start.
    pub prepared: Option<i64>,
    pub asked_to_stop: Option<Steady>,
    /// Restarts of the guest when it was asked to reboot.
    pub reboot_from: Option<u64>,
    pub resumed: Option<Steady>,
    /// As they were at the last look.
    pub devices: DeviceView,
    /// At most one for each action.
    pub troubles: Vec<Trouble>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// `None`: what was last reported still stands.
    pub phase: Option<Phase>,
    pub why: Why,
    pub next: Next,
}

/// Why it is not where it should be; empty when it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Why {
    pub reason: &'static str,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Act(Action),
    /// Until something changes, or then.
    Wait(Option<Steady>),
}

/// One effect. Each is safe to repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Seed, image, disk, network, definition.
    Prepare,
    Start,
    AskStop,
    Destroy,
    AskReboot,
    Reset,
    Resume,
    /// Devices that are to leave the guest, or are to come to it.
    Devices,
    /// The seed is another one now, also under a guest that runs.
    ReplaceSeed,
    /// As [`Self::Prepare`], with a root disk in the place of the old one; what was on that is lost.
    ReplaceDisk,
    /// Remove, look, and only then write that it is gone.
    Remove,
    // Notes change the journal alone.
    /// It runs: started before a crash of the agent, or by somebody else.
    NoteRun,
    /// It does not run any more.
    NoteEnd(Option<OffReason>),
    /// The guest restarted as asked.
    NoteReboot,
    /// The guest ignored a stop that was taken back.
    ForgetStop,
    /// What the counters ask for is the case.
    Settle,
    /// Nothing is left of what was buried: begin anew with what is wanted after it.
    Revive,
}

impl Action {
    /// Does it change nothing but the journal?
    #[must_use]
    pub fn is_note(self) -> bool {
        match self {
            Self::NoteRun | Self::NoteEnd(_) | Self::NoteReboot | Self::ForgetStop | Self::Settle | Self::Revive => {
                true
            }
            Self::Prepare
            | Self::Start
            | Self::AskStop
            | Self::Destroy
            | Self::AskReboot
            | Self::Reset
            | Self::Resume
            | Self::Devices
            | Self::ReplaceSeed
            | Self::ReplaceDisk
            | Self::Remove => false,
        }
    }

    /// For logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Start => "start",
            Self::AskStop => "ask_stop",
            Self::Destroy => "destroy",
            Self::AskReboot => "ask_reboot",
            Self::Reset => "reset",
            Self::Resume => "resume",
            Self::Devices => "devices",
            Self::ReplaceSeed => "replace_seed",
            Self::ReplaceDisk => "replace_disk",
            Self::Remove => "remove",
            Self::NoteRun => "note_run",
            Self::NoteEnd(_) => "note_end",
            Self::NoteReboot => "note_reboot",
            Self::ForgetStop => "forget_stop",
            Self::Settle => "settle",
            Self::Revive => "revive",
        }
    }
}

/// The table of contents; see the module.
#[must_use]
pub fn decide(view: &View<'_>) -> Decision {
    let record = view.record;
    let domain = match view.seen {
        Seen::Nothing(message) => return keep(Why::new(reasons::HYPERVISOR_UNAVAILABLE, message)),
        Seen::Absent => None,
        Seen::Present(domain) => Some(domain),
    };
    if record.tombstone.is_some() {
        return stopping::buried(view, domain);
    }
    if let Some(corrupt) = &record.corrupt {
        return rest(Phase::Failed, Why::new(reasons::JOURNAL_CORRUPT, &corrupt.message));
    }
    let Some(desired) = record.desired.as_ref().filter(|_| record.listed) else {
        return rest(phase_of(domain), Why::new(reasons::NOT_DESIRED, "the control plane does not list it"));
    };
    if let Some(missing) = lacks(view, &desired.required_features) {
        return rest(Phase::Failed, Why::new(reasons::FEATURE_MISSING, missing));
    }
    let wanted = match instance_spec::Power::try_from(desired.power) {
        Ok(wanted @ (instance_spec::Power::Running | instance_spec::Power::Stopped)) => wanted,
        // A value from the future: neither starting nor stopping would be right.
        _ => {
            let message = format!("power {} is not known to this agent: upgrade it", desired.power);
            return rest(Phase::Failed, Why::new(reasons::FEATURE_MISSING, message));
        }
    };
    if let Some(note) = run_mark(record, domain, view.boot_id) {
        return note;
    }
    match (wanted, domain) {
        _ if view.disk_is_stale(desired) => stopping::rebuilding(view, desired, domain),
        (instance_spec::Power::Stopped, _) => stopping::stopped(view, desired, domain),
        (_, Some(Domain { power: Power::Running, .. })) => running::running(view, desired),
        (_, Some(Domain { power: Power::Paused { reason, message }, .. })) => {
            running::paused(view, desired, reason, message)
        }
        (_, domain) => running::off(view, desired, domain),
    }
}

/// Keeps the journal's idea of whether it runs in step with what is seen, before anything else is decided.
fn run_mark(record: &Record, domain: Option<&Domain>, boot_id: &str) -> Option<Decision> {
    let power = domain.map(|domain| &domain.power);
    match (&record.run, power) {
        (None, Some(Power::Running | Power::Paused { .. })) => Some(note(Action::NoteRun)),
        // The run that is known ended with its boot; this is another one, which somebody started by hand.
        (Some(run), Some(Power::Running | Power::Paused { .. })) if run.began.boot_id != boot_id => {
            Some(note(Action::NoteRun))
        }
        (Some(_), Some(Power::Off(reason))) => Some(note(Action::NoteEnd(Some(*reason)))),
        (Some(_), None) => Some(note(Action::NoteEnd(None))),
        (None, None | Some(Power::Off(_))) | (Some(_), Some(Power::Running | Power::Paused { .. })) => None,
    }
}

fn lacks(view: &View<'_>, required: &[String]) -> Option<String> {
    let missing: Vec<_> =
        required.iter().map(String::as_str).filter(|feature| !view.features.contains(feature)).collect();
    (!missing.is_empty()).then(|| format!("this agent lacks {}: upgrade it", missing.join(", ")))
}

fn phase_of(domain: Option<&Domain>) -> Phase {
    match domain.map(|domain| &domain.power) {
        None => Phase::Absent,
        Some(Power::Running) => Phase::Running,
        Some(Power::Paused { .. }) => Phase::Paused,
        Some(Power::Off(_)) => Phase::Off,
    }
}

/// One of [`reasons::ALL`] for what the hypervisor calls it.
#[must_use]
pub fn paused_reason(word: &str) -> &'static str {
    match word {
        reasons::OUT_OF_SPACE => reasons::OUT_OF_SPACE,
        reasons::IO_ERROR => reasons::IO_ERROR,
        _ => reasons::PAUSED,
    }
}

impl Why {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

fn rest(phase: Phase, why: Why) -> Decision {
    Decision { phase: Some(phase), why, next: Next::Wait(None) }
}

fn wait(phase: Phase, why: Why, until: Steady) -> Decision {
    Decision { phase: Some(phase), why, next: Next::Wait(Some(until)) }
}

fn keep(why: Why) -> Decision {
    Decision { phase: None, why, next: Next::Wait(None) }
}

fn note(action: Action) -> Decision {
    Decision { phase: None, why: Why::default(), next: Next::Act(action) }
}
