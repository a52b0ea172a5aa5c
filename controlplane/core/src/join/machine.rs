//! An instance's life as a node: what is done next, from what is wanted, what the host says of the guest, and what the cluster
//! says of the node. Pure; asked again after every change, and always gives the same answer for the same input.
//!
//! ```text
//!  WAITING ── token and seed ──► BOOTING ── Node is there, token deleted, seed replaced ──► JOINED
//!     ▲ ▲                           │ not in time: token deleted       ▲ it came after all     │ stop, delete, drain
//!     │ └── its host was fenced ──  └───────────────────► MISSED ──────┘                      ▼
//!     └─ start ── LEFT ◄─────────────────────────────────── LEAVING: cordon, evict, Node and token deleted
//! ```
//! | phase | the host may | undo |
//! |---|---|---|
//! | WAITING | not start it: there is no token yet | leave |
//! | BOOTING, JOINED | run it; not stop it: its pods are drained first | leave |
//! | MISSED | run it, for whoever wants to look inside | leave, and start again |
//! | LEAVING | run it | start again |
//! | LEFT | stop and remove it | start |
//!
//! [`next`] decides; [`power_told`] is what the host is told meanwhile; [`told`] is what people read of it.

mod next;
mod power;
pub mod told;
pub mod without;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::instance::rest::stays_off;
use crate::instance::{Instance, Observed, Phase as GuestPhase, Power};
use crate::join::keep::HeldBack;
use crate::maintenance::power_asked;

/// How long a token lives; made good again while the boot goes on.
pub const TOKEN_LIFE: Duration = Duration::from_secs(600);
const TOKEN_RENEW: Duration = Duration::from_secs(300);
/// From the start of the guest to a Node that is there, and from there to one that is Ready.
pub const JOIN_DEADLINE: Duration = Duration::from_secs(1200);
/// From the permission to start to the start: an image may have to come from far away.
pub const START_DEADLINE: Duration = Duration::from_secs(3600);
/// A cluster that was away answers for as long again before a join is called missed: a kubelet asks anew every three minutes.
const JOIN_GRACE: Duration = Duration::from_secs(300);
/// How long pods may take to leave once they are told to; then the node goes with what is still on it. As long a stop waits for a
/// cluster that does not answer.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(600);
/// How long the pods of a machine that was fenced may take to be let go of.
const LOST_DEADLINE: Duration = Duration::from_secs(120);

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

impl Phase {
    /// Its guest is nothing to the cluster: it may not join yet, or has left.
    #[must_use]
    pub fn is_outside(self) -> bool {
        matches!(self, Self::Waiting | Self::Left)
    }
}

/// The plane's own record of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub phase: Phase,
    pub phase_time: Timestamp,
    /// In the seed, and perhaps in the cluster; `None`: in neither.
    pub token: Option<Token>,
    /// How far its kubelet came since it may boot.
    pub step: Step,
    /// The machine that joined is off for certain, because its host was fenced: what comes next is another one.
    pub lost: bool,
    /// The host may stop and remove it although its Node is still there.
    pub released: bool,
    pub ready: bool,
    /// Since when it is ready, or is not.
    pub ready_time: Timestamp,
    /// What stands in the way, in one word and in one sentence; empty: nothing.
    pub reason: String,
    pub message: String,
    /// When something was done about its machine because it was not well; of the last day, oldest first.
    #[serde(default)]
    pub repairs: Vec<Timestamp>,
    /// Of these, when the machine lost its disk by it.
    #[serde(default)]
    pub rebuilds: Vec<Timestamp>,
    /// Why nothing is done although it is not well.
    #[serde(default)]
    pub held_back: Option<HeldBack>,
    /// As its host was told last: what stands while a start or a stop is held back.
    #[serde(default = "PowerTold::unknown")]
    pub power_told: PowerTold,
    /// Since when its pods are told to go; `None`: they are not, or nobody could tell them yet.
    #[serde(default)]
    pub drain: Option<Drain>,
    /// Which of its machine's faults the events of its Node have; empty: none of now.
    #[serde(default)]
    pub tiding: String,
}

impl Node {
    /// As it begins: `phase` is `Left` for what is not to run yet.
    #[must_use]
    pub fn new(name: String, phase: Phase, now: Timestamp) -> Self {
        Self {
            name,
            phase,
            phase_time: now,
            token: None,
            step: Step::Nothing,
            lost: false,
            released: false,
            ready: false,
            ready_time: now,
            reason: String::new(),
            message: String::new(),
            repairs: Vec::new(),
            rebuilds: Vec::new(),
            held_back: None,
            power_told: PowerTold::NOTHING,
            drain: None,
            tiding: String::new(),
        }
    }

    pub fn enter(&mut self, phase: Phase, now: Timestamp) {
        if self.phase == phase {
            return;
        }
        (self.phase, self.phase_time) = (phase, now);
        (self.held_back, self.drain) = (None, None);
        match phase {
            Phase::Booting => (self.step, self.lost, self.released) = (Step::Nothing, false, false),
            Phase::Waiting | Phase::Joined => self.released = false,
            Phase::Missed | Phase::Leaving | Phase::Left => {}
        }
        if phase != Phase::Joined {
            self.is_ready(false, now);
        }
    }

