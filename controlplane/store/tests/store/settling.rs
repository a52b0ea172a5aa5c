use std::time::Duration;

use croft_core::Clock;
use croft_core::instance::{Phase, State};
use croft_store::{Command, Page, Settled};

use crate::bed::{Bed, h, seen};

async fn reasons(bed: &Bed, target: &str) -> Vec<String> {
    let (events, _, _) = bed.store.events_list(None, Some(target), &Page::first(100)).await.unwrap();
    events.into_iter().map(|event| event.reason).collect()
}

#[tokio::test]
async fn a_life_from_create_to_gone() {
    let bed = Bed::furnished().await;
    let vm = bed.instance("acme", "vm").await;
    let create = bed.store.operation_open(vm.uid).await.unwrap().remove(0);
    let mut states = Vec::new();
    for phase in [Phase::Preparing, Phase::Starting, Phase::Running] {
        bed.advance(2);
        bed.see(vm.uid, phase).await;
        let settled = bed.settle(vm.uid).await;
        states.push((settled.before, settled.after, settled.spent));
        if phase == Phase::Starting {
            assert_eq!(bed.operation(&create).await.progress, "STARTING");
        }
    }
    let spent = Duration::from_secs(2);
    assert_eq!(
        states,
        [
            (State::Pending, Some(State::Preparing), spent),
            (State::Preparing, Some(State::Starting), spent),
            (State::Starting, Some(State::Running), spent),
        ]
    );
    let done = bed.operation(&create).await;
    assert_eq!((done.done, done.failure, done.progress.as_str()), (true, None, ""));
    assert_eq!(done.end_time, Some(bed.clock.now()));
    assert!(bed.store.instance_unsettled().await.unwrap().is_empty(), "at rest");

    let (delete, _) = bed.command(&vm, Command::Delete { force: false }).await.unwrap();
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Deleting));
    bed.see(vm.uid, Phase::Absent).await;
    assert_eq!(bed.settle(vm.uid).await.after, None);
    assert!(bed.store.instance_settle(vec![vm.uid]).await.unwrap().is_empty(), "nothing is left to settle");
    assert!(bed.operation(&delete).await.done);
    let expected = [
        "InstanceCreated",
        "InstancePreparing",
        "InstanceStarting",
        "InstanceRunning",
        "InstanceDeleting",
        "InstanceDeleted",
    ];
    assert_eq!(reasons(&bed, &vm.name()).await, expected);
    let dump = bed.dump().await;
    for table in ["instances", "instance_labels", "charges", "host_claims", "device_claims", "secrets"] {
        assert!(dump[table].is_empty(), "{table}");
    }
    bed.consistent().await;
}

#[tokio::test]
async fn settling_twice_is_settling_once() {
    let bed = Bed::furnished().await;
    let vm = bed.instance("acme", "vm").await;
    bed.see(vm.uid, Phase::Running).await;
    bed.settle(vm.uid).await;
    let before = bed.dump().await;
    let again = bed.store.instance_settle(vec![vm.uid, vm.uid]).await.unwrap();
    let rest = Settled {
        uid: vm.uid,
        before: State::Running,
        after: Some(State::Running),
        spent: Duration::ZERO,
        needs_place: false,
    };
    assert_eq!(again, [rest]);
    assert_eq!(bed.dump().await, before);
}

#[tokio::test]
async fn a_silent_host_makes_unknown_and_nothing_more() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    bed.advance(3600);
    bed.store.host_lease_expire(bed.clock.now()).await.unwrap();
    assert_eq!(bed.store.instance_unsettled().await.unwrap(), [vm.uid], "out of step with its host");
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Unknown));
    let now = bed.get(vm.uid).await;
    assert_eq!((&now.placement, now.status.reason.as_str()), (&vm.placement, "HOST_UNREACHABLE"));
    assert_eq!(bed.used("acme", "instances").await, 1);
    assert!(bed.store.instance_unsettled().await.unwrap().is_empty());
    bed.heard("h1").await;
    assert_eq!(bed.store.instance_unsettled().await.unwrap(), [vm.uid]);
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Running), "as it was last seen");
    let (events, _, _) = bed.store.events_list(None, Some(&vm.name()), &Page::first(100)).await.unwrap();
    let unknown = events.iter().find(|event| event.reason == "InstanceUnknown").unwrap();
    assert_eq!(unknown.severity, croft_core::event::Severity::Warning);
    bed.consistent().await;
}

#[tokio::test]
async fn a_fault_fails_the_operations_and_another_fault_is_told() {
    let bed = Bed::furnished().await;
    let vm = bed.instance("acme", "vm").await;
    let create = bed.store.operation_open(vm.uid).await.unwrap().remove(0);
    for (reason, message) in [("ImageDigestWrong", "not what was promised"), ("DiskFull", "no room")] {
        let mut truth = seen(&bed.get(vm.uid).await, Phase::Failed);
        (truth.reason, truth.message) = (reason.to_owned(), message.to_owned());
        bed.store.instance_observe(&h("h1"), 1, vec![(vm.uid, truth)], false).await.unwrap();
        assert_eq!(bed.settle(vm.uid).await.after, Some(State::Failed));
    }
    let failure = bed.operation(&create).await.failure.unwrap();
    assert_eq!(
        (failure.reason.as_str(), failure.message.as_str()),
        ("INSTANCE_FAILED", "ImageDigestWrong: not what was promised")
    );
    assert_eq!(reasons(&bed, &vm.name()).await, ["InstanceCreated", "InstanceFailed", "InstanceFailed"]);
}

#[tokio::test]
async fn many_share_one_commit() {
    let bed = Bed::furnished().await;
    let mut uids = Vec::new();
    for number in 0..12 {
        let mut new = crate::bed::small("acme", &format!("vm-{number}"));
        new.spec.memory_mib = 512;
        uids.push(bed.claim(bed.fresh(), new).await.unwrap().1.uid);
    }
    for uid in &uids {
        let vm = bed.get(*uid).await;
        bed.command(&vm, Command::Delete { force: true }).await.unwrap();
        bed.see(*uid, Phase::Absent).await;
    }
    let settled = bed.store.instance_settle(uids.clone()).await.unwrap();
    assert_eq!(settled.iter().filter(|one| one.after.is_none()).count(), 12);
    assert_eq!(bed.used("acme", "instances").await, 0);
    bed.consistent().await;
}
