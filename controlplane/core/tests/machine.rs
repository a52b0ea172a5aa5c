//! The instance state machine: every input has an answer, and the wrong ones never happen.

use croft_core::device;
use croft_core::host;
use croft_core::id::{ImageUid, InstanceUid, OperationUid};
use croft_core::instance::machine::{self, State, Verdict};
use croft_core::instance::*;
use croft_core::meta::{Labels, Meta};
use croft_core::operation::{Operation, Verb};
use croft_core::placement::{Placement, Policy};
use croft_core::time::Timestamp;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

fn instance() -> Instance {
    let uid = InstanceUid::new(NOW);
    Instance {
        uid,
        tenant: "acme".into(),
        id: "web".into(),
        meta: Meta::new(uid.to_string(), Default::default(), Default::default(), NOW),
        spec: Spec {
            vcpus: 2,
            memory_mib: 1024,
            image: "images/debian".into(),
            image_uid: ImageUid::new(NOW),
            disks: vec![Disk { size_gib: 10 }],
            interfaces: vec![],
            cpu: Cpu::default(),
            huge_page_kib: 0,
            cloud_init: CloudInit::default(),
            host_selector: Default::default(),
            policy: Policy::Spread,
            devices: Vec::new(),
            node: None,
        },
        intent: Intent::first(Power::Running, Restart::OnFailure, DEFAULT_STOP_TIMEOUT),
        placement: Some(Placement { host: "h1".into(), pins: vec![], devices: vec![], parked: None }),
        node: None,
        status: Status::first(State::Pending, NOW),
    }
}

fn seen(phase: Phase, power_generation: i64) -> Observed {
    Observed {
        generation: 1,
        phase,
        reason: String::new(),
        message: String::new(),
        conditions: vec![],
        addresses: vec![],
        exit: None,
        start_time: None,
        restart_count: 0,
        power_generation,
        reboot_generation: 0,
        reset_generation: 0,
        disk_generation: 0,
        attached_devices: Vec::new(),
        released_devices: Vec::new(),
    }
}

fn operation(verb: Verb, counter: i64) -> Operation {
    Operation {
        uid: OperationUid::new(NOW),
        tenant: "acme".into(),
        target: "tenants/acme/instances/web".into(),
        target_uid: InstanceUid::new(NOW),
        verb,
        counter,
        subject: String::new(),
        actor: "token:t".into(),
        labels: Labels::new(),
        annotations: Labels::new(),
        create_time: NOW,
        progress: String::new(),
        done: false,
        failure: None,
        end_time: None,
    }
}

fn state_of(instance: &Instance, host: host::State) -> Option<State> {
    match machine::settle(instance, Some(host), &[]).verdict {
        Verdict::Gone => None,
        Verdict::Is(named) => Some(named.state),
    }
}

const PHASES: [Phase; 8] = [
    Phase::Absent,
    Phase::Preparing,
    Phase::Starting,
    Phase::Running,
    Phase::Stopping,
    Phase::Off,
    Phase::Paused,
    Phase::Failed,
];

fn any_instance() -> impl Strategy<Value = Instance> {
    let exit = prop_oneof![
        Just(None),
        prop::sample::select(vec![
            ExitKind::GuestPoweroff,
            ExitKind::Stopped,
            ExitKind::Killed,
            ExitKind::Crashed,
            ExitKind::HostShutdown
        ])
        .prop_map(Some)
    ];
    let restart = prop::sample::select(vec![Restart::Always, Restart::OnFailure, Restart::Never]);
    (any::<bool>(), any::<bool>(), any::<bool>(), prop::option::of(0..8_usize), 0..3_i64, exit, restart).prop_map(
        |(placed, deleting, stopped, phase, power_generation, exit, restart)| {
            let mut instance = instance();
            instance.intent.power_generation = 2;
            instance.intent.restart = restart;
            if !placed {
                instance.placement = None;
            }
            if deleting {
                instance.meta.delete_time = Some(NOW);
            }
            if stopped {
                instance.intent.power = Power::Stopped;
            }
            instance.status.observed = phase.map(|at| Observed {
                exit: exit.map(|kind| Exit { kind, message: String::new(), time: NOW }),
                ..seen(PHASES[at], power_generation)
            });
            instance
        },
    )
}

