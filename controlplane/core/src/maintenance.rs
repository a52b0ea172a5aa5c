//! A host's maintenance: nothing new comes, what runs there is stopped, and starts again when it ends.
//!
//! ```text
//!            drain                    nothing runs there any more
//!  (none) ──────────► DRAINING ──────────────────────────────────► DRAINED
//!     ▲                  │ undrain: what was stopped                  │ undrain
//!     └──────────────────┴─ starts again, the rest runs on ◄──────────┘
//! ```
//! A drain writes nobody's intent. It *parks* the instances of its host: what they hold and what their users want stays as it is,
//! and the host is told that they are to be off ([`power_asked`]). The mark is part of the placement, so it goes with the host:
//! an instance that is placed anew, because its host was fenced, is parked no more. A node of a cluster leaves it first, by the
//! same path as at a stop.
//!
//! [`plan`] says beforehand what a drain does to each instance.

mod plan;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::instance::rest::stays_off;
use crate::instance::{Instance, Observed, Phase as GuestPhase, Power};
use crate::join::machine::power_told;

pub use plan::{Effect, Expected, Step, differences, plan};

/// Why an instance that should run is off, in one word. It has a page in docs/errors.
pub const HOST_MAINTENANCE: &str = "HostMaintenance";
/// Reasons of an agent for FAILED that say nothing of whether the guest runs.
const KNOWS_NOT: [&str; 2] = ["JournalCorrupt", "AgentFault"];
/// Of the words that go with a drain.
pub const WHY_MAX: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    /// Something on it may still run.
    Draining,
    /// All that is on it is off, by its own word, and stays off.
    Drained,
}

impl Phase {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "DRAINING",
            Self::Drained => "DRAINED",
        }
    }
}

/// Of a host; kept on its row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    pub phase: Phase,
    pub start_time: Timestamp,
    pub drained_time: Option<Timestamp>,
    /// Who drained it.
    pub actor: String,
    /// In his words; tenants read it. Empty: he gave none.
    pub why: String,
}

impl Maintenance {
    #[must_use]
    pub fn begin(actor: String, why: String, now: Timestamp) -> Self {
        Self { phase: Phase::Draining, start_time: now, drained_time: None, actor, why }
    }

    /// For people: how far it is, by whom, why.
    #[must_use]
    pub fn words(&self) -> String {
        let why = if self.why.is_empty() { String::new() } else { format!(": {}", self.why) };
        format!("{}, by {}{why}", self.phase.as_str(), self.actor)
    }
}

/// Its host is under maintenance: it may not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    pub why: String,
    /// What its host is told with STOPPED. A start that comes later has a higher one, and is told when the maintenance is over.
    pub power_generation: i64,
    /// It ran, or was about to: it starts again.
    pub ran: bool,
}

#[must_use]
pub fn parked(instance: &Instance) -> Option<&Parked> {
    instance.placement.as_ref()?.parked.as_ref()
}

/// Whether it starts when the maintenance ends. A guest that had powered itself off before stays off, unless somebody started it
/// since.
#[must_use]
pub fn resumes(instance: &Instance) -> bool {
    let starts = |parked: &Parked| parked.ran || instance.intent.power_generation > parked.power_generation;
    instance.meta.delete_time.is_none()
        && instance.intent.power == Power::Running
        && parked(instance).is_some_and(starts)
}

/// The power that its user and its host's operator ask for, and the counter with it.
#[must_use]
pub fn power_asked(instance: &Instance) -> (Power, i64) {
    let intent = &instance.intent;
    match parked(instance) {
        Some(parked) if intent.power == Power::Running => (Power::Stopped, parked.power_generation),
        _ => (intent.power, intent.power_generation),
    }
}

/// What keeps it off, for its user; `None`: not the maintenance.
#[must_use]
pub fn words(instance: &Instance) -> Option<String> {
    let parked = parked(instance).filter(|_| resumes(instance))?;
    let host = instance.host()?;
    let why = if parked.why.is_empty() { String::new() } else { format!(" ({})", parked.why) };
    Some(format!("hosts/{host} is under maintenance{why}; it starts again when that ends"))
}

/// Its guest is off, and its host knows that it is to stay so: by an answer to what it is told now.
#[must_use]
pub fn is_still(instance: &Instance) -> bool {
    let (power, generation) = power_told(instance);
    let answers = |seen: &Observed| {
        seen.generation >= instance.meta.generation
            // Counters are not settled before there is something to start.
            && (seen.power_generation >= generation || matches!(seen.phase, GuestPhase::Preparing | GuestPhase::Failed))
    };
    let off = |seen: &Observed| answers(seen) && !runs(seen);
    instance.meta.delete_time.is_none() && power == Power::Stopped && instance.status.observed.as_ref().is_some_and(off)
}

/// Whether a guest runs, or is being started or stopped.
fn runs(seen: &Observed) -> bool {
    match seen.phase {
        GuestPhase::Off | GuestPhase::Absent => false,
        // What its agent has lost the record of, or fell over, it cannot say to be off.
        GuestPhase::Failed if KNOWS_NOT.contains(&seen.reason.as_str()) => true,
        // An agent tells since when a guest runs for as long as it does.
        GuestPhase::Preparing | GuestPhase::Failed => seen.start_time.is_some(),
        GuestPhase::Starting | GuestPhase::Running | GuestPhase::Stopping | GuestPhase::Paused => true,
    }
}

/// It is off, though it should run, because its guest or its restart policy wants it so.
fn rests(instance: &Instance) -> bool {
    let seen = instance.status.observed.as_ref();
    seen.is_some_and(|seen| stays_off(instance, seen, instance.intent.power_generation))
}

/// Returns by how much its power counter rose: operations that wait for the old one wait for the new one.
///
/// It rises so that the stop has its full time, also where the guest was asked a moment ago by a drain that was taken back.
pub fn park(instance: &mut Instance, why: &str) -> i64 {
    let ran = instance.intent.power == Power::Running && !rests(instance);
    let Some(placement) = &mut instance.placement else { return 0 };
    let rise = i64::from(ran);
    instance.intent.power_generation += rise;
    placement.parked = Some(Parked { why: why.to_owned(), power_generation: instance.intent.power_generation, ran });
    // An answer that is older than this proves nothing.
    instance.meta.generation += 1;
    rise
}

/// The other way; likewise.
pub fn unpark(instance: &mut Instance) -> i64 {
    // Its host takes a higher counter for a start, whatever it thinks of how the guest ended.
    let rise = i64::from(resumes(instance));
    let Some(placement) = &mut instance.placement else { return 0 };
    placement.parked = None;
    instance.intent.power_generation += rise;
    instance.meta.generation += 1;
    rise
}

/// As people say it.
fn spent(span: Duration) -> String {
    match span.as_secs() {
        secs if secs >= 120 && secs % 60 == 0 => format!("{} min", secs / 60),
        secs => format!("{secs} s"),
    }
}
