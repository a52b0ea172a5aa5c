//! Intent is STOPPED.

use super::*;

#[test]
fn created_stopped_is_defined_and_off() {
    let fresh = Record::new(desired(instance_spec::Power::Stopped));
    World::new(fresh.clone(), None).acts(Phase::Preparing, Action::Prepare);
    World::new(fresh, off()).acts(Phase::Off, Action::Settle);
    World::new(unwanted(), off()).waits(Phase::Off, "", None);
}

#[test]
fn a_stop_asks_again_and_pulls_the_plug_at_the_deadline() {
    let mut world = World::new(with_run(unwanted()), running());
    world.acts(Phase::Stopping, Action::AskStop);
    world.record.stop = asked(5, 3);
    world.memory.asked_to_stop = Some(ago(5).at);
    world.waits(Phase::Stopping, reasons::STOP_REQUESTED, Some(later(10)));
    world.memory.asked_to_stop = Some(ago(15).at);
    world.acts(Phase::Stopping, Action::AskStop);
    // The agent was restarted: nobody remembers when it last asked, but the deadline stands.
    world.memory.asked_to_stop = None;
    world.record.stop = asked(TIMEOUT - 1, 3);
    world.acts(Phase::Stopping, Action::AskStop);
    world.record.stop = asked(TIMEOUT, 3);
    world.acts(Phase::Stopping, Action::Destroy);
}

#[test]
fn a_timeout_of_zero_pulls_the_plug() {
    let mut world = World::new(with_run(unwanted()), running());
    world.record.desired.as_mut().expect("desired").stop_timeout_seconds = 0;
    world.acts(Phase::Stopping, Action::Destroy);
}

#[test]
fn a_new_stop_has_a_new_deadline() {
    let mut world = World::new(with_run(unwanted()), running());
    world.record.stop = asked(TIMEOUT * 2, 1);
    world.acts(Phase::Stopping, Action::AskStop);
}

#[test]
fn a_guest_that_can_not_be_asked_is_still_ended_in_time() {
    let mut world = World::new(Record { stop: asked(TIMEOUT - 2, 3), ..with_run(unwanted()) }, running());
    let intent = Intent::of(&world.record);
    let why = Why::new(reasons::HYPERVISOR_ERROR, "no");
    world.memory.troubles = vec![Trouble::after(None, Action::AskStop, intent, why, true, NOW)];
    world.waits(Phase::Stopping, reasons::HYPERVISOR_ERROR, Some(later(2)));
}
