//! An instance's life as a node: what is done next, from what is wanted, what the host says of the guest, and what the cluster
//! says of the node. Pure; asked again after every change, and always gives the same answer for the same input.
//!
//! ```text
//!  WAITING ── token and seed ──► BOOTING ── Node is there, token deleted, seed replaced ──► JOINED
//!     ▲                             │ not in time: token deleted       ▲ it came after all     │ stop, delete, drain
//!     │                             └───────────────────► MISSED ──────┘                      ▼
//!     └─ start ── LEFT ◄─────────────────────────────────── LEAVING: cordon, evict, Node and token deleted
//! ```
//! | phase | the host may | undo |
//! |---|---|---|
//! | WAITING | not start it: there is no token yet | leave |
//! | BOOTING, JOINED | run it; not stop it: its pods are drained first | leave |
//! | MISSED | run it, for whoever wants to look inside | leave, and start again |
//! | LEAVING | run it | start again |
//! | LEFT | stop and remove it | start |

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::instance::{Instance, Phase as GuestPhase, Power};

/// How long a token lives; made good again while the boot goes on.
pub const TOKEN_LIFE: Duration = Duration::from_secs(600);
const TOKEN_RENEW: Duration = Duration::from_secs(300);
/// From the start of the guest to a Node that is Ready.
pub const JOIN_DEADLINE: Duration = Duration::from_secs(1200);
/// How long pods may take to leave; then the node goes with what is still on it.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    Waiting,
    Booting,
    Missed,
    Joined,
    Leaving,
    Left,
}

/// The plane's own record of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub phase: Phase,
    pub phase_time: Timestamp,
    /// Until when the token is good; `None`: there is none to our knowledge, and none in the seed.
    pub token_expire_time: Option<Timestamp>,
}

/// What the cluster says; asked for anew each time, so never older than the look itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    pub node: Option<SeenNode>,
    /// The token's Secret is there.
    pub token: bool,
    /// Pods that an eviction may still move, and the budgets that keep some of them.
    pub pods: usize,
    pub blocked_by: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenNode {
    /// It says so itself, once, and cannot take it back: whose it is.
    pub provider_id: String,
    pub ready: bool,
    /// Labels, taints and annotations are as they should be.
    pub dressed: bool,
    pub cordoned: bool,
    pub out_of_service: bool,
}

/// Of the instance, what matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guest {
    /// It should run.
    pub wanted: bool,
    /// It is off: by its host's own word, or because it was fenced. Never because nobody is heard.
    pub off: bool,
    pub start_time: Option<Timestamp>,
}

impl Guest {
    #[must_use]
    pub fn of(instance: &Instance) -> Self {
        let observed = instance.status.observed.as_ref();
        let says_off = observed.is_some_and(|seen| matches!(seen.phase, GuestPhase::Off | GuestPhase::Absent));
        Self {
            wanted: instance.meta.delete_time.is_none() && instance.intent.power == Power::Running,
            off: instance.host().is_none() || says_off,
            start_time: observed.and_then(|seen| seen.start_time),
        }
    }
}

/// One thing to do. All of them are safe to repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Make the token good until then, and put it into the seed.
    Token(Timestamp),
    /// Delete the token, and replace the seed by one without it.
    Forget,
    Dress,
    Cordon,
    Uncordon,
    Evict,
    DeleteNode,
    OutOfService(bool),
    Enter(Phase, Why),
}

/// Why a phase was entered; the condition `Joined` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    AsWanted,
    /// Not Ready in time.
    TooLate,
    /// A Node of that name is there, and says that it is somebody else's.
    NameTaken(String),
}

/// What others are allowed to do meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gates {
    /// The host may start the guest.
    pub start: bool,
    /// The host may stop and remove it.
    pub stop: bool,
    /// The kubelet may make its Node: the cluster's admission policy knows the name. A certificate cannot be taken away, so a
    /// kubelet that still runs would make the Node that was just deleted again.
    pub register: bool,
}

#[must_use]
pub fn gates(phase: Phase) -> Gates {
    let is = |phases: &[Phase]| phases.contains(&phase);
    Gates {
        start: !is(&[Phase::Waiting, Phase::Left]),
        stop: phase == Phase::Left,
        register: is(&[Phase::Booting, Phase::Missed, Phase::Joined]),
    }
}

