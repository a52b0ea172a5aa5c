//! Every row of the table in docs/states/agent-driver.md, and what must hold in all of them.

use croft_proto::agent::v1::DesiredInstance;
use croft_proto::v1::instance_spec::{self, Restart};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::clock::{Moment, Wall};
use crate::journal::{Corrupt, Done, End, Ended, Grave, Reboot, Run, Stop};

mod seed;

const BOOT: &str = "boot";
const NOW: Steady = Steady(1_000_000_000);
const TIMEOUT: i64 = 90;

fn ago(seconds: i64) -> Moment {
    Moment { boot_id: BOOT.to_owned(), at: Steady(NOW.0 - seconds * 1_000_000) }
}

fn later(seconds: i64) -> Steady {
    Steady(NOW.0 + seconds * 1_000_000)
}

fn desired(power: instance_spec::Power) -> DesiredInstance {
    DesiredInstance {
        uid: Uuid::nil().to_string(),
        generation: 7,
        power: power.into(),
        restart: Restart::OnFailure.into(),
        stop_timeout_seconds: TIMEOUT,
        power_generation: 3,
        ..DesiredInstance::default()
    }
}

/// Wanted running, at rest: everything that was asked for was done.
fn wanted() -> Record {
    Record { done: Done { power: 3, reboot: 0, reset: 0 }, ..Record::new(desired(instance_spec::Power::Running)) }
}

fn unwanted() -> Record {
    Record { done: Done { power: 3, reboot: 0, reset: 0 }, ..Record::new(desired(instance_spec::Power::Stopped)) }
}

fn with_run(record: Record) -> Record {
    Record { run: Some(Run { began: ago(50), time: Wall(0) }), ..record }
}

fn ended(kind: End, power_generation: i64) -> Option<Ended> {
    let message = "how it ended".to_owned();
    Some(Ended { kind, message, time: Wall(0), moment: ago(0), power_generation, answered: false })
}

fn domain(power: Power) -> Domain {
    Domain { uid: Uuid::nil(), power, generation: 7, devices: Vec::new() }
}

fn running() -> Domain {
    domain(Power::Running)
}

fn off() -> Domain {
    domain(Power::Off(OffReason::Shutdown))
}

fn paused(reason: &str) -> Domain {
    domain(Power::Paused { reason: reason.to_owned(), message: "words".to_owned() })
}

/// One case: the world around a record.
#[derive(Debug)]
struct World {
    record: Record,
    domain: Option<Domain>,
    starts: Starts,
    memory: Memory,
    devices: crate::devices::View,
    guest_restarts: Option<u64>,
    disk_free_gib: u64,
    hypervisor_answers: bool,
}

impl World {
    fn new(record: Record, domain: impl Into<Option<Domain>>) -> Self {
        Self {
            record,
            domain: domain.into(),
            starts: Starts::Allowed,
            memory: Memory::default(),
            devices: crate::devices::View::default(),
            guest_restarts: Some(0),
            disk_free_gib: 100,
            hypervisor_answers: true,
        }
    }

    fn prepared(mut self) -> Self {
        self.memory.prepared = Some(7);
        self
    }

    fn decide(&self) -> Decision {
        let seen = match &self.domain {
            _ if !self.hypervisor_answers => Seen::Nothing("libvirtd is down"),
            None => Seen::Absent,
            Some(domain) => Seen::Present(domain),
        };
        decide(&View {
            record: &self.record,
            seen,
            boot_id: BOOT,
            now: NOW,
            starts: self.starts,
            features: &["boot.disk"],
            devices: &self.devices,
            guest_restarts: self.guest_restarts,
            disk_free_gib: self.disk_free_gib,
            memory: &self.memory,
        })
    }

    #[track_caller]
    fn acts(&self, phase: impl Into<Option<Phase>>, action: Action) {
        let decision = self.decide();
        assert_eq!((decision.phase, &decision.next), (phase.into(), &Next::Act(action)), "{decision:?}");
    }

    #[track_caller]
    fn waits(&self, phase: Phase, reason: &str, until: Option<Steady>) {
        let decision = self.decide();
        assert_eq!(
            (decision.phase, decision.why.reason, &decision.next),
            (Some(phase), reason, &Next::Wait(until)),
            "{decision:?}"
        );
    }
}

fn buried(force: bool) -> Record {
    Record {
        tombstone: Some(Grave { generation: 0, force, stop_timeout_seconds: TIMEOUT, removed: false, gone: false }),
        ..with_run(wanted())
    }
}

fn asked(seconds_ago: i64, power_generation: i64) -> Option<Stop> {
    Some(Stop { asked: ago(seconds_ago), power_generation, pulled: false })
}

// ---- rows 1 to 6: what overrules intent

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

// ---- intent is STOPPED

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

// ---- intent is RUNNING, and it runs

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

// ---- intent is RUNNING, and it is paused

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

// ---- intent is RUNNING, and it is off

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

// ---- troubles

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

