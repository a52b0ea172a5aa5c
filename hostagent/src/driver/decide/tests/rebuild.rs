//! Another root disk is wanted than the one that is there.

use super::*;

fn rebuilt(record: Record) -> Record {
    let mut record = record;
    record.desired.as_mut().expect("desired").disk_generation = 2;
    record
}

fn on_new_disk(domain: Domain) -> Domain {
    Domain { disk_generation: 2, ..domain }
}

#[test]
fn a_guest_that_runs_is_asked_to_stop_and_gets_its_disk_when_it_is_off() {
    let mut world = World::new(rebuilt(with_run(wanted())), running());
    world.acts(Phase::Stopping, Action::AskStop);
    world.record.stop = asked(TIMEOUT, 3);
    world.acts(Phase::Stopping, Action::Destroy);
    World::new(rebuilt(with_run(wanted())), paused("IoError")).acts(Phase::Stopping, Action::Destroy);

    let ended = Record { ended: ended(End::Stopped, 3), ..rebuilt(wanted()) };
    World::new(ended.clone(), off()).prepared().acts(Phase::Preparing, Action::ReplaceDisk);
    World::new(ended, on_new_disk(off())).prepared().acts(Phase::Starting, Action::Start);
    World::new(rebuilt(with_run(wanted())), on_new_disk(running())).waits(Phase::Running, "", None);
}

#[test]
fn one_that_is_off_stays_off() {
    World::new(rebuilt(unwanted()), off()).acts(Phase::Preparing, Action::ReplaceDisk);
    World::new(rebuilt(unwanted()), on_new_disk(off())).waits(Phase::Off, "", None);
    let rests = Record { ended: ended(End::GuestPoweroff, 3), ..rebuilt(wanted()) };
    World::new(rests.clone(), off()).acts(Phase::Preparing, Action::ReplaceDisk);
    World::new(rests, on_new_disk(off())).waits(Phase::Off, reasons::GUEST_POWERED_OFF, None);
}

#[test]
fn a_disk_of_a_later_rebuild_than_is_asked_for_is_kept() {
    let newer = Domain { disk_generation: 3, ..running() };
    World::new(rebuilt(with_run(wanted())), newer).waits(Phase::Running, "", None);
}

#[test]
fn a_disk_that_cannot_be_made_is_a_failure_with_its_reason() {
    let mut world = World::new(rebuilt(unwanted()), off());
    let (intent, why) = (Intent::of(&world.record), Why::new("DiskFull", "no room"));
    world.memory.troubles = vec![Trouble::after(None, Action::ReplaceDisk, intent, why, true, NOW)];
    world.waits(Phase::Failed, "DiskFull", Some(later(300)));
    // Another rebuild is another try.
    world.record.desired.as_mut().expect("desired").disk_generation = 3;
    world.acts(Phase::Preparing, Action::ReplaceDisk);
}
