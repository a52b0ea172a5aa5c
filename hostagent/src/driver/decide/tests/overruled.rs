//! Rows 1 to 6: what overrules intent.

use super::*;

#[test]
fn not_seen_is_not_gone() {
    let mut world = World::new(with_run(wanted()), running());
    world.hypervisor_answers = false;
    let decision = world.decide();
    assert_eq!((decision.phase, decision.next), (None, Next::Wait(None)));
    assert_eq!(decision.why, Why::new(reasons::HYPERVISOR_UNAVAILABLE, "libvirtd is down"));
}

#[test]
fn a_tombstone_stops_removes_and_is_then_absent() {
    World::new(buried(false), running()).acts(Phase::Stopping, Action::AskStop);
    World::new(buried(true), running()).acts(Phase::Stopping, Action::Destroy);
    World::new(buried(false), paused("OutOfSpace")).acts(Phase::Stopping, Action::Destroy);
    World::new(buried(false), off()).acts(Phase::Stopping, Action::Remove);
    World::new(buried(false), None).acts(Phase::Stopping, Action::Remove);
    let mut gone = buried(false);
    gone.tombstone.as_mut().expect("a tombstone").gone = true;
    World::new(gone.clone(), None).waits(Phase::Absent, "", None);
    let again = Record { after: Some(desired(instance_spec::Power::Running)), ..gone.clone() };
    World::new(again, None).acts(Phase::Absent, Action::Revive);
    World::new(gone, off()).acts(Phase::Stopping, Action::Remove);
}

#[test]
fn a_tombstone_waits_for_its_own_deadline() {
    let mut world = World::new(Record { stop: asked(10, i64::MAX), ..buried(false) }, running());
    world.memory.asked_to_stop = Some(NOW);
    world.waits(Phase::Stopping, reasons::STOP_REQUESTED, Some(later(15)));
    world.record.stop = asked(TIMEOUT, i64::MAX);
    world.acts(Phase::Stopping, Action::Destroy);
    // A stop that somebody asked for, and took back, an hour ago gave the guest no time for this one.
    world.record.stop = asked(3600, 2);
    world.acts(Phase::Stopping, Action::AskStop);
}

#[test]
fn a_corrupt_journal_is_shown_and_not_acted_on() {
    let corrupt = Some(Corrupt { message: "the file".to_owned(), power_generation: Some(3) });
    let record = Record { corrupt, ..wanted() };
    World::new(record.clone(), off()).waits(Phase::Failed, reasons::JOURNAL_CORRUPT, None);
    World::new(record, running()).waits(Phase::Failed, reasons::JOURNAL_CORRUPT, None);
}

#[test]
fn what_the_plane_does_not_list_is_left_alone() {
    let record = Record { listed: false, ..with_run(wanted()) };
    World::new(record.clone(), running()).waits(Phase::Running, reasons::NOT_DESIRED, None);
    World::new(record.clone(), off()).waits(Phase::Off, reasons::NOT_DESIRED, None);
    World::new(record, None).waits(Phase::Absent, reasons::NOT_DESIRED, None);
}

#[test]
fn a_missing_feature_refuses_the_whole_object() {
    let mut record = unwanted();
    record.desired.as_mut().expect("desired").required_features = vec!["boot.disk".to_owned(), "gpu.mig".to_owned()];
    for domain in [None, Some(off()), Some(running())] {
        let world = World::new(record.clone(), domain);
        world.waits(Phase::Failed, reasons::FEATURE_MISSING, None);
        assert!(world.decide().why.message.contains("gpu.mig"));
    }
}

#[test]
fn a_power_from_the_future_is_neither_started_nor_stopped() {
    let mut record = with_run(wanted());
    record.desired.as_mut().expect("desired").power = 9;
    World::new(record, running()).waits(Phase::Failed, reasons::FEATURE_MISSING, None);
}

#[test]
fn the_run_mark_follows_what_is_seen() {
    World::new(wanted(), running()).acts(None, Action::NoteRun);
    World::new(unwanted(), paused("Paused")).acts(None, Action::NoteRun);
    World::new(with_run(wanted()), off()).acts(None, Action::NoteEnd(Some(OffReason::Shutdown)));
    World::new(with_run(wanted()), None).acts(None, Action::NoteEnd(None));
    let mut record = with_run(wanted());
    record.run.as_mut().expect("a run").began.boot_id = "an earlier boot".to_owned();
    World::new(record, running()).acts(None, Action::NoteRun);
}