proptest! {
    #[test]
    fn silence_never_frees_and_never_runs_twice(instance in any_instance()) {
        for silent in [host::State::Unreachable, host::State::Fenced] {
            let verdict = machine::settle(&instance, Some(silent), &[]).verdict;
            let told_absent = instance.status.observed.as_ref().is_some_and(|seen| seen.phase == Phase::Absent);
            match verdict {
                Verdict::Gone => prop_assert!(
                    instance.placement.is_none() || told_absent && instance.meta.delete_time.is_some(),
                    "gone without the host's word"
                ),
                Verdict::Is(named) if instance.placement.is_some() => {
                    prop_assert!(matches!(named.state, State::Unknown | State::Deleting), "{:?}", named.state);
                }
                Verdict::Is(_) => {}
            }
        }
    }

    #[test]
    fn gone_only_when_it_was_to_be_deleted(instance in any_instance()) {
        for host in host::State::ALL {
            if machine::settle(&instance, Some(host), &[]).verdict == Verdict::Gone {
                prop_assert!(instance.meta.delete_time.is_some());
            }
        }
    }

    #[test]
    fn an_operation_ends_once_and_only_with_a_reason(instance in any_instance(), counter in 1..3_i64) {
        for verb in [
            Verb::Create,
            Verb::Delete,
            Verb::Start,
            Verb::Stop,
            Verb::Reboot,
            Verb::Reset,
            Verb::Attach,
            Verb::Detach,
        ] {
            for host in host::State::ALL {
                let settled = machine::settle(&instance, Some(host), &[operation(verb, counter)]);
                prop_assert!(settled.finished.len() <= 1);
                for (_, failure) in settled.finished {
                    prop_assert!(failure.is_none_or(|failure| !failure.reason.is_empty() && !failure.message.is_empty()));
                }
            }
        }
    }
}

#[test]
fn the_life_of_an_instance() {
    let mut i = instance();
    assert_eq!(state_of(&i, host::State::Ready), Some(State::Pending));
    for (phase, state) in [
        (Phase::Preparing, State::Preparing),
        (Phase::Starting, State::Starting),
        (Phase::Running, State::Running),
        (Phase::Failed, State::Failed),
    ] {
        i.status.observed = Some(seen(phase, 1));
        assert_eq!(state_of(&i, host::State::Ready), Some(state), "{phase:?}");
    }
    i.intent.power = Power::Stopped;
    i.intent.power_generation = 2;
    i.status.observed = Some(seen(Phase::Running, 1));
    assert_eq!(state_of(&i, host::State::Ready), Some(State::Stopping));
    i.status.observed = Some(seen(Phase::Off, 2));
    assert_eq!(state_of(&i, host::State::Ready), Some(State::Stopped));
    assert_eq!(state_of(&i, host::State::Unreachable), Some(State::Unknown));
    i.meta.delete_time = Some(NOW);
    i.status.observed = None;
    assert_eq!(state_of(&i, host::State::Ready), Some(State::Deleting));
    i.status.observed = Some(seen(Phase::Absent, 2));
    assert_eq!(state_of(&i, host::State::Ready), None);
}

#[test]
fn a_guest_that_powers_itself_off_stays_off_until_it_is_started_again() {
    let mut i = instance();
    let off = |kind| Observed { exit: Some(Exit { kind, message: String::new(), time: NOW }), ..seen(Phase::Off, 1) };
    i.status.observed = Some(off(ExitKind::GuestPoweroff));
    assert_eq!(state_of(&i, host::State::Ready), Some(State::Stopped));
    i.intent.power_generation = 2;
    assert_eq!(state_of(&i, host::State::Ready), Some(State::Starting), "start was called");
    i.intent.power_generation = 1;
    for kind in [ExitKind::Crashed, ExitKind::HostShutdown] {
        i.status.observed = Some(off(kind));
        assert_eq!(state_of(&i, host::State::Ready), Some(State::Starting), "{kind:?} is not the guest's wish");
    }
    i.intent.restart = Restart::Always;
    i.status.observed = Some(off(ExitKind::GuestPoweroff));
    assert_eq!(state_of(&i, host::State::Ready), Some(State::Starting));
}

#[test]
fn operations_end_when_truth_has_caught_up() {
    let mut i = instance();
    let open = [operation(Verb::Create, 1)];
    let finished = |i: &Instance, open: &[Operation]| machine::settle(i, Some(host::State::Ready), open).finished;
    i.status.observed = Some(seen(Phase::Starting, 1));
    assert!(finished(&i, &open).is_empty());
    i.status.observed = Some(seen(Phase::Running, 1));
    assert_eq!(finished(&i, &open)[0].1, None);
    i.status.observed = Some(Observed { reason: "ImageDigest".into(), message: "no".into(), ..seen(Phase::Failed, 1) });
    let failure = finished(&i, &open)[0].1.clone().unwrap();
    assert!(failure.message.contains("ImageDigest"), "{failure:?}");
    // A stop takes the create's place; an old RUNNING does not end the stop.
    i.intent.power = Power::Stopped;
    i.intent.power_generation = 2;
    i.status.observed = Some(seen(Phase::Running, 1));
    let both = [operation(Verb::Create, 1), operation(Verb::Stop, 2)];
    let ended = finished(&i, &both);
    assert_eq!((ended.len(), ended[0].0.verb), (1, Verb::Create));
    assert_eq!(ended[0].1.as_ref().unwrap().reason, "OPERATION_SUPERSEDED");
}

