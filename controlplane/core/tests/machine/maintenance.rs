//! A host under maintenance: its instances are kept off, and nobody's wish is changed.

use croft_core::instance::machine::Named;
use croft_core::join::machine::{Held, Node, Phase as NodePhase, held, power_told, tell_power};
use croft_core::maintenance::{Effect, Expected, differences, is_still, park, parked, plan, resumes, unpark};

use super::*;

/// It runs, by its host's last word.
fn running() -> Instance {
    let mut vm = heard(instance(), Phase::Running);
    vm.status.state = State::Running;
    vm
}

/// Its host answers to what it is told now.
fn heard(mut instance: Instance, phase: Phase) -> Instance {
    let start_time = (phase == Phase::Running).then_some(NOW);
    let power = power_told(&instance).1;
    let exit = instance.status.observed.take().and_then(|seen| seen.exit);
    instance.status.observed =
        Some(Observed { generation: instance.meta.generation, start_time, exit, ..seen(phase, power) });
    instance
}

fn ended(mut instance: Instance, kind: ExitKind) -> Instance {
    if let Some(seen) = &mut instance.status.observed {
        seen.exit = Some(Exit { kind, message: String::new(), time: NOW });
    }
    instance
}

fn named(instance: &Instance, host: host::State) -> Named {
    match machine::settle(instance, Some(host), &[]).verdict {
        Verdict::Is(named) => named,
        Verdict::Gone => panic!("gone"),
    }
}

fn start(instance: &mut Instance, power: Power) {
    instance.intent.power = power;
    instance.intent.power_generation += 1;
    instance.meta.generation += 1;
}

#[test]
fn what_runs_is_stopped_and_starts_again_and_its_user_still_wants_it() {
    let mut vm = running();
    assert_eq!(park(&mut vm, "new kernel"), 1);
    assert_eq!((vm.intent.power, power_told(&vm)), (Power::Running, (Power::Stopped, 2)));
    let stopping = named(&vm, host::State::Ready);
    assert_eq!((stopping.state, stopping.reason.as_str()), (State::Stopping, "HostMaintenance"));
    let mut vm = ended(heard(vm, Phase::Off), ExitKind::Stopped);
    let stopped = named(&vm, host::State::Ready);
    assert_eq!((stopped.state, stopped.reason.as_str()), (State::Stopped, "HostMaintenance"));
    assert!(stopped.message.contains("hosts/h1 is under maintenance (new kernel)"), "{}", stopped.message);
    assert_eq!(unpark(&mut vm), 1);
    assert_eq!((power_told(&vm), parked(&vm)), ((Power::Running, 3), None));
    assert_eq!(named(&vm, host::State::Ready).state, State::Starting, "its host has not answered yet");
    assert_eq!(named(&heard(vm, Phase::Running), host::State::Ready).state, State::Running);
}

#[test]
fn a_restart_policy_does_not_keep_off_what_a_drain_stopped() {
    let mut vm = running();
    vm.intent.restart = Restart::Never;
    park(&mut vm, "");
    let mut vm = ended(heard(vm, Phase::Off), ExitKind::Stopped);
    unpark(&mut vm);
    assert_eq!(named(&vm, host::State::Ready).state, State::Starting);
}

