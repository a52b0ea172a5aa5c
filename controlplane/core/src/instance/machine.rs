//! From intent and truth to a state, and to what the plane does next. Pure: [`settle`] is called after every change of
//! either side, any number of times, and always gives the same answer for the same input.
//!
//! ```text
//!  create ──► PENDING ──► PREPARING ──► STARTING ──► RUNNING ──► STOPPING ──► STOPPED
//!                ▲                          ▲           │  crash     ▲  guest     │
//!                │ placed                   └───────────┘            └─poweroff   │ start
//!             PLACING ◄──────────────────────────────────────────────────────────┤ (no host: fenced)
//!                                                                                 └─► STARTING
//!  any but DELETING ──► UNKNOWN (host silent) ──► back to what the host says
//!  any ──► FAILED (the host will not go on by itself) ──► as the host says, after start or a mend
//!  any ──► DELETING ──► gone: claims, charges and seed leave in one commit
//! ```
//! [`State::TABLE`] has a row per state: what it does, how it is undone, how long it may take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rest::stays_off;
use super::{Instance, Observed, Phase, Power};
use crate::error::Reason;
use crate::join::machine::{Held, Phase as NodePhase, has_left, held, leaves_to_be_rebuilt, told};
use crate::operation::{Failure, Operation, Verb};
use crate::{Timestamp, host, maintenance};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    Pending,
    Placing,
    Preparing,
    Starting,
    Running,
    Stopping,
    Stopped,
    Deleting,
    Failed,
    Unknown,
}

/// A row of the state table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub state: State,
    pub does: &'static str,
    pub undo: &'static str,
    /// After this it is worth an event; `None`: may stay for ever.
    pub deadline: Option<Duration>,
    /// Where a process may die on its way into this state: each has a kill test.
    pub crash_points: &'static [&'static str],
}

impl State {
    pub const TABLE: [Row; 10] = [
        Row {
            state: Self::Pending,
            does: "accepted, charged and claimed in one commit; its host is told",
            undo: "delete gives claim and charges back",
            deadline: Some(Duration::from_secs(60)),
            crash_points: &["plane.pending.before", "plane.pending.after"],
        },
        Row {
            state: Self::Placing,
            does: "has charges but no host (its host was fenced): the placer looks for one",
            undo: "delete, or stop",
            deadline: Some(Duration::from_secs(60)),
            crash_points: &["plane.placing.before", "plane.placing.after"],
        },
        Row {
            state: Self::Preparing,
            does: "the host fetches the image and makes disk, seed, network and definition",
            undo: "the tombstone removes what was made",
            deadline: Some(Duration::from_secs(1800)),
            crash_points: &["plane.preparing.before", "plane.preparing.after"],
        },
        Row {
            state: Self::Starting,
            does: "the host starts the domain",
            undo: "stop",
            deadline: Some(Duration::from_secs(300)),
            crash_points: &["plane.starting.before", "plane.starting.after"],
        },
        Row {
            state: Self::Running,
            does: "the domain runs; what the guest does shows as conditions",
            undo: "stop",
            deadline: None,
            crash_points: &["plane.running.before", "plane.running.after"],
        },
        Row {
            state: Self::Stopping,
            does: "the guest was asked to power off; after the stop timeout the plug is pulled",
            undo: "start, once it is stopped",
            deadline: Some(Duration::from_secs(3900)),
            crash_points: &["plane.stopping.before", "plane.stopping.after"],
        },
        Row {
            state: Self::Stopped,
            does: "defined, not running; keeps its claim and its charges",
            undo: "start",
            deadline: None,
            crash_points: &["plane.stopped.before", "plane.stopped.after"],
        },
        Row {
            state: Self::Deleting,
            does: "the host was sent a tombstone; gone once the host says that nothing is left",
            undo: "none",
            deadline: Some(Duration::from_secs(3900)),
            crash_points: &["plane.deleting.before", "plane.deleting.after"],
        },
        Row {
            state: Self::Failed,
            does: "the host will not go on by itself; the reason has a page",
            undo: "mend what the reason names and start again, or delete",
            deadline: None,
            crash_points: &["plane.failed.before", "plane.failed.after"],
        },
        Row {
            state: Self::Unknown,
            does: "its host is silent: nothing is placed anew, released or tainted",
            undo: "the host comes back, or an operator fences it",
            deadline: None,
            crash_points: &["plane.unknown.before", "plane.unknown.after"],
        },
    ];

