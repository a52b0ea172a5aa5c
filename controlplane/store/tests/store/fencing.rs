//! A host is lost, and said to be.

use std::time::Duration;

use croft_core::event::{Changed, Topic};
use croft_core::host::{Resources, State as HostState};
use croft_core::instance::{Observed, Phase, State};
use croft_core::{Clock, Reason};
use croft_store::{Command, Done, PlaceAnswer};

use crate::bed::{Bed, call, h, refused, report, seen, small};

#[tokio::test]
async fn a_fence_lets_go_of_everything_and_keeps_the_charges() {
    let bed = Bed::furnished().await;
    let running = bed.running("acme", "running").await;
    let stopped = bed.running("acme", "stopped").await;
    bed.command(&stopped, Command::Stop { timeout: None }).await.unwrap();
    bed.see(stopped.uid, Phase::Off).await;
    bed.settle(stopped.uid).await;
    let deleting = bed.running("acme", "deleting").await;
    bed.command(&deleting, Command::Delete { force: false }).await.unwrap();

    let Done::New(host) = bed.store.host_fence(&call(), &h("h1")).await.unwrap() else { panic!("new") };
    assert_eq!((host.state, host.epoch, host.lease_expire_time), (HostState::Fenced, 2, None));
    assert_eq!(host.claimed, Resources::default());
    let Done::New(again) = bed.store.host_fence(&call(), &h("h1")).await.unwrap() else { panic!("new") };
    assert_eq!(again.epoch, 2, "fenced already");
    bed.consistent().await;
    assert_eq!(bed.get(running.uid).await.status.state, State::Placing, "never one that runs nowhere");
    assert_eq!(bed.get(stopped.uid).await.status.state, State::Stopped);
    assert_eq!(bed.store.instance_by_uid(deleting.uid).await.unwrap(), None, "gone with its host");
    let settled = bed.store.instance_settle(bed.store.instance_unsettled().await.unwrap()).await.unwrap();
    let places: Vec<_> = settled.iter().filter(|one| one.needs_place).map(|one| one.uid).collect();
    assert_eq!(places, [running.uid], "whoever looks next places it anew");
    assert_eq!(bed.get(stopped.uid).await.status.reason, "HOST_FENCED");
    assert_eq!(bed.used("acme", "instances").await, 2);

    let desired = bed.store.host_desired(&h("h1")).await.unwrap();
    assert!(desired.instances.is_empty() && desired.epoch == 2);
    let mut buried: Vec<_> = desired.tombstones.iter().map(|one| (one.uid, one.force, one.stop_timeout)).collect();
    buried.sort_unstable();
    let mut expected: Vec<_> = [running.uid, stopped.uid, deleting.uid].map(|uid| (uid, true, Duration::ZERO)).into();
    expected.sort_unstable();
    assert_eq!(buried, expected, "also what is gone by now");
    bed.consistent().await;
}

#[tokio::test]
async fn a_watcher_hears_of_a_fenced_instance_once_and_never_that_it_runs_nowhere() {
    let bed = Bed::furnished().await;
    let running = bed.running("acme", "running").await;
    let deleting = bed.running("acme", "deleting").await;
    bed.command(&deleting, Command::Delete { force: false }).await.unwrap();
    let before = bed.store.revision().await.unwrap();
    bed.store.host_fence(&call(), &h("h1")).await.unwrap();
    let read = bed.store.changes_after(before, Topic::Instances, None, 100).await.unwrap();
    let mut heard: Vec<_> = read
        .changes
        .iter()
        .map(|change| match &change.what {
            Changed::InstanceWritten { instance, created: false } => (instance.uid, Some(instance.status.state)),
            Changed::InstanceRemoved { instance } => (instance.uid, None),
            other => panic!("{other:?}"),
        })
        .collect();
    heard.sort_unstable_by_key(|(uid, _)| *uid);
    // Two that were made within a millisecond are in either order.
    let mut expected = [(running.uid, Some(State::Placing)), (deleting.uid, None)];
    expected.sort_unstable_by_key(|(uid, _)| *uid);
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn a_host_that_was_fenced_before_it_said_what_it_has_is_not_ready_until_it_does() {
    let bed = Bed::new().await;
    let expire = bed.clock.now().plus(Duration::from_secs(60));
    bed.store.host_enrolment_create(&call(), &h("h1"), [1; 32], expire).await.unwrap();
    bed.store.host_enrol("p", &h("h1"), [1; 32], [1; 32], |_| Ok("cert".to_owned())).await.unwrap();
    bed.store.host_fence(&call(), &h("h1")).await.unwrap();
    bed.store.host_epoch_confirmed(&h("h1"), 2).await.unwrap();
    bed.heard("h1").await;
    assert_eq!(state(&bed).await, HostState::Enrolled);
    bed.store.host_report(&h("h1"), report(8)).await.unwrap();
    assert_eq!(state(&bed).await, HostState::Ready);
}

#[tokio::test]
async fn what_was_fenced_is_placed_anew_elsewhere() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    bed.store.host_fence(&call(), &h("h1")).await.unwrap();
    bed.settle(vm.uid).await;
    assert_eq!(refused(bed.claim(call(), small("acme", "more")).await).reason(), Reason::NoCapacity);
    bed.host("h2", 8).await;

    // A version from before somebody else came.
    let stale = bed.place(call(), small("acme", "vm")).await.placed.unwrap();
    bed.instance("acme", "other").await;
    let answer = bed.store.instance_place(vm.uid, stale.0, stale.1, stale.2).await.unwrap();
    assert_eq!(answer, PlaceAnswer::Stale);
    bed.consistent().await;

    let PlaceAnswer::Placed(placed) = bed.place_again(vm.uid).await else { panic!("placed") };
    assert_eq!(placed.host(), Some(&h("h2")));
    assert_eq!(bed.place_again(vm.uid).await, PlaceAnswer::Unneeded);
    assert_eq!(bed.used("acme", "instances").await, 2);
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Pending));
    bed.see(vm.uid, Phase::Running).await;
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Running));
    // The old host wakes up and says that it runs there: nobody asked it.
    let truth = seen(&vm, Phase::Off);
    assert!(bed.store.instance_observe(&h("h1"), 1, vec![(vm.uid, truth)], true).await.unwrap().is_empty());
    assert_eq!(bed.get(vm.uid).await.status.state, State::Running);
    bed.consistent().await;
}