#[test]
fn what_was_off_stays_off_unless_its_user_starts_it_meanwhile() {
    let off = ended(heard(instance(), Phase::Off), ExitKind::GuestPoweroff);
    let mut rests = off.clone();
    assert_eq!((park(&mut rests, ""), resumes(&rests)), (0, false));
    assert_eq!(named(&heard(rests.clone(), Phase::Off), host::State::Ready).reason, "");
    assert_eq!(unpark(&mut rests), 0);
    assert_eq!(power_told(&rests), (Power::Running, 1), "its host knows how it ended, and lets it rest");

    let mut wanted = off.clone();
    park(&mut wanted, "");
    start(&mut wanted, Power::Running);
    assert!(resumes(&wanted));
    assert_eq!(power_told(&wanted), (Power::Stopped, 1));
    assert_eq!(named(&heard(wanted.clone(), Phase::Off), host::State::Ready).reason, "HostMaintenance");
    unpark(&mut wanted);
    assert_eq!(power_told(&wanted), (Power::Running, 3));

    let mut stopped = running();
    park(&mut stopped, "");
    start(&mut stopped, Power::Stopped);
    assert_eq!((resumes(&stopped), power_told(&stopped)), (false, (Power::Stopped, 3)));
    assert_eq!(unpark(&mut stopped), 0);
    assert_eq!(power_told(&stopped), (Power::Stopped, 3));
}

#[test]
fn a_start_is_done_when_it_runs_and_no_sooner() {
    let mut vm = ended(heard(instance(), Phase::Off), ExitKind::GuestPoweroff);
    park(&mut vm, "");
    start(&mut vm, Power::Running);
    let open = [operation(Verb::Start, 2)];
    let vm_off = heard(vm.clone(), Phase::Off);
    assert_eq!(machine::settle(&vm_off, Some(host::State::Ready), &open).finished, []);
    unpark(&mut vm);
    let open = [operation(Verb::Start, 3)];
    let done = machine::settle(&heard(vm, Phase::Running), Some(host::State::Ready), &open).finished;
    assert_eq!(done, [(open[0].clone(), None)]);
}

#[test]
fn only_an_answer_to_the_drain_says_that_it_is_off() {
    let mut vm = heard(instance(), Phase::Off);
    park(&mut vm, "");
    assert!(!is_still(&vm), "said before it was told: it may be starting");
    assert!(is_still(&heard(vm.clone(), Phase::Off)));
    assert!(is_still(&heard(vm.clone(), Phase::Preparing)), "nothing runs while an image comes");
    for runs in [Phase::Running, Phase::Starting, Phase::Stopping, Phase::Paused] {
        assert!(!is_still(&heard(vm.clone(), runs)), "{runs:?}");
    }
    let mut failed = heard(vm.clone(), Phase::Failed);
    assert!(is_still(&failed), "it never ran");
    failed.status.observed.as_mut().unwrap().start_time = Some(NOW);
    assert!(!is_still(&failed));
    let mut deleted = heard(vm, Phase::Off);
    deleted.meta.delete_time = Some(NOW);
    assert!(!is_still(&deleted));
}

#[test]
fn a_host_that_is_silent_while_it_reboots_makes_nobody_unknown_who_is_known_to_be_off() {
    let mut vm = running();
    park(&mut vm, "");
    assert_eq!(named(&vm, host::State::Unreachable).state, State::Unknown);
    let off = named(&heard(vm, Phase::Off), host::State::Unreachable);
    assert_eq!((off.state, off.reason.as_str()), (State::Stopped, "HostMaintenance"));
    assert_eq!(named(&heard(instance(), Phase::Off), host::State::Unreachable).state, State::Unknown);
}

#[test]
fn a_node_leaves_its_cluster_before_it_is_stopped_and_joins_again() {
    let mut vm = running();
    let mut node = Node::new("web-deadbeef".into(), NodePhase::Waiting, NOW);
    node.enter(NodePhase::Booting, NOW);
    node.enter(NodePhase::Joined, NOW);
    vm.node = Some(node);
    tell_power(&mut vm);
    park(&mut vm, "");
    assert_eq!((held(&vm), power_told(&vm)), (Held::On, (Power::Running, 1)), "its pods leave first");
    assert_eq!(named(&vm, host::State::Ready).state, State::Stopping);
    vm.node.as_mut().unwrap().enter(NodePhase::Leaving, NOW);
    assert!(!is_still(&heard(vm.clone(), Phase::Off)), "it may be started again by its host");
    vm.node.as_mut().unwrap().enter(NodePhase::Left, NOW);
    tell_power(&mut vm);
    assert_eq!((held(&vm), power_told(&vm)), (Held::Not, (Power::Stopped, 2)));
    assert!(is_still(&heard(vm.clone(), Phase::Off)));
    unpark(&mut vm);
    assert_eq!(held(&vm), Held::Off, "it waits for its token");
    vm.node.as_mut().unwrap().enter(NodePhase::Booting, NOW);
    assert_eq!(power_told(&vm), (Power::Running, 3));
}

