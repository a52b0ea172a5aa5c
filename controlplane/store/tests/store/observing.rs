//! What a host says, and what of it counts.

use croft_core::instance::{Observed, Phase};
use croft_core::{Clock, Error};
use croft_store::Command;

use crate::bed::{Bed, h, refused, seen};

async fn tell(bed: &Bed, host: &str, epoch: i64, truth: Vec<(croft_core::id::InstanceUid, Observed)>) -> usize {
    bed.store.instance_observe(&h(host), epoch, truth, false).await.unwrap().len()
}

#[tokio::test]
async fn truth_is_written_where_it_differs() {
    let bed = Bed::furnished().await;
    let vm = bed.instance("acme", "vm").await;
    let running = seen(&vm, Phase::Running);
    assert_eq!(tell(&bed, "h1", 1, vec![(vm.uid, running.clone())]).await, 1);
    let revision = bed.store.revision().await.unwrap();
    assert_eq!(tell(&bed, "h1", 1, vec![(vm.uid, running.clone())]).await, 0);
    assert_eq!(bed.store.revision().await.unwrap(), revision, "nothing new wakes nobody");
    let now = bed.get(vm.uid).await;
    assert_eq!((now.status.observed, now.status.observed_time), (Some(running), Some(bed.clock.now())));
    assert_eq!(bed.store.instance_unsettled().await.unwrap(), [vm.uid]);
}

#[tokio::test]
async fn what_is_out_of_date_or_not_ones_own_is_ignored() {
    let bed = Bed::furnished().await;
    bed.host("h2", 2).await;
    let vm = bed.running("acme", "vm").await;
    bed.command(&vm, Command::Reboot).await.unwrap();
    bed.see(vm.uid, Phase::Running).await;
    let older = seen(&vm, Phase::Failed);
    assert_eq!(tell(&bed, "h1", 1, vec![(vm.uid, older)]).await, 0, "an older generation");
    let now = bed.get(vm.uid).await;
    assert_eq!(tell(&bed, "h2", 1, vec![(vm.uid, seen(&now, Phase::Off))]).await, 0, "another host");
    assert_eq!(tell(&bed, "h1", 0, vec![(vm.uid, seen(&now, Phase::Off))]).await, 0, "an older epoch");
    let orphan = Observed { generation: 0, ..seen(&now, Phase::Running) };
    assert_eq!(tell(&bed, "h1", 1, vec![(vm.uid, orphan)]).await, 0, "without a desired object");
    let stranger = croft_core::id::InstanceUid::new(bed.clock.now());
    assert_eq!(tell(&bed, "h1", 1, vec![(stranger, seen(&now, Phase::Running))]).await, 0);
    let nobody = bed.store.instance_observe(&h("nobody"), 1, vec![], true).await;
    assert_eq!(refused(nobody), Error::not_found("hosts/nobody"));
    assert_eq!(bed.get(vm.uid).await, now);
}

#[tokio::test]
async fn a_complete_look_says_what_is_not_there() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    let fresh = bed.instance("acme", "fresh").await;
    let changed = bed.store.instance_observe(&h("h1"), 1, vec![], true).await.unwrap();
    assert_eq!(changed, [vm.uid], "what was never seen is only not there yet");
    let lost = bed.get(vm.uid).await.status.observed.unwrap();
    assert_eq!((lost.phase, lost.power_generation), (Phase::Absent, 1), "its counters are history");
    assert!(bed.store.instance_observe(&h("h1"), 1, vec![], true).await.unwrap().is_empty());
    assert_eq!(bed.get(fresh.uid).await.status.observed, None);
    assert_eq!(bed.settle(vm.uid).await.after, Some(croft_core::instance::State::Pending), "the agent makes it anew");
}

#[tokio::test]
async fn only_an_absence_told_after_the_delete_lets_go() {
    let bed = Bed::furnished().await;
    let vm = bed.instance("acme", "vm").await;
    // On its way from the host when the delete comes: it was not made yet, and may be any moment.
    let early = seen(&vm, Phase::Absent);
    let before = bed.store.revision().await.unwrap();
    bed.command(&vm, Command::Delete { force: true }).await.unwrap();
    assert_eq!(tell(&bed, "h1", 1, vec![(vm.uid, early.clone())]).await, 0);
    assert!(bed.store.instance_observe(&h("h1"), 1, vec![], true).await.unwrap().is_empty());
    bed.settle(vm.uid).await;
    bed.get(vm.uid).await;

    let desired = bed.store.host_desired(&h("h1")).await.unwrap();
    bed.store.host_synced(&h("h1"), 1, before);
    assert_eq!(tell(&bed, "h1", 1, vec![(vm.uid, early.clone())]).await, 0, "it knows of nothing yet");
    bed.store.host_synced(&h("h1"), 1, desired.revision);
    assert_eq!(tell(&bed, "h1", 1, vec![(vm.uid, early)]).await, 1, "now it does");
    assert_eq!(bed.settle(vm.uid).await.after, None);
    bed.consistent().await;
}

#[tokio::test]
async fn a_missing_line_after_the_delete_was_told_lets_go() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    bed.command(&vm, Command::Delete { force: true }).await.unwrap();
    let desired = bed.store.host_desired(&h("h1")).await.unwrap();
    bed.store.host_synced(&h("h1"), desired.epoch, desired.revision);
    assert_eq!(bed.store.instance_observe(&h("h1"), 1, vec![], true).await.unwrap(), [vm.uid]);
    assert_eq!(bed.settle(vm.uid).await.after, None);
}

#[tokio::test]
async fn an_agent_without_a_desired_object_knows_that_nothing_is_left() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    bed.command(&vm, Command::Delete { force: true }).await.unwrap();
    assert_eq!(tell(&bed, "h1", 1, vec![(vm.uid, seen(&vm, Phase::Stopping))]).await, 1, "on its way");
    let gone = Observed { generation: 0, ..seen(&vm, Phase::Absent) };
    assert_eq!(tell(&bed, "h1", 1, vec![(vm.uid, gone)]).await, 1);
    assert_eq!(bed.settle(vm.uid).await.after, None);
    bed.consistent().await;
}