    #[must_use]
    pub fn row(self) -> &'static Row {
        &Self::TABLE[self as usize]
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Placing => "PLACING",
            Self::Preparing => "PREPARING",
            Self::Starting => "STARTING",
            Self::Running => "RUNNING",
            Self::Stopping => "STOPPING",
            Self::Stopped => "STOPPED",
            Self::Deleting => "DELETING",
            Self::Failed => "FAILED",
            Self::Unknown => "UNKNOWN",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::TABLE.iter().map(|row| row.state).find(|state| state.as_str() == text)
    }
}

/// What comes of one look at an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    pub verdict: Verdict,
    /// Operations that are done now, with why they failed if they did.
    pub finished: Vec<(Operation, Option<Failure>)>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Nothing is left on the host: delete the row, the claim, the charges and the seed in one commit.
    Gone,
    Is(Named),
}

/// A state and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub state: State,
    pub reason: String,
    pub message: String,
}

/// `host`: how the plane sees the instance's host; `None` when it has none.
#[must_use]
pub fn settle(instance: &Instance, host: Option<host::State>, open: &[Operation]) -> Settlement {
    let verdict = verdict(instance, host);
    let finished = open
        .iter()
        .filter_map(|operation| finish(instance, operation, &verdict).map(|failure| (operation.clone(), failure)))
        .collect();
    Settlement { verdict, finished }
}

fn verdict(instance: &Instance, host: Option<host::State>) -> Verdict {
    let observed = instance.status.observed.as_ref();
    let Some(host_id) = instance.host() else {
        let status = &instance.status;
        let looked = status.state == State::Placing;
        return match (instance.meta.delete_time, instance.intent.power) {
            (Some(_), _) if !has_left(instance) => for_its_node(instance, State::Deleting),
            (Some(_), _) => Verdict::Gone,
            // The placer has said what it found.
            (None, Power::Running) if looked => named(State::Placing, &status.reason, &status.message),
            (None, Power::Running) => named(State::Placing, "", "looks for a host"),
            (None, Power::Stopped) if looked => {
                named(State::Stopped, "", "has no host, and needs none while it is off")
            }
            (None, Power::Stopped) => named(State::Stopped, &status.reason, &status.message),
        };
    };
    let silent = !matches!(host, Some(host::State::Ready | host::State::Enrolled));
    if instance.meta.delete_time.is_some() {
        return match observed {
            _ if held(instance) != Held::Not => for_its_node(instance, State::Deleting),
            // Only the host's own word, given after it was told, counts: `store` clears `observed` at delete.
            Some(seen) if seen.phase == Phase::Absent && has_left(instance) => Verdict::Gone,
            Some(seen) if seen.phase == Phase::Absent => for_its_node(instance, State::Deleting),
            _ if silent => named(
                State::Deleting,
                Reason::HostUnreachable.as_str(),
                &format!("hosts/{host_id} is silent; fence it if it is off for certain"),
            ),
            _ => named(State::Deleting, "", "the host removes it"),
        };
    }
    // What was told to stay off, and said that it is off, is off however long its host is silent.
    if silent && !(maintenance::parked(instance).is_some() && maintenance::is_still(instance)) {
        return named(
            State::Unknown,
            Reason::HostUnreachable.as_str(),
            &format!("hosts/{host_id} is not heard from; the instance may well be running"),
        );
    }
    if is_buried(instance) {
        return named(State::Stopping, "", &format!("is removed from hosts/{host_id}, to be rebuilt on another host"));
    }
    match observed {
        None => named(State::Pending, "", &format!("waits for hosts/{host_id}")),
        Some(seen) => on_hold(instance, seen).unwrap_or_else(|| on_host(instance, seen)),
    }
}

/// Its host is told to remove it, once its node has left.
#[must_use]
pub fn is_buried(instance: &Instance) -> bool {
    let deleted = instance.meta.delete_time.is_some() && held(instance) == Held::Not;
    let node_left = instance.node.as_ref().is_none_or(|node| node.phase.is_outside());
    deleted || instance.leaves_host() && node_left
}

/// What a host says that was not told yet what the user wants.
fn on_hold(instance: &Instance, seen: &Observed) -> Option<Verdict> {
    match (held(instance), seen.phase) {
        (Held::Not, _) | (_, Phase::Failed | Phase::Preparing) => None,
        (Held::Off, Phase::Absent | Phase::Off) => Some(for_its_node(instance, State::Pending)),
        // It ran before: it begins anew.
        (Held::Off, _) | (Held::On, _) => Some(for_its_node(instance, State::Stopping)),
    }
}

