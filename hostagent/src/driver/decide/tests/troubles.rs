//! What failed is tried again, and when.

use super::*;

#[test]
fn a_refusal_is_failed_until_intent_changes_or_five_minutes_pass() {
    let mut world = World::new(wanted(), None);
    let why = Why::new(reasons::IMAGE_DIGEST_MISMATCH, "words");
    let trouble = Trouble::after(None, Action::Prepare, Intent::of(&world.record), why, true, NOW);
    assert_eq!(trouble.until, later(300));
    world.memory.troubles = vec![trouble];
    world.waits(Phase::Failed, reasons::IMAGE_DIGEST_MISMATCH, Some(later(300)));

    world.memory.troubles[0].until = NOW;
    world.acts(Phase::Preparing, Action::Prepare);
    world.memory.troubles[0].until = later(300);
    world.record.desired.as_mut().expect("desired").power_generation = 4;
    world.acts(Phase::Preparing, Action::Prepare);
    // Another action is another matter.
    world.record.tombstone =
        Some(Grave { generation: 0, force: false, stop_timeout_seconds: 0, removed: false, gone: false });
    world.acts(Phase::Stopping, Action::Remove);
}

#[test]
fn a_failure_is_tried_again_and_says_why_meanwhile() {
    let mut world = World::new(wanted(), off()).prepared();
    let intent = Intent::of(&world.record);
    let why = || Why::new(reasons::INSUFFICIENT_MEMORY, "words");
    let first = Trouble::after(None, Action::Start, intent, why(), false, NOW);
    let second = Trouble::after(Some(&first), Action::Start, intent, why(), false, NOW);
    let other = Trouble::after(Some(&second), Action::Prepare, intent, why(), false, NOW);
    assert_eq!([first.until, second.until, other.until], [later(1), later(2), later(1)]);
    world.memory.troubles = vec![second];
    world.waits(Phase::Starting, reasons::INSUFFICIENT_MEMORY, Some(later(2)));
    world.memory.troubles[0].until = NOW;
    world.acts(Phase::Starting, Action::Start);
    assert_eq!(world.decide().why.reason, reasons::INSUFFICIENT_MEMORY);
}
