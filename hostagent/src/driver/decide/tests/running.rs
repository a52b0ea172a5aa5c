//! Intent is RUNNING, and it runs or is paused.

use super::*;

#[test]
fn running_as_wanted_rests() {
    World::new(with_run(wanted()), running()).waits(Phase::Running, "", None);
    let mut asked_again = with_run(wanted());
    asked_again.done.power = 2;
    World::new(asked_again, running()).acts(Phase::Running, Action::Settle);
}

#[test]
fn reset_is_pressed_at_once_and_reboot_falls_to_it_at_the_deadline() {
    let mut world = World::new(with_run(wanted()), running());
    world.record.desired.as_mut().expect("desired").reboot_generation = 1;
    world.acts(Phase::Running, Action::AskReboot);

    world.record.reboot = Some(Reboot { asked: ago(10), generation: 1 });
    world.memory.reboot_from = Some(0);
    world.waits(Phase::Running, reasons::REBOOT_REQUESTED, Some(later(TIMEOUT - 10)));
    world.guest_restarts = Some(1);
    world.acts(None, Action::NoteReboot);

    world.guest_restarts = Some(0);
    world.memory.reboot_from = None;
    world.acts(Phase::Running, Action::AskReboot);
    world.record.reboot = Some(Reboot { asked: ago(TIMEOUT), generation: 1 });
    world.acts(Phase::Running, Action::Reset);

    world.record.desired.as_mut().expect("desired").reset_generation = 1;
    world.record.reboot = None;
    world.acts(Phase::Running, Action::Reset);
}

#[test]
fn a_stop_that_was_taken_back_lingers_and_is_then_forgotten() {
    let mut world = World::new(Record { stop: asked(10, 2), ..with_run(wanted()) }, running());
    world.waits(Phase::Running, "", Some(later(TIMEOUT - 10 + 60)));
    world.record.stop = asked(TIMEOUT + 60, 2);
    world.acts(None, Action::ForgetStop);
}

#[test]
fn a_guest_out_of_space_goes_on_when_there_is_some() {
    let mut world = World::new(with_run(wanted()), paused("OutOfSpace"));
    world.acts(Phase::Paused, Action::Resume);
    world.memory.resumed = Some(ago(10).at);
    world.waits(Phase::Paused, reasons::OUT_OF_SPACE, Some(later(20)));
    world.memory.resumed = None;
    world.disk_free_gib = 0;
    world.waits(Phase::Paused, reasons::OUT_OF_SPACE, Some(later(30)));
}

#[test]
fn other_pauses_are_left_to_people() {
    World::new(with_run(wanted()), paused("IoError")).waits(Phase::Paused, reasons::IO_ERROR, None);
    World::new(with_run(wanted()), paused("Paused")).waits(Phase::Paused, reasons::PAUSED, None);
    World::new(with_run(wanted()), paused("SomethingNew")).waits(Phase::Paused, reasons::PAUSED, None);
}