/// What to do now; nothing: wait.
#[must_use]
pub fn next(node: &Node, guest: Guest, provider_id: &str, seen: &Seen, now: Timestamp) -> Vec<Act> {
    let foreign = seen.node.as_ref().filter(|there| there.provider_id != provider_id);
    if let (Some(there), true, Phase::Waiting | Phase::Booting) = (foreign, guest.wanted, node.phase) {
        return vec![Act::Enter(Phase::Waiting, Why::NameTaken(there.provider_id.clone()))];
    }
    // What is somebody else's is nothing to us.
    let seen = &Seen { node: seen.node.clone().filter(|_| foreign.is_none()), ..seen.clone() };
    match (node.phase, guest.wanted) {
        (Phase::Waiting, true) => waiting(node, seen, now),
        (Phase::Booting, true) => booting(node, guest, seen, now),
        (Phase::Missed, true) => missed(node, seen),
        (Phase::Joined, true) => joined(node, guest, seen),
        (Phase::Leaving, true) => back(seen),
        (Phase::Left, true) => vec![Act::Enter(Phase::Waiting, Why::AsWanted)],
        (Phase::Left, false) => left(node, seen),
        (Phase::Leaving, false) => leaving(node, guest, seen, now),
        // Nobody is on it: there is nothing to drain.
        (Phase::Waiting | Phase::Booting | Phase::Missed, false) if seen.node.is_none() => left_behind(node, seen),
        (Phase::Waiting | Phase::Booting | Phase::Missed | Phase::Joined, false) => {
            vec![Act::Enter(Phase::Leaving, Why::AsWanted)]
        }
    }
}

fn waiting(node: &Node, seen: &Seen, now: Timestamp) -> Vec<Act> {
    if good(node, seen, now) {
        return vec![Act::Enter(Phase::Booting, Why::AsWanted)];
    }
    vec![Act::Token(now.plus(TOKEN_LIFE))]
}

fn booting(node: &Node, guest: Guest, seen: &Seen, now: Timestamp) -> Vec<Act> {
    if seen.node.is_some() {
        return forget_then(node, seen, Act::Enter(Phase::Joined, Why::AsWanted));
    }
    if late(node, guest, now) {
        return forget_then(node, seen, Act::Enter(Phase::Missed, Why::TooLate));
    }
    if good(node, seen, now) { Vec::new() } else { vec![Act::Token(now.plus(TOKEN_LIFE))] }
}

fn missed(node: &Node, seen: &Seen) -> Vec<Act> {
    match seen.node {
        Some(_) => forget_then(node, seen, Act::Enter(Phase::Joined, Why::AsWanted)),
        None if has_token(node, seen) => vec![Act::Forget],
        None => Vec::new(),
    }
}

fn joined(node: &Node, guest: Guest, seen: &Seen) -> Vec<Act> {
    let mut acts = Vec::new();
    if has_token(node, seen) {
        acts.push(Act::Forget);
    }
    let Some(there) = &seen.node else { return acts };
    if !there.dressed {
        acts.push(Act::Dress);
    }
    if guest.off != there.out_of_service {
        acts.push(Act::OutOfService(guest.off));
    }
    acts
}

/// It is wanted again before it left.
fn back(seen: &Seen) -> Vec<Act> {
    match &seen.node {
        Some(there) if there.cordoned => vec![Act::Uncordon],
        Some(_) => vec![Act::Enter(Phase::Joined, Why::AsWanted)],
        None => vec![Act::Enter(Phase::Waiting, Why::AsWanted)],
    }
}

fn leaving(node: &Node, guest: Guest, seen: &Seen, now: Timestamp) -> Vec<Act> {
    let Some(there) = &seen.node else { return left_behind(node, seen) };
    if !there.cordoned {
        return vec![Act::Cordon];
    }
    let late = now.since(node.phase_time) > DRAIN_DEADLINE;
    if seen.pods == 0 || late || guest.off {
        return vec![Act::DeleteNode];
    }
    vec![Act::Evict]
}

fn left(node: &Node, seen: &Seen) -> Vec<Act> {
    // A kubelet that still runs makes its Node again until its machine is off.
    let mut acts = Vec::new();
    if seen.node.is_some() {
        acts.push(Act::DeleteNode);
    }
    if has_token(node, seen) {
        acts.push(Act::Forget);
    }
    acts
}

fn left_behind(node: &Node, seen: &Seen) -> Vec<Act> {
    forget_then(node, seen, Act::Enter(Phase::Left, Why::AsWanted))
}

fn forget_then(node: &Node, seen: &Seen, then: Act) -> Vec<Act> {
    if has_token(node, seen) { vec![Act::Forget] } else { vec![then] }
}

fn has_token(node: &Node, seen: &Seen) -> bool {
    seen.token || node.token_expire_time.is_some()
}

fn good(node: &Node, seen: &Seen, now: Timestamp) -> bool {
    seen.token && node.token_expire_time.is_some_and(|end| end.since(now) > TOKEN_RENEW)
}

fn late(node: &Node, guest: Guest, now: Timestamp) -> bool {
    let since = guest.start_time.map_or(node.phase_time, |start| start.max(node.phase_time));
    now.since(since) > JOIN_DEADLINE
}

#[cfg(test)]
mod tests;