/// It goes on when its node does.
fn for_its_node(instance: &Instance, state: State) -> Verdict {
    let Some(node) = &instance.node else { return named(state, "", "") };
    let cluster = instance.spec.node.as_ref().map_or("its cluster", |wish| wish.cluster.as_str());
    let waits = match state {
        State::Pending => format!("waits for a token of {cluster}"),
        State::Stopping if instance.lacks_disk() && node.phase.is_outside() => {
            format!("is stopped for its new disk; its node {} has left {cluster}", node.name)
        }
        _ => format!("waits until its node {} has left {cluster}", node.name),
    };
    let message = if node.message.is_empty() { waits } else { format!("{waits}: {}", node.message) };
    named(state, &node.reason, &message)
}

/// What a host that is heard from says.
fn on_host(instance: &Instance, seen: &Observed) -> Verdict {
    let parks = maintenance::words(instance);
    let (reason, message) = match &parks {
        Some(words) if !matches!(seen.phase, Phase::Failed | Phase::Preparing) => {
            (maintenance::HOST_MAINTENANCE, words.as_str())
        }
        _ => (seen.reason.as_str(), seen.message.as_str()),
    };
    match (seen.phase, maintenance::power_asked(instance).0) {
        (Phase::Absent, _) => named(State::Pending, reason, message),
        (Phase::Preparing, _) => named(State::Preparing, reason, message),
        (Phase::Failed, _) => named(State::Failed, reason, message),
        (Phase::Starting, _) => named(State::Starting, reason, message),
        (Phase::Stopping, _) => named(State::Stopping, reason, message),
        (Phase::Running | Phase::Paused, Power::Running) => named(State::Running, reason, message),
        (Phase::Running | Phase::Paused, Power::Stopped) => named(State::Stopping, reason, message),
        (Phase::Off, Power::Stopped) => named(State::Stopped, reason, message),
        (Phase::Off, Power::Running) if stays_off(instance, seen, instance.intent.power_generation) => {
            named(State::Stopped, reason, message)
        }
        // Off for a moment: it was told to start, or the agent restarts it, after its back-off.
        (Phase::Off, Power::Running) => named(State::Starting, reason, message),
    }
}

fn named(state: State, reason: &str, message: &str) -> Verdict {
    Verdict::Is(Named { state, reason: reason.to_owned(), message: message.to_owned() })
}