#[tokio::test]
async fn a_stopped_one_is_placed_when_it_is_started() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    bed.command(&vm, Command::Stop { timeout: None }).await.unwrap();
    bed.store.host_fence(&call(), &h("h1")).await.unwrap();
    bed.host("h2", 8).await;
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Stopped));
    assert!(bed.store.operation_open(vm.uid).await.unwrap().is_empty(), "its stop is done");
    assert_eq!(bed.place_again(vm.uid).await, PlaceAnswer::Unneeded);
    bed.command(&vm, Command::Start).await.unwrap();
    assert!(bed.settle(vm.uid).await.needs_place);
    assert!(matches!(bed.place_again(vm.uid).await, PlaceAnswer::Placed(_)));
    bed.consistent().await;
}

async fn state(bed: &Bed) -> HostState {
    bed.get_host("h1").await.state
}

#[tokio::test]
async fn a_fenced_host_counts_again_once_it_has_destroyed_what_was_there() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    bed.store.host_fence(&call(), &h("h1")).await.unwrap();
    bed.heard("h1").await;
    assert_eq!(state(&bed).await, HostState::Fenced, "being heard is not enough");
    bed.store.host_epoch_confirmed(&h("h1"), 1).await.unwrap();
    assert_eq!(state(&bed).await, HostState::Fenced, "an older epoch");
    bed.store.host_epoch_confirmed(&h("h1"), 2).await.unwrap();
    assert_eq!(state(&bed).await, HostState::Fenced, "not seen to be gone");
    let look = async |epoch, phase| {
        let truth = Observed { generation: 0, ..seen(&vm, phase) };
        bed.store.instance_observe(&h("h1"), epoch, vec![(vm.uid, truth)], false).await.unwrap();
    };
    look(2, Phase::Running).await;
    assert_eq!(state(&bed).await, HostState::Fenced);
    look(2, Phase::Absent).await;
    assert_eq!(state(&bed).await, HostState::Ready);
    assert!(bed.store.host_desired(&h("h1")).await.unwrap().tombstones.is_empty());
    assert!(matches!(bed.place_again(vm.uid).await, PlaceAnswer::Placed(_)), "also here");
    bed.consistent().await;
}

#[tokio::test]
async fn an_absence_before_the_new_epoch_is_remembered_but_the_tombstone_stays() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    bed.store.host_fence(&call(), &h("h1")).await.unwrap();
    let truth = seen(&vm, Phase::Absent);
    bed.store.instance_observe(&h("h1"), 1, vec![(vm.uid, truth)], false).await.unwrap();
    assert_eq!(bed.store.host_desired(&h("h1")).await.unwrap().tombstones.len(), 1, "it might still be made");
    bed.store.host_epoch_confirmed(&h("h1"), 2).await.unwrap();
    assert_eq!(state(&bed).await, HostState::Ready, "it carried out the tombstone before it journaled the epoch");
}

#[tokio::test]
async fn a_host_that_comes_again_under_its_name_is_still_told() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    bed.store.host_fence(&call(), &h("h1")).await.unwrap();
    bed.settle(vm.uid).await;
    bed.store.host_delete(&call(), &h("h1"), "").await.unwrap();
    let host = bed.host("h1", 16).await;
    assert_eq!((host.state, host.epoch), (HostState::Fenced, 3));
    assert_eq!(bed.store.host_desired(&h("h1")).await.unwrap().tombstones.len(), 1);
    bed.store.instance_observe(&h("h1"), 3, vec![], true).await.unwrap();
    bed.store.host_epoch_confirmed(&h("h1"), 3).await.unwrap();
    assert_eq!(state(&bed).await, HostState::Ready);
    bed.consistent().await;
}
