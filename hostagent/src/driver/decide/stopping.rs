//! Towards off: intent is STOPPED, or there is a tombstone.

use croft_proto::agent::v1::DesiredInstance;
use croft_proto::agent::v1::instance_observation::Phase;

use super::{ASK_AGAIN, Action, Decision, Next, Seen, View, Why, rest, wait};
use crate::hypervisor::{Domain, Power};
use crate::reasons;

/// It must not be: off, then removed, then seen to be gone.
pub(super) fn buried(view: &View<'_>, domain: Option<&Domain>) -> Decision {
    let Some(grave) = &view.record.tombstone else { return rest(Phase::Absent, Why::default()) };
    match domain.map(|domain| &domain.power) {
        None if grave.gone && view.record.after.is_some() => {
            Decision { phase: Some(Phase::Absent), why: Why::default(), next: Next::Act(Action::Revive) }
        }
        None if grave.gone => rest(Phase::Absent, Why::default()),
        None | Some(Power::Off(_)) => view.attempt(Action::Remove, Phase::Stopping, Why::default(), None),
        // Paused guests hear nothing, and nobody will read what this one might still have written.
        Some(Power::Paused { .. }) => pull(view),
        Some(Power::Running) if grave.force => pull(view),
        Some(Power::Running) => ask(view, i64::MAX),
    }
}

/// It must not run.
pub(super) fn stopped(view: &View<'_>, desired: &DesiredInstance, domain: Option<&Domain>) -> Decision {
    match domain.map(|domain| &domain.power) {
        Some(Power::Running | Power::Paused { .. }) => ask(view, desired.power_generation),
        // Created stopped, or undefined by somebody: off means defined and not running.
        None => view.attempt(Action::Prepare, Phase::Preparing, Why::default(), None),
        Some(Power::Off(_)) => view.at_rest(desired, Why::default()),
    }
}

/// Its root disk is to be another one: off, whatever else is wanted of it, and then a new disk. What comes after that is the
/// matter of the other rows.
pub(super) fn rebuilding(view: &View<'_>, desired: &DesiredInstance, domain: Option<&Domain>) -> Decision {
    match domain.map(|domain| &domain.power) {
        Some(Power::Running) => ask(view, desired.power_generation),
        // Paused guests hear nothing, and nothing of this one is kept.
        Some(Power::Paused { .. }) => pull(view),
        None | Some(Power::Off(_)) => view.attempt(Action::ReplaceDisk, Phase::Preparing, Why::default(), None),
    }
}

/// Asks the guest, again and again, and pulls the plug at the deadline. `for_power`: the stop must have been asked for by
/// this power_generation or a later one; an older one was taken back since, and its deadline with it. A tombstone's is
/// the highest there is.
fn ask(view: &View<'_>, for_power: i64) -> Decision {
    let timeout = view.record.stop_timeout();
    if timeout.is_zero() {
        return pull(view);
    }
    let asked = view.record.stop.as_ref().filter(|stop| stop.power_generation >= for_power);
    let Some(stop) = asked else {
        return view.attempt(Action::AskStop, Phase::Stopping, requested(), None);
    };
    let Some(deadline) = stop.asked.after(timeout, view.boot_id).filter(|at| at.left(view.now).is_some()) else {
        return pull(view);
    };
    let again = view.memory.asked_to_stop.map(|at| at.plus(ASK_AGAIN)).filter(|at| at.left(view.now).is_some());
    match again {
        Some(again) => wait(Phase::Stopping, requested(), again.min(deadline)),
        None => view.attempt(Action::AskStop, Phase::Stopping, requested(), Some(deadline)),
    }
}

fn pull(view: &View<'_>) -> Decision {
    view.attempt(Action::Destroy, Phase::Stopping, requested(), None)
}

fn requested() -> Why {
    Why::new(reasons::STOP_REQUESTED, "")
}

impl View<'_> {
    /// Off, and to stay so; `why`, when that is not what intent says.
    pub(super) fn at_rest(&self, desired: &DesiredInstance, why: Why) -> Decision {
        if self.counters_lag(desired) {
            return Decision { phase: Some(Phase::Off), why, next: Next::Act(Action::Settle) };
        }
        let there = matches!(self.seen, Seen::Present(_));
        let stale = there && self.seed_is_stale(desired);
        if stale && !self.is_held_back(Action::ReplaceSeed) {
            return self.attempt(Action::ReplaceSeed, Phase::Off, why, None);
        }
        if super::devices::is_work(self, desired) {
            return self.attempt(Action::Devices, Phase::Off, why, None);
        }
        if stale { self.attempt(Action::ReplaceSeed, Phase::Off, why, None) } else { rest(Phase::Off, why) }
    }

    /// A rebuild was asked for since its root disk was made.
    pub(super) fn disk_is_stale(&self, desired: &DesiredInstance) -> bool {
        matches!(self.seen, Seen::Present(domain) if domain.disk_generation < desired.disk_generation)
    }

    /// What lies on the seed's volume is not what should, as far as the journal knows.
    pub(super) fn seed_is_stale(&self, desired: &DesiredInstance) -> bool {
        let kept = self.record.seed.as_ref().map_or("", |kept| kept.digest.as_str());
        !desired.seed_digest.is_empty() && kept != desired.seed_digest
    }

    /// Does the plane still wait to hear that something was carried out?
    pub(super) fn counters_lag(&self, desired: &DesiredInstance) -> bool {
        let done = self.record.done;
        done.power < desired.power_generation
            || done.reboot < desired.reboot_generation
            || done.reset < desired.reset_generation
    }
}
