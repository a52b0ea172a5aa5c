//! How a run ended: a pure judgement on what the hypervisor saw, what had been asked, and whether the machine is the same.

use crate::clock::{Clock, Moment};
use crate::driver::decide::STREAK_ENDS_AFTER;
use crate::hypervisor::OffReason;
use crate::journal::{End, Ended, Record, Run, Stop};

/// What the machine was doing when the end was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    Up,
    Stopping,
}

/// Which kind of end, in which words. `off`: `None` when the domain vanished.
#[must_use]
pub fn classify(
    run: &Run,
    stop: Option<&Stop>,
    off: Option<OffReason>,
    boot_id: &str,
    machine: Machine,
) -> (End, &'static str) {
    if run.began.boot_id != boot_id {
        return (End::HostShutdown, "the host restarted");
    }
    if machine == Machine::Stopping {
        return (End::HostShutdown, "the host is going down");
    }
    match (stop, off) {
        (Some(stop), _) if stop.pulled => (End::Killed, "the plug was pulled"),
        (Some(_), Some(OffReason::Crashed)) => {
            (End::Crashed, "the guest or its emulator crashed while it was stopping")
        }
        (Some(_), Some(OffReason::Destroyed)) => (End::Killed, "somebody pulled the plug while it was stopping"),
        (Some(_), _) => (End::Stopped, "stopped as asked"),
        (None, Some(OffReason::Shutdown)) => (End::GuestPoweroff, "the guest powered itself off"),
        (None, Some(OffReason::Crashed)) => (End::Crashed, "the guest or its emulator crashed"),
        (None, Some(OffReason::Failed)) => (End::Crashed, "it did not come up"),
        (None, Some(OffReason::Destroyed)) => (End::Crashed, "it was destroyed on the host, not by Croft"),
        (None, Some(OffReason::Unknown)) => (End::Crashed, "it ended, and the hypervisor does not know why"),
        (None, None) => (End::Crashed, "its domain was removed from the host, not by Croft"),
    }
}

/// Writes the end of the run into the record.
pub fn note_end(record: &mut Record, off: Option<OffReason>, boot_id: &str, machine: Machine, clock: &Clock) {
    let Some(run) = record.run.take() else { return };
    let (stop, reboot) = (record.stop.take(), record.reboot.take());
    let (kind, message) = classify(&run, stop.as_ref(), off, boot_id, machine);
    if let (Some(reboot), End::GuestPoweroff) = (reboot, kind) {
        // Some guests answer a reboot by powering off: the start that follows completes it.
        record.done.reboot = record.done.reboot.max(reboot.generation);
        return;
    }
    let now = clock.steady();
    let ran_long = run.began.after(STREAK_ENDS_AFTER, boot_id).is_none_or(|enough| enough.left(now).is_none());
    record.streak = match kind {
        End::Crashed | End::GuestPoweroff if ran_long => 1,
        End::Crashed | End::GuestPoweroff => record.streak.saturating_add(1),
        End::Stopped | End::Killed | End::HostShutdown => 0,
    };
    record.ended = Some(Ended {
        kind,
        message: message.to_owned(),
        time: clock.wall(),
        moment: Moment { boot_id: boot_id.to_owned(), at: now },
        power_generation: record.done.power.max(stop.map_or(0, |stop| stop.power_generation)),
        answered: false,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Steady, Wall};
    use crate::journal::Reboot;

    fn moment() -> Moment {
        Moment { boot_id: "boot".to_owned(), at: Steady(0) }
    }

    fn ran() -> Record {
        Record { run: Some(Run { began: moment(), time: Wall(0) }), ..Record::default() }
    }

    fn asked(pulled: bool) -> Record {
        Record { stop: Some(Stop { asked: moment(), power_generation: 2, pulled }), ..ran() }
    }

    #[test]
    fn every_end() {
        use OffReason::{Crashed, Destroyed, Failed, Shutdown, Unknown};
        let cases = [
            (ran(), Some(Shutdown), "boot", Machine::Up, End::GuestPoweroff),
            (ran(), Some(Crashed), "boot", Machine::Up, End::Crashed),
            (ran(), Some(Failed), "boot", Machine::Up, End::Crashed),
            (ran(), Some(Destroyed), "boot", Machine::Up, End::Crashed),
            (ran(), Some(Unknown), "boot", Machine::Up, End::Crashed),
            (ran(), None, "boot", Machine::Up, End::Crashed),
            (ran(), Some(Shutdown), "boot", Machine::Stopping, End::HostShutdown),
            (ran(), Some(Unknown), "another boot", Machine::Up, End::HostShutdown),
            (asked(false), Some(Shutdown), "boot", Machine::Up, End::Stopped),
            (asked(false), Some(Destroyed), "boot", Machine::Up, End::Killed),
            (asked(false), Some(Crashed), "boot", Machine::Up, End::Crashed),
            (asked(true), Some(Destroyed), "boot", Machine::Up, End::Killed),
            (asked(true), Some(Unknown), "another boot", Machine::Up, End::HostShutdown),
        ];
        for (record, off, boot_id, machine, expected) in cases {
            let run = record.run.as_ref().expect("a run");
            let (kind, message) = classify(run, record.stop.as_ref(), off, boot_id, machine);
            assert_eq!(kind, expected, "{off:?} {boot_id} {machine:?} {:?}: {message}", record.stop);
        }
    }

    #[test]
    fn a_reboot_that_ends_in_power_off_is_no_power_off_of_the_guest() {
        let mut record = Record { reboot: Some(Reboot { asked: moment(), generation: 3 }), ..ran() };
        note_end(&mut record, Some(OffReason::Shutdown), "boot", Machine::Up, &Clock::manual(1));
        assert_eq!((record.ended, record.done.reboot, record.run, record.reboot), (None, 3, None, None));
    }

    #[test]
    fn a_long_run_ends_a_streak() {
        let clock = Clock::manual(1);
        let mut record = Record { streak: 5, ..ran() };
        note_end(&mut record, Some(OffReason::Crashed), "boot", Machine::Up, &clock);
        assert_eq!(record.streak, 6);
        clock.advance(STREAK_ENDS_AFTER);
        let mut record = Record { streak: 5, ..ran() };
        note_end(&mut record, Some(OffReason::Crashed), "boot", Machine::Up, &clock);
        assert_eq!(record.streak, 1);
    }

    #[test]
    fn the_end_of_a_stop_counts_for_the_power_generation_that_asked() {
        let mut record = asked(false);
        note_end(&mut record, Some(OffReason::Shutdown), "boot", Machine::Up, &Clock::manual(1));
        let ended = record.ended.expect("an end");
        assert_eq!((ended.kind, ended.power_generation), (End::Stopped, 2));
    }
}
