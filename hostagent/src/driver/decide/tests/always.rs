//! What must hold whatever the world looks like.

use proptest::prelude::*;

use super::*;

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
        disk in 0..2_i64,
        feature in prop_oneof![9 => Just("boot.disk"), 1 => Just("gpu.mig")],
    ) -> Record {
        let kinds = [End::GuestPoweroff, End::Stopped, End::Killed, End::Crashed, End::HostShutdown];
        let mut wish = desired(instance_spec::Power::Running);
        (wish.power, wish.restart) = (power, restart);
        (wish.power_generation, wish.reboot_generation, wish.reset_generation) = counters;
        wish.required_features = vec![feature.to_owned()];
        wish.seed_digest = seed::digest(seeds.0);
        wish.disk_generation = disk;
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
        disk_generation in 0..2_i64,
        allowed in any::<bool>(),
        prepared in any::<bool>(),
        answers in prop_oneof![9 => Just(true), 1 => Just(false)],
        guest_restarts in proptest::option::of(0..2_u64),
        disk_free_gib in 0..3_u64,
    ) -> World {
        let mut world = World::new(record, power.map(|power| Domain { disk_generation, ..domain(power) }));
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
        let other_disk = world.domain.as_ref().is_some_and(|domain| domain.disk_generation < desired.disk_generation);
        prop_assert!(!(starts && other_disk), "starts with the old disk");
        let replaces = action == Some(Action::ReplaceDisk);
        prop_assert!(!replaces || other_disk && !on && !buried, "throws away a disk that is wanted, or in use");
        let may_pull = buried || desired.power == 2 || other_disk;
        prop_assert!(may_pull || !matches!(action, Some(Action::Destroy | Action::AskStop)), "stops unasked");
        let ours = buried || (world.record.listed && desired.required_features == ["boot.disk"]);
        prop_assert!(ours || action.is_none(), "touches what it must leave alone: {action:?}");
        prop_assert!(decision.phase != Some(Phase::Absent) || !on, "reports a running domain as absent");
        if let Next::Wait(Some(until)) = decision.next {
            prop_assert!(until > NOW, "would spin");
        }
    }
}
