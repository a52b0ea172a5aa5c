//! Towards running: intent is RUNNING.

use std::time::Duration;

use croft_proto::agent::v1::DesiredInstance;
use croft_proto::agent::v1::instance_observation::Phase;
use croft_proto::v1::instance_spec::Restart;

use super::trouble::exponential;
use super::{
    Action, Decision, Next, RESUME_EVERY, RESUME_FLOOR_GIB, STOP_LINGERS, Starts, View, Why, note, paused_reason, rest,
    wait,
};
use crate::clock::Steady;
use crate::hypervisor::Domain;
use crate::journal::{End, Ended};
use crate::reasons;

/// The longest wait between two starts of a guest that keeps crashing.
pub const RESTART_BACK_OFF_MAX: Duration = Duration::from_secs(300);
/// A run this long ends a streak of crashes.
pub const STREAK_ENDS_AFTER: Duration = Duration::from_secs(600);

/// How long the restart after the nth end in a row waits.
#[must_use]
pub fn back_off(streak: u32) -> Duration {
    if streak == 0 { Duration::ZERO } else { exponential(streak, RESTART_BACK_OFF_MAX) }
}

/// It runs, as it should.
pub(super) fn running(view: &View<'_>, desired: &DesiredInstance) -> Decision {
    let record = view.record;
    if record.done.power < desired.power_generation {
        return Decision { phase: Some(Phase::Running), why: Why::default(), next: Next::Act(Action::Settle) };
    }
    // The old one may hold what nobody should read any more. While that cannot be done, the rest goes on.
    if view.seed_is_stale(desired) && !view.is_held_back(Action::ReplaceSeed) {
        return view.attempt(Action::ReplaceSeed, Phase::Running, Why::default(), None);
    }
    if record.done.reset < desired.reset_generation {
        return view.attempt(Action::Reset, Phase::Running, Why::default(), None);
    }
    if record.done.reboot < desired.reboot_generation {
        return rebooting(view, desired);
    }
    if let Some(stop) = &record.stop {
        // Taken back, but the guest has heard it: if it ends soon, it did so because it was asked.
        return match stop.asked.after(record.stop_timeout() + STOP_LINGERS, view.boot_id) {
            Some(until) if until.left(view.now).is_some() => wait(Phase::Running, Why::default(), until),
            _ => note(Action::ForgetStop),
        };
    }
    if super::devices::is_work(view, desired) {
        return view.attempt(Action::Devices, Phase::Running, Why::default(), None);
    }
    if view.seed_is_stale(desired) {
        return view.attempt(Action::ReplaceSeed, Phase::Running, Why::default(), None);
    }
    rest(Phase::Running, Why::default())
}

/// Asked to restart; reset at the deadline.
fn rebooting(view: &View<'_>, desired: &DesiredInstance) -> Decision {
    let why = || Why::new(reasons::REBOOT_REQUESTED, "");
    let asked = view.record.reboot.as_ref().filter(|reboot| reboot.generation >= desired.reboot_generation);
    let Some(reboot) = asked else {
        return view.attempt(Action::AskReboot, Phase::Running, why(), None);
    };
    let deadline =
        reboot.asked.after(view.record.stop_timeout(), view.boot_id).filter(|at| at.left(view.now).is_some());
    let Some(deadline) = deadline else {
        return view.attempt(Action::Reset, Phase::Running, why(), None);
    };
    match (view.memory.reboot_from, view.guest_restarts) {
        (Some(before), Some(now)) if now != before => note(Action::NoteReboot),
        (Some(_), Some(_)) => wait(Phase::Running, why(), deadline),
        // Asked by a process that is gone: nobody counted since. Asking twice is better than never.
        _ => view.attempt(Action::AskReboot, Phase::Running, why(), Some(deadline)),
    }
}

/// The hypervisor holds it.
pub(super) fn paused(view: &View<'_>, desired: &DesiredInstance, reason: &str, message: &str) -> Decision {
    let why = Why::new(paused_reason(reason), message);
    if view.record.done.power < desired.power_generation {
        return Decision { phase: Some(Phase::Paused), why, next: Next::Act(Action::Settle) };
    }
    if view.record.done.reset < desired.reset_generation {
        return view.attempt(Action::Reset, Phase::Paused, why, None);
    }
    // Only a lack of space heals by itself: an I/O error may have corrupted something, and a person's pause is theirs.
    if why.reason != reasons::OUT_OF_SPACE {
        return rest(Phase::Paused, why);
    }
    let next = view.memory.resumed.map(|at| at.plus(RESUME_EVERY)).filter(|at| at.left(view.now).is_some());
    match next {
        Some(at) => wait(Phase::Paused, why, at),
        None if view.disk_free_gib >= RESUME_FLOOR_GIB => view.attempt(Action::Resume, Phase::Paused, why, None),
        None => wait(Phase::Paused, why, view.now.plus(RESUME_EVERY)),
    }
}

/// It does not run, and should, unless the restart policy lets it rest.
pub(super) fn off(view: &View<'_>, desired: &DesiredInstance, domain: Option<&Domain>) -> Decision {
    let not_before = match verdict(view, desired) {
        Verdict::Rest(why) => return view.at_rest(desired, why),
        Verdict::Start => None,
        Verdict::StartAt(at) => Some(at),
    };
    if view.starts == Starts::AwaitEpoch {
        let message = "the machine restarted: nothing starts before the control plane confirms this host's epoch";
        return rest(Phase::Off, Why::new(reasons::AWAITING_EPOCH, message));
    }
    if let Some(at) = not_before.filter(|at| at.left(view.now).is_some()) {
        let message = format!("ended {} times in a row", view.record.streak);
        return wait(Phase::Starting, Why::new(reasons::RESTART_BACK_OFF, message), at);
    }
    let prepared = view.memory.prepared == Some(desired.generation) && !view.seed_is_stale(desired);
    if domain.is_none() || !prepared {
        return view.attempt(Action::Prepare, Phase::Preparing, Why::default(), None);
    }
    view.attempt(Action::Start, Phase::Starting, Why::default(), None)
}

enum Verdict {
    Start,
    StartAt(Steady),
    Rest(Why),
}

/// The restart policy.
fn verdict(view: &View<'_>, desired: &DesiredInstance) -> Verdict {
    let ended = match &view.record.ended {
        Some(ended) if !ended.answered && ended.power_generation >= desired.power_generation => ended,
        // Never ran, or somebody asked for a start since it ended.
        _ => return Verdict::Start,
    };
    let restart = Restart::try_from(desired.restart).unwrap_or(Restart::OnFailure);
    match (ended.kind, restart) {
        // Croft itself ended it, and since then intent is RUNNING again; or the host went down, which is no end of the
        // guest's own and nothing that a restart policy is about.
        (End::Stopped | End::Killed | End::HostShutdown, _) => Verdict::Start,
        (End::GuestPoweroff, Restart::Always) => delayed(view, ended),
        (End::GuestPoweroff, _) => rests(reasons::GUEST_POWERED_OFF, ended),
        (End::Crashed, Restart::Never) => rests(reasons::GUEST_CRASHED, ended),
        (End::Crashed, _) => delayed(view, ended),
    }
}

fn delayed(view: &View<'_>, ended: &Ended) -> Verdict {
    match ended.moment.after(back_off(view.record.streak), view.boot_id) {
        Some(at) => Verdict::StartAt(at),
        // The machine restarted since: it has waited long enough.
        None => Verdict::Start,
    }
}

fn rests(reason: &'static str, ended: &Ended) -> Verdict {
    Verdict::Rest(Why::new(reason, ended.message.clone()))
}