#[test]
fn the_table_has_a_row_for_every_state_in_order() {
    for (at, row) in State::TABLE.iter().enumerate() {
        assert_eq!(row.state as usize, at);
        assert_eq!(State::parse(row.state.as_str()), Some(row.state));
        assert!(!row.crash_points.is_empty(), "{:?} has no crash test", row.state);
    }
}

#[test]
fn an_attach_is_done_when_the_host_answers_to_it_and_the_guest_has_it() {
    let mut instance = instance();
    instance.meta.generation = 2;
    instance.spec.devices =
        vec![device::Request { id: "nic".to_owned(), wanted: device::Wanted::Pool { pool: "nics".into() } }];
    let open = [Operation { subject: "nic".to_owned(), ..operation(Verb::Attach, 2) }];
    let ended = |instance: &Instance| machine::settle(instance, Some(host::State::Ready), &open).finished;
    let has = |generation, phase, devices: &[&str]| Observed {
        generation,
        attached_devices: devices.iter().map(|id| (*id).to_owned()).collect(),
        ..seen(phase, 1)
    };
    for (truth, done) in [
        (has(1, Phase::Running, &["nic"]), false),
        (has(2, Phase::Running, &["other"]), false),
        (has(2, Phase::Running, &["nic"]), true),
    ] {
        instance.status.observed = Some(truth);
        assert_eq!(!ended(&instance).is_empty(), done, "{:?}", instance.status.observed);
    }
    instance.intent.power = Power::Stopped;
    instance.status.observed = Some(has(2, Phase::Off, &[]));
    assert!(ended(&instance)[0].1.is_none(), "it gets it with its next start");
    instance.intent.detaching.insert("nic".to_owned(), 3);
    assert_eq!(ended(&instance)[0].1.as_ref().unwrap().reason, "OPERATION_SUPERSEDED");
}

#[test]
fn a_detach_is_done_when_its_request_has_left() {
    let mut instance = instance();
    instance.spec.devices =
        vec![device::Request { id: "nic".to_owned(), wanted: device::Wanted::Pool { pool: "nics".into() } }];
    instance.intent.detaching.insert("nic".to_owned(), 2);
    instance.status.observed = Some(seen(Phase::Failed, 1));
    let open = [Operation { subject: "nic".to_owned(), ..operation(Verb::Detach, 2) }];
    let ended = |instance: &Instance| machine::settle(instance, Some(host::State::Ready), &open).finished;
    assert!(ended(&instance).is_empty(), "a guest that failed does not end it");
    instance.spec.devices.clear();
    assert!(ended(&instance)[0].1.is_none());
}

/// Which the node's drain and its out-of-service taint go by: a machine that may be running is never said to be off.
#[test]
fn a_guest_is_off_when_its_host_says_so_and_nobody_is_about_to_start_it() {
    use croft_core::join::machine::{Guest, Node, Phase as NodePhase, tell_power};
    let mut vm = instance();
    let mut node = Node::new("web-deadbeef".into(), NodePhase::Waiting, NOW);
    node.enter(NodePhase::Booting, NOW);
    node.enter(NodePhase::Joined, NOW);
    vm.node = Some(node);
    tell_power(&mut vm);
    assert!(!Guest::of(&vm).off, "nothing was heard");
    let ended = |kind| Some(Exit { kind, message: String::new(), time: NOW });
    let off = |exit, power| Observed { exit, ..seen(Phase::Off, power) };
    for (exit, known) in [
        (ended(ExitKind::GuestPoweroff), true),
        (ended(ExitKind::Crashed), false),
        (ended(ExitKind::HostShutdown), false),
        (None, false),
    ] {
        vm.status.observed = Some(off(exit.clone(), 1));
        assert_eq!(Guest::of(&vm).off, known, "{exit:?}");
    }
    vm.status.observed = Some(off(ended(ExitKind::GuestPoweroff), 1));
    vm.intent.power_generation = 2;
    assert!(!Guest::of(&vm).off, "its host was told to start it, and has not answered");
    // A stop that is held back is not there for the host: it keeps what it was told before.
    vm.intent.power = Power::Stopped;
    assert!(Guest::of(&vm).off);
    vm.status.observed = Some(off(ended(ExitKind::Crashed), 1));
    assert!(!Guest::of(&vm).off);
    vm.node.as_mut().unwrap().enter(NodePhase::Left, NOW);
    assert!(Guest::of(&vm).off, "now it is told to stop");
    vm.placement = None;
    vm.status.observed = None;
    assert!(Guest::of(&vm).off, "fenced");
}

#[path = "machine/maintenance.rs"]
mod maintenance;