// ---- what must hold whatever the world looks like

prop_compose! {
    fn any_record()(
        power in prop_oneof![Just(1), Just(2), Just(0), Just(9)],
        restart in 0..4_i32,
        counters in (0..4_i64, 0..3_i64, 0..3_i64),
        done in (0..4_i64, 0..3_i64, 0..3_i64),
        stop in proptest::option::of((0..400_i64, 0..5_i64)),
        reboot in proptest::option::of((0..400_i64, 0..3_i64)),
        runs in any::<bool>(),
        end in proptest::option::of((0..5_usize, 0..4_i64, any::<bool>())),
        streak in 0..20_u32,
        grave in proptest::option::of((any::<bool>(), any::<bool>())),
        listed in prop_oneof![9 => Just(true), 1 => Just(false)],
        seeds in (0..3_u8, 0..3_u8),
        feature in prop_oneof![9 => Just("boot.disk"), 1 => Just("gpu.mig")],
    ) -> Record {
        let kinds = [End::GuestPoweroff, End::Stopped, End::Killed, End::Crashed, End::HostShutdown];
        let mut wish = desired(instance_spec::Power::Running);
        (wish.power, wish.restart) = (power, restart);
        (wish.power_generation, wish.reboot_generation, wish.reset_generation) = counters;
        wish.required_features = vec![feature.to_owned()];
        wish.seed_digest = seed::digest(seeds.0);
        Record {
            listed,
            seed: seed::kept(seeds.1),
            done: Done { power: done.0, reboot: done.1, reset: done.2 },
            stop: stop.and_then(|(seconds, power)| asked(seconds, power)),
            reboot: reboot.map(|(seconds, generation)| Reboot { asked: ago(seconds), generation }),
            run: runs.then(|| Run { began: ago(50), time: Wall(0) }),
            ended: end.and_then(|(kind, power, answered)| {
                ended(kinds[kind], power).map(|ended| Ended { answered, ..ended })
            }),
            streak,
            tombstone: grave.map(|(force, gone)| Grave { generation: 0, force, stop_timeout_seconds: TIMEOUT, removed: false, gone }),
            ..Record::new(wish)
        }
    }
}

prop_compose! {
    fn any_world()(
        record in any_record(),
        power in proptest::option::of(prop_oneof![
            Just(Power::Running),
            Just(Power::Paused { reason: "OutOfSpace".to_owned(), message: String::new() }),
            Just(Power::Off(OffReason::Unknown)),
            Just(Power::Off(OffReason::Crashed)),
            Just(Power::Off(OffReason::Shutdown)),
        ]),
        allowed in any::<bool>(),
        prepared in any::<bool>(),
        answers in prop_oneof![9 => Just(true), 1 => Just(false)],
        guest_restarts in proptest::option::of(0..2_u64),
        disk_free_gib in 0..3_u64,
    ) -> World {
        let mut world = World::new(record, power.map(domain));
        world.starts = if allowed { Starts::Allowed } else { Starts::AwaitEpoch };
        world.memory.prepared = prepared.then_some(7);
        (world.hypervisor_answers, world.guest_restarts, world.disk_free_gib) = (answers, guest_restarts, disk_free_gib);
        world
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn always(world in any_world()) {
        let decision = world.decide();
        let action = match decision.next {
            Next::Act(action) => Some(action),
            Next::Wait(_) => None,
        };
        let desired = world.record.desired.as_ref().expect("desired");
        let on = world.domain.as_ref().is_some_and(|domain| !matches!(domain.power, Power::Off(_)));
        let buried = world.record.tombstone.is_some();
        let starts = action == Some(Action::Start);

        prop_assert!(world.hypervisor_answers || action.is_none(), "acts blindly: {action:?}");
        prop_assert!(world.hypervisor_answers || decision.phase.is_none(), "claims to know: {:?}", decision.phase);
        prop_assert!(!(starts && world.starts == Starts::AwaitEpoch), "starts before the epoch is confirmed");
        prop_assert!(!(starts && (on || buried || desired.power != 1)), "starts what must not run, or does");
        let stale = seed::is_stale(&world.record);
        prop_assert!(!(starts && stale), "starts with another seed than it should");
        prop_assert!(stale || action != Some(Action::ReplaceSeed), "replaces what is as it should be");
        prop_assert!(!(action == Some(Action::Remove) && (on || !buried)), "removes what runs or nobody buried");
        let may_pull = buried || desired.power == 2;
        prop_assert!(may_pull || !matches!(action, Some(Action::Destroy | Action::AskStop)), "stops unasked");
        let ours = buried || (world.record.listed && desired.required_features == ["boot.disk"]);
        prop_assert!(ours || action.is_none(), "touches what it must leave alone: {action:?}");
        prop_assert!(decision.phase != Some(Phase::Absent) || !on, "reports a running domain as absent");
        if let Next::Wait(Some(until)) = decision.next {
            prop_assert!(until > NOW, "would spin");
        }
    }
}