#[test]
fn what_a_drain_does_is_said_beforehand() {
    let at = |id: &str, vm: Instance| Instance { id: id.into(), uid: InstanceUid::new(NOW), ..vm };
    let mut deleted = running();
    deleted.meta.delete_time = Some(NOW);
    let mut stuck = running();
    // Its agent has no record of any run.
    stuck.status.observed =
        Some(Observed { reason: "JournalCorrupt".into(), ..heard(instance(), Phase::Failed).status.observed.unwrap() });
    let mut off = instance();
    off.intent.power = Power::Stopped;
    let all = [
        at("a", running()),
        at("b", heard(off, Phase::Off)),
        at("c", ended(heard(instance(), Phase::Off), ExitKind::GuestPoweroff)),
        at("d", deleted),
        at("e", stuck),
        at("f", instance()),
    ];
    let steps = plan(host::State::Ready, &all);
    let said: Vec<_> = steps.iter().map(|step| (step.effect, step.starts_again)).collect();
    assert_eq!(
        said,
        [
            (Effect::Stops, true),
            (Effect::StaysOff, false),
            (Effect::StaysOff, false),
            (Effect::Leaves, false),
            (Effect::Cannot, true),
            (Effect::StaysOff, true),
        ]
    );
    assert!(steps[0].message.contains("after 90 s") && steps[4].message.contains("JournalCorrupt"), "{steps:?}");
    let silent = plan(host::State::Unreachable, &all[..2]);
    assert_eq!([silent[0].effect, silent[1].effect], [Effect::Cannot, Effect::StaysOff]);

    let shown: Vec<Expected> = steps
        .iter()
        .map(|step| Expected { instance: step.instance.clone(), uid: step.uid, effect: step.effect })
        .collect();
    assert_eq!(differences(&shown, &steps), Vec::<String>::new());
    let mut later = steps.clone();
    later[0].effect = Effect::StaysOff;
    let gone = later.remove(3);
    let found = differences(&shown, &later).join("; ");
    assert!(found.contains("instances/a was STOPS, and is STAYS_OFF now") && found.contains("instances/d is gone"));
    assert!(differences(&shown[1..], &steps)[0].contains("instances/a has come: STOPS"), "{gone:?}");
}

proptest! {
    /// Whatever its user asks for in between: parked, it is told to be off; afterwards, what he wants; and no counter ever falls.
    #[test]
    fn no_wish_is_lost_and_nothing_runs_meanwhile(acts in prop::collection::vec(0..4_u8, 0..20)) {
        let mut vm = running();
        let mut last = vm.intent.power_generation;
        for act in acts {
            match act {
                0 if parked(&vm).is_none() => { park(&mut vm, ""); }
                1 => { unpark(&mut vm); }
                2 => start(&mut vm, Power::Running),
                _ => start(&mut vm, Power::Stopped),
            }
            let wanted = vm.intent.power;
            let (told, generation) = power_told(&vm);
            prop_assert!(vm.intent.power_generation >= last && generation <= vm.intent.power_generation);
            last = vm.intent.power_generation;
            if parked(&vm).is_some() {
                prop_assert_eq!(told, Power::Stopped);
                vm = heard(vm, Phase::Off);
                prop_assert!(is_still(&vm));
            } else {
                prop_assert_eq!((told, generation), (wanted, last));
                vm = heard(vm, if wanted == Power::Running { Phase::Running } else { Phase::Off });
            }
        }
    }
}
