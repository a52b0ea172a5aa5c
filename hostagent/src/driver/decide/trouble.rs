//! An action that failed, and how long that holds the next try of the same action back.

use std::time::Duration;

use croft_proto::agent::v1::instance_observation::Phase;

use super::{Action, Decision, Next, Seen, View, Why};
use crate::clock::Steady;
use crate::devices;
use crate::journal::Record;

/// A refusal is not tried again sooner, unless intent changes.
pub const REFUSED_FOR: Duration = Duration::from_secs(300);
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub action: Action,
    /// Under another intent the action is tried at once.
    pub intent: Intent,
    pub why: Why,
    /// Will not work however often it is tried.
    pub refused: bool,
    pub tries: u32,
    pub until: Steady,
}

/// What a person would have to change for a failed action to deserve another try.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Intent {
    generation: i64,
    power: i64,
    reboot: i64,
    reset: i64,
    disk: i64,
    buried: Option<bool>,
}

impl Intent {
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let buried = record.tombstone.as_ref().map(|grave| grave.force);
        record.desired.as_ref().map_or(Self { buried, ..Self::default() }, |desired| Self {
            generation: desired.generation,
            power: desired.power_generation,
            reboot: desired.reboot_generation,
            reset: desired.reset_generation,
            disk: desired.disk_generation,
            buried,
        })
    }
}

impl Trouble {
    /// After `previous` (if it was about the same thing) another failure at `now`.
    #[must_use]
    pub fn after(
        previous: Option<&Self>,
        action: Action,
        intent: Intent,
        why: Why,
        refused: bool,
        now: Steady,
    ) -> Self {
        let tries = previous.filter(|trouble| trouble.is_about(action, intent)).map_or(0, |trouble| trouble.tries) + 1;
        let span = if refused { REFUSED_FOR } else { exponential(tries, LONGEST) };
        Self { action, intent, why, refused, tries, until: now.plus(span) }
    }

    fn is_about(&self, action: Action, intent: Intent) -> bool {
        self.action == action && self.intent == intent
    }
}

/// 1 s, 2 s, 4 s and so on.
pub(in crate::driver) fn exponential(nth: u32, longest: Duration) -> Duration {
    Duration::from_secs(1).saturating_mul(1 << nth.saturating_sub(1).min(16)).min(longest)
}

impl View<'_> {
    /// It failed a moment ago, and is not due again.
    pub(super) fn is_held_back(&self, action: Action) -> bool {
        let intent = Intent::of(self.record);
        let mut troubles = self.memory.troubles.iter().filter(|trouble| trouble.is_about(action, intent));
        troubles.any(|trouble| trouble.until.left(self.now).is_some())
    }

    /// Do it, unless it failed a moment ago. `deadline`: when to look again in any case.
    pub(super) fn attempt(&self, action: Action, phase: Phase, why: Why, deadline: Option<Steady>) -> Decision {
        let known = self.memory.troubles.iter().find(|trouble| trouble.is_about(action, Intent::of(self.record)));
        let Some(trouble) = known else { return Decision { phase: Some(phase), why, next: Next::Act(action) } };
        if trouble.until.left(self.now).is_none() {
            // Another try says why there had to be one, until it is through.
            return Decision { phase: Some(phase), why: trouble.why.clone(), next: Next::Act(action) };
        }
        let begins = matches!(action, Action::Prepare | Action::Start | Action::ReplaceDisk);
        let given_up = trouble.refused && (begins || action == Action::Remove);
        // Nobody knows when a device comes back: it does not "start" meanwhile.
        let lacks_device = begins && devices::is_obstacle(trouble.why.reason);
        let phase = match self.seen {
            _ if given_up => Phase::Failed,
            Seen::Present(_) if lacks_device => Phase::Off,
            _ if lacks_device => Phase::Failed,
            _ => phase,
        };
        let until = deadline.map_or(trouble.until, |deadline| deadline.min(trouble.until));
        Decision { phase: Some(phase), why: trouble.why.clone(), next: Next::Wait(Some(until)) }
    }
}
