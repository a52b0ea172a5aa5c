//! Intent is RUNNING, and it is off.

use super::*;

#[test]
fn a_start_is_prepared_first() {
    let fresh = Record::new(desired(instance_spec::Power::Running));
    World::new(fresh.clone(), None).acts(Phase::Preparing, Action::Prepare);
    World::new(fresh.clone(), None).prepared().acts(Phase::Preparing, Action::Prepare);
    World::new(fresh.clone(), off()).acts(Phase::Preparing, Action::Prepare);
    World::new(fresh, off()).prepared().acts(Phase::Starting, Action::Start);
}

#[test]
fn nothing_starts_before_the_epoch_is_confirmed() {
    for domain in [None, Some(off())] {
        let mut world = World::new(wanted(), domain).prepared();
        world.starts = Starts::AwaitEpoch;
        world.waits(Phase::Off, reasons::AWAITING_EPOCH, None);
    }
}

#[test]
fn the_restart_policy() {
    let rests = |reason: &'static str| Err(reason);
    let starts = Ok(());
    let cases = [
        (End::GuestPoweroff, Restart::Always, starts),
        (End::GuestPoweroff, Restart::OnFailure, rests(reasons::GUEST_POWERED_OFF)),
        (End::GuestPoweroff, Restart::Never, rests(reasons::GUEST_POWERED_OFF)),
        (End::Crashed, Restart::Always, starts),
        (End::Crashed, Restart::OnFailure, starts),
        (End::Crashed, Restart::Never, rests(reasons::GUEST_CRASHED)),
        (End::HostShutdown, Restart::Always, starts),
        (End::HostShutdown, Restart::OnFailure, starts),
        (End::HostShutdown, Restart::Never, starts),
        (End::Stopped, Restart::Never, starts),
        (End::Killed, Restart::Never, starts),
    ];
    for (kind, restart, expected) in cases {
        let mut world = World::new(Record { ended: ended(kind, 3), ..wanted() }, off()).prepared();
        world.record.desired.as_mut().expect("desired").restart = restart.into();
        match expected {
            Ok(()) => world.acts(Phase::Starting, Action::Start),
            Err(reason) => world.waits(Phase::Off, reason, None),
        }
        // Somebody asked for a start since: no policy stands in the way.
        world.record.desired.as_mut().expect("desired").power_generation = 4;
        world.acts(Phase::Starting, Action::Start);
        // A run began since, and its end was not noted as one (a reboot that powered off).
        world.record.desired.as_mut().expect("desired").power_generation = 3;
        world.record.ended.as_mut().expect("an end").answered = true;
        world.acts(Phase::Starting, Action::Start);
    }
}

#[test]
fn a_resting_guest_has_nothing_to_reboot() {
    let mut world = World::new(Record { ended: ended(End::GuestPoweroff, 3), ..wanted() }, off());
    world.record.desired.as_mut().expect("desired").reboot_generation = 1;
    world.acts(Phase::Off, Action::Settle);
}

#[test]
fn crashes_back_off_and_a_new_boot_starts_over() {
    let mut world = World::new(Record { ended: ended(End::Crashed, 3), streak: 4, ..wanted() }, off()).prepared();
    world.waits(Phase::Starting, reasons::RESTART_BACK_OFF, Some(later(8)));
    world.record.ended.as_mut().expect("an end").moment = ago(8);
    world.acts(Phase::Starting, Action::Start);
    world.record.ended.as_mut().expect("an end").moment = Moment { boot_id: "another".to_owned(), at: NOW };
    world.acts(Phase::Starting, Action::Start);
}

#[test]
fn back_off_doubles_up_to_five_minutes() {
    let seconds: Vec<u64> = (0..12).map(|streak| back_off(streak).as_secs()).collect();
    assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
}
