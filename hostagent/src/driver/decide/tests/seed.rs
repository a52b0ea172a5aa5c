//! Rows 12b and 14a: the seed is another one now.

use super::*;
use crate::hypervisor::Seed;
use crate::journal::KeptSeed;

/// 0: no seed.
pub(super) fn digest(which: u8) -> String {
    if which == 0 { String::new() } else { format!("sha256:{which}") }
}

pub(super) fn kept(which: u8) -> Option<KeptSeed> {
    (which != 0).then(|| KeptSeed { digest: digest(which), seed: Seed::default() })
}

pub(super) fn is_stale(record: &Record) -> bool {
    let wanted = record.desired.as_ref().map_or("", |desired| &desired.seed_digest);
    !wanted.is_empty() && record.seed.as_ref().is_none_or(|kept| kept.digest != wanted)
}

fn stale(record: Record) -> Record {
    let mut record = Record { seed: kept(1), ..record };
    record.desired.as_mut().expect("desired").seed_digest = digest(2);
    record
}

fn held_back(world: &mut World) {
    let why = Why::new(reasons::PLANE_UNREACHABLE, "away");
    let intent = Intent::of(&world.record);
    world.memory.troubles = vec![Trouble::after(None, Action::ReplaceSeed, intent, why, false, NOW)];
}

#[test]
fn a_seed_that_changed_is_replaced_whether_the_guest_runs_or_rests() {
    World::new(stale(with_run(wanted())), running()).acts(Phase::Running, Action::ReplaceSeed);
    World::new(stale(unwanted()), off()).acts(Phase::Off, Action::ReplaceSeed);
    let record = Record { ended: ended(End::GuestPoweroff, 3), ..stale(wanted()) };
    World::new(record, off()).acts(Phase::Off, Action::ReplaceSeed);
    let mut as_it_should_be = stale(with_run(wanted()));
    as_it_should_be.seed = kept(2);
    World::new(as_it_should_be, running()).waits(Phase::Running, "", None);
}

#[test]
fn nothing_starts_with_the_old_one() {
    World::new(stale(wanted()), off()).prepared().acts(Phase::Preparing, Action::Prepare);
    let mut fetched = stale(wanted());
    fetched.seed = kept(2);
    World::new(fetched, off()).prepared().acts(Phase::Starting, Action::Start);
}

#[test]
fn while_it_cannot_be_replaced_everything_else_goes_on() {
    let mut record = stale(with_run(wanted()));
    record.desired.as_mut().expect("desired").reset_generation = 1;
    let mut world = World::new(record, running());
    world.acts(Phase::Running, Action::ReplaceSeed);
    held_back(&mut world);
    world.acts(Phase::Running, Action::Reset);
    world.record.done.reset = 1;
    world.waits(Phase::Running, reasons::PLANE_UNREACHABLE, Some(later(1)));

    let mut resting = World::new(stale(unwanted()), off());
    held_back(&mut resting);
    resting.waits(Phase::Off, reasons::PLANE_UNREACHABLE, Some(later(1)));
    let mut stopping = World::new(stale(Record { desired: unwanted().desired, ..with_run(wanted()) }), running());
    held_back(&mut stopping);
    stopping.acts(Phase::Stopping, Action::AskStop);
}