    pub fn is_ready(&mut self, ready: bool, now: Timestamp) {
        if self.ready != ready {
            (self.ready, self.ready_time) = (ready, now);
        }
    }

    /// Its host was fenced: whatever joined is off, and what is started elsewhere begins anew.
    pub fn lose(&mut self, now: Timestamp) {
        if matches!(self.phase, Phase::Booting | Phase::Missed | Phase::Joined) {
            self.enter(Phase::Waiting, now);
        }
        if self.phase != Phase::Left {
            self.lost = true;
        }
        self.power_told.power = Power::Stopped;
    }
}

/// A drain counts from the first time that the pods were told to go, not from when somebody wished it: before that nobody could
/// have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    pub since: Timestamp,
    pub way: Way,
}

/// How pods are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Way {
    /// Each is evicted, and its kubelet ends it.
    Evicted,
    /// Their machine is off, and the cluster lets go of them.
    LetGo,
}

impl Drain {
    fn is_over(self, now: Timestamp) -> bool {
        let deadline = match self.way {
            Way::Evicted => DRAIN_DEADLINE,
            Way::LetGo => LOST_DEADLINE,
        };
        now.since(self.since) > deadline
    }
}

/// A bootstrap token, by what is not secret of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub id: String,
    pub expire_time: Timestamp,
}

/// What was seen of a kubelet on its way to a Node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    Nothing,
    /// Its request for a certificate was denied, and why.
    Denied(String),
    /// It may have its certificate.
    Granted,
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
    /// Since when the cluster has answered without a gap.
    pub since: Timestamp,
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
    /// It should be a node: it is to run, and on the disk that it has.
    pub wanted: bool,
    /// It has a host that it may start on, and there the disk that it is to start on.
    pub placed: bool,
    /// It is off, and nobody is about to start it: by its host's own word, or because it was fenced. Never because nobody is heard.
    pub off: bool,
    /// Its delete does not wait for pods.
    pub forced: bool,
    /// It leaves to be made anew, and not to be off.
    pub rebuilt: bool,
    pub start_time: Option<Timestamp>,
}

impl Guest {
    #[must_use]
    pub fn of(instance: &Instance) -> Self {
        let observed = instance.status.observed.as_ref();
        let lost = instance.node.as_ref().is_some_and(|node| node.lost);
        Self {
            wanted: wanted(instance) && !leaves_to_be_rebuilt(instance),
            placed: instance.host().is_some() && !instance.lacks_disk(),
            off: instance.host().is_none() || lost || observed.is_some_and(|seen| is_off(instance, seen)),
            forced: instance.meta.delete_time.is_some() && instance.intent.delete_force,
            rebuilt: wanted(instance) && leaves_to_be_rebuilt(instance),
            start_time: observed.and_then(|seen| seen.start_time),
        }
    }
}

/// A rebuild makes another machine of it: the node leaves first.
#[must_use]
pub fn leaves_to_be_rebuilt(instance: &Instance) -> bool {
    instance.lacks_disk() && instance.node.as_ref().is_some_and(|node| !node.phase.is_outside())
}

/// The count of its disk that its host is told: of a rebuild only when the node has left.
#[must_use]
pub fn disk_told(instance: &Instance) -> i64 {
    match &instance.status.observed {
        Some(seen) if leaves_to_be_rebuilt(instance) => seen.disk_generation,
        _ => instance.intent.disk_generation,
    }
}

/// A node on a host under maintenance leaves its cluster as one that is stopped does.
pub(super) fn wanted(instance: &Instance) -> bool {
    instance.meta.delete_time.is_none() && power_asked(instance).0 == Power::Running
}

fn is_off(instance: &Instance, seen: &Observed) -> bool {
    let (power, generation) = power_told(instance);
    let runs = power == Power::Running;
    match seen.phase {
        // What its host was told to start may be starting by now, whatever it said before.
        GuestPhase::Off if runs => stays_off(instance, seen, generation),
        GuestPhase::Off => true,
        GuestPhase::Absent => !runs,
        _ => false,
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
    /// From now on the drain counts.
    Drains(Way),
    DeleteNode,
    OutOfService(bool),
    Enter(Phase, Why),
}

/// Why a phase was entered; the condition `Joined` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    AsWanted,
    /// No Node in time.
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
        start: !phase.is_outside(),
        stop: phase == Phase::Left,
        register: is(&[Phase::Booting, Phase::Missed, Phase::Joined]),
    }
}

/// Nothing of it is in the cluster any more, or it never was a node.
#[must_use]
pub fn has_left(instance: &Instance) -> bool {
    instance.node.as_ref().is_none_or(|node| node.phase == Phase::Left && node.token.is_none())
}

pub use next::{drains, next};
pub use power::{Held, PowerTold, held, power_told, tell_power};

#[cfg(test)]
mod tests;