/// `Some(None)`: done well; `Some(Some(failure))`: done badly; `None`: not done.
fn finish(instance: &Instance, operation: &Operation, verdict: &Verdict) -> Option<Option<Failure>> {
    let state = match verdict {
        Verdict::Gone if operation.verb == Verb::Delete => return Some(None),
        Verdict::Gone => return Some(Some(superseded("the instance was deleted"))),
        Verdict::Is(named) => named,
    };
    if operation.verb == Verb::Delete {
        return None;
    }
    if instance.meta.delete_time.is_some() {
        return Some(Some(superseded("the instance is being deleted")));
    }
    let seen = instance.status.observed.as_ref();
    let reached = match operation.verb {
        Verb::Create | Verb::Start | Verb::Stop => {
            if operation.counter < instance.intent.power_generation {
                return Some(Some(superseded("a later start or stop took its place")));
            }
            let wanted = match instance.intent.power {
                Power::Running => State::Running,
                Power::Stopped => State::Stopped,
            };
            let caught_up = seen.is_some_and(|seen| seen.power_generation >= operation.counter);
            // Without a host there is nobody to catch up: a stop of what was fenced is done at once.
            let nobody = instance.host().is_none();
            // A guest that was up and powered itself off has been started: that is what was asked for.
            let ran = seen.is_some_and(|seen| seen.exit.is_some()) && state.state == State::Stopped;
            let reached = (caught_up || nobody) && (state.state == wanted || caught_up && ran);
            match joins(instance) {
                // Whatever it is now: it goes on when its host does.
                _ if maintenance::resumes(instance) => false,
                Joins::Never(failure) => return Some(Some(failure)),
                Joins::NotYet if state.state == State::Running => false,
                Joins::NotYet | Joins::Done => reached,
            }
        }
        Verb::Reboot => seen.is_some_and(|seen| seen.reboot_generation >= operation.counter),
        Verb::Reset => seen.is_some_and(|seen| seen.reset_generation >= operation.counter),
        Verb::Rebuild => {
            let made = seen.is_some_and(|seen| seen.disk_generation >= operation.counter);
            // Without a host there is no disk, and the next one is a new one.
            let nobody = instance.host().is_none() && state.state == State::Stopped;
            match joins(instance) {
                // Of the node that it was, until the disk is another one.
                Joins::Never(failure) if made => return Some(Some(failure)),
                Joins::Never(_) => false,
                Joins::NotYet if state.state == State::Running => false,
                Joins::NotYet | Joins::Done => nobody || made && rests_as_wanted(instance, state.state),
            }
        }
        Verb::Attach => {
            if !wants(instance, &operation.subject) {
                return Some(Some(superseded("the device was detached again")));
            }
            let answers = seen.is_some_and(|seen| seen.generation >= operation.counter);
            let attached = seen.is_some_and(|seen| seen.attached_devices.contains(&operation.subject));
            // What does not run, and what has no host, gets it with its next start.
            instance.host().is_none() || answers && (attached || state.state == State::Stopped)
        }
        // Its request leaves the spec with the claim and the charge; a guest that failed does not keep it from that.
        Verb::Detach => return (!requested(instance, &operation.subject)).then_some(None),
        Verb::Delete => false,
    };
    if reached {
        return Some(None);
    }
    // An older failure says nothing about what was asked for since.
    let answers = seen.is_some_and(|seen| seen.generation >= instance.meta.generation);
    // Nor what is said before the host knows of it.
    let answers = answers && !(operation.verb == Verb::Rebuild && leaves_to_be_rebuilt(instance));
    (state.state == State::Failed && answers).then(|| {
        let message = match (state.reason.as_str(), state.message.as_str()) {
            ("", "") => "the host gave no reason; see the agent's log".to_owned(),
            (reason, "") => reason.to_owned(),
            (reason, message) => format!("{reason}: {message}"),
        };
        Some(Failure { reason: Reason::InstanceFailed.as_str().to_owned(), message })
    })
}

/// It runs, or is off and may stay so.
fn rests_as_wanted(instance: &Instance, state: State) -> bool {
    state == State::Stopped || state == State::Running && instance.intent.power == Power::Running
}

enum Joins {
    /// Also of what is to be no node, or is to be off.
    Done,
    NotYet,
    Never(Failure),
}

/// A start is done when its node is Ready, where it is to be one.
fn joins(instance: &Instance) -> Joins {
    let Some(node) = instance.node.as_ref().filter(|_| instance.intent.power == Power::Running) else {
        return Joins::Done;
    };
    let given_up = [told::NODE_NEVER_READY, told::NODE_NAME_TAKEN, told::NODE_MISSING].contains(&node.reason.as_str());
    match node.phase {
        NodePhase::Joined if node.ready => Joins::Done,
        _ if given_up || node.phase == NodePhase::Missed => Joins::Never(Failure {
            reason: Reason::NodeNotJoined.as_str().to_owned(),
            message: format!("{}: {}", told::condition(node).reason, node.message),
        }),
        _ => Joins::NotYet,
    }
}

/// What an open operation waits for besides its state.
#[must_use]
pub fn waits_for_node(instance: &Instance) -> Option<String> {
    let node = instance.node.as_ref()?;
    let condition = told::condition(node);
    let message = if node.message.is_empty() { String::new() } else { format!(": {}", node.message) };
    matches!(joins(instance), Joins::NotYet)
        .then(|| format!("its node is not ready yet: {}{message}", condition.reason))
}

fn requested(instance: &Instance, device: &str) -> bool {
    instance.spec.devices.iter().any(|request| request.id == device)
}

fn wants(instance: &Instance, device: &str) -> bool {
    requested(instance, device) && !instance.intent.detaching.contains_key(device)
}

fn superseded(message: &str) -> Failure {
    Failure { reason: Reason::OperationSuperseded.as_str().to_owned(), message: message.to_owned() }
}

/// How long it has been in its state, past the state's deadline; `None` while in time.
#[must_use]
pub fn overdue(instance: &Instance, now: Timestamp) -> Option<Duration> {
    let deadline = instance.status.state.row().deadline?;
    let spent = now.since(instance.status.state_time);
    spent.checked_sub(deadline).filter(|over| !over.is_zero())
}
