//! Another root disk: here, and on another host.

use croft_core::instance::{Phase, Power, State};
use croft_core::operation::Verb;
use croft_core::{Clock, Error, Reason};
use croft_store::{Command, Page, PlaceAnswer};

use crate::bed::{Bed, call, h, refused, report, seen, small, t};

const ELSEWHERE: Command = Command::RebuildElsewhere { room: Ok(()) };

impl Bed {
    async fn told_disk(&self, host: &str) -> Vec<i64> {
        let desired = self.store.host_desired(&h(host)).await.unwrap();
        desired.instances.iter().map(|(instance, ..)| instance.intent.disk_generation).collect()
    }

    async fn buried(&self, host: &str) -> usize {
        self.store.host_desired(&h(host)).await.unwrap().tombstones.len()
    }
}

#[tokio::test]
async fn a_rebuild_is_done_when_its_host_has_the_new_disk_and_it_is_as_it_was() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    let (rebuild, asked) = bed.command(&vm, Command::Rebuild).await.unwrap();
    assert_eq!((rebuild.verb, rebuild.counter, asked.intent.disk_generation), (Verb::Rebuild, 1, 1));
    assert_eq!((asked.intent.power, asked.intent.power_generation), (Power::Running, 1));
    assert_eq!((&asked.placement, &asked.intent.seed_digest), (&vm.placement, &vm.intent.seed_digest));
    assert_eq!(bed.told_disk("h1").await, [1]);
    let is_done = async || {
        bed.settle(vm.uid).await;
        bed.operation(&rebuild).await.done
    };
    assert!(!is_done().await, "it runs, on the old disk");
    let mut stopping = seen(&asked, Phase::Stopping);
    stopping.disk_generation = 0;
    bed.store.instance_observe(&h("h1"), 1, vec![(vm.uid, stopping)], false).await.unwrap();
    assert!(!is_done().await);
    bed.see(vm.uid, Phase::Preparing).await;
    assert!(!is_done().await);
    bed.see(vm.uid, Phase::Running).await;
    assert!(is_done().await);
    assert_eq!(bed.operation(&rebuild).await.failure, None);

    // A host that lost sight of the domain does not take the disk back.
    let mut lost = seen(&bed.get(vm.uid).await, Phase::Absent);
    lost.disk_generation = 0;
    bed.store.instance_observe(&h("h1"), 1, vec![(vm.uid, lost)], false).await.unwrap();
    assert!(!bed.get(vm.uid).await.lacks_disk());

    bed.command(&vm, Command::Stop { timeout: None }).await.unwrap();
    bed.see(vm.uid, Phase::Off).await;
    bed.settle(vm.uid).await;
    let (rebuild, _) = bed.command(&vm, Command::Rebuild).await.unwrap();
    bed.settle(vm.uid).await;
    assert!(!bed.operation(&rebuild).await.done);
    bed.see(vm.uid, Phase::Off).await;
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Stopped));
    assert!(bed.operation(&rebuild).await.done, "off it stays");
    bed.consistent().await;
}

#[tokio::test]
async fn a_plane_that_was_restored_asks_for_a_later_disk_than_the_host_has() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    let mut later = seen(&vm, Phase::Running);
    later.disk_generation = 5;
    bed.store.instance_observe(&h("h1"), 1, vec![(vm.uid, later)], false).await.unwrap();
    let (rebuild, _) = bed.command(&vm, Command::Rebuild).await.unwrap();
    assert_eq!(rebuild.counter, 6);
    bed.settle(vm.uid).await;
    assert!(!bed.operation(&rebuild).await.done);
}

#[tokio::test]
async fn a_disk_that_cannot_be_made_fails_the_operation_with_the_hosts_reason() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    let (rebuild, asked) = bed.command(&vm, Command::Rebuild).await.unwrap();
    let mut failed = seen(&asked, Phase::Failed);
    (failed.reason, failed.disk_generation) = ("DiskFull".to_owned(), 0);
    bed.store.instance_observe(&h("h1"), 1, vec![(vm.uid, failed)], false).await.unwrap();
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Failed));
    let failure = bed.operation(&rebuild).await.failure.expect("it failed");
    assert_eq!((failure.reason.as_str(), failure.message.as_str()), ("INSTANCE_FAILED", "DiskFull"));
}

#[tokio::test]
async fn what_cannot_be_rebuilt_is_refused_and_nothing_is_written() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    let before = bed.dump().await["instances"].clone();
    let old = croft_store::HostReport { features: Vec::new(), ..report(16) };
    bed.store.host_report(&h("h1"), old).await.unwrap();
    let error = refused(bed.command(&vm, Command::Rebuild).await);
    assert_eq!(error.reason(), Reason::AgentTooOld);
    assert!(error.to_string().contains("hosts/h1 lacks disk.rebuild"), "{error}");
    bed.store.host_report(&h("h1"), report(16)).await.unwrap();

    let full = Error::NoCapacity { message: "no host fits".to_owned(), verdicts: Vec::new() };
    let nowhere = bed.command(&vm, Command::RebuildElsewhere { room: Err(full) }).await;
    assert_eq!(refused(nowhere).reason(), Reason::NoCapacity);
    assert_eq!(bed.dump().await["instances"], before);

    bed.advance(7200);
    bed.store.host_lease_expire(bed.clock.now()).await.unwrap();
    bed.settle(vm.uid).await;
    for command in [Command::Rebuild, ELSEWHERE] {
        assert_eq!(refused(bed.command(&vm, command).await).reason(), Reason::InstanceUnknown);
    }
}

#[tokio::test]
async fn elsewhere_nothing_is_given_back_before_the_host_says_that_nothing_is_left() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    bed.host("h2", 16).await;
    let stale = seen(&vm, Phase::Absent);
    let (rebuild, leaving) = bed.command(&vm, ELSEWHERE).await.unwrap();
    assert_eq!((leaving.host(), leaving.status.observed.clone()), (Some(&h("h1")), None));
    assert_eq!((bed.buried("h1").await, bed.told_disk("h1").await.len()), (1, 0));
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Stopping));
    bed.store.instance_observe(&h("h1"), 1, vec![(vm.uid, stale)], false).await.unwrap();
    bed.see(vm.uid, Phase::Stopping).await;
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Stopping), "said before the host knew");
    assert_eq!(bed.get_host("h1").await.claimed.vcpus, 1, "still its own");
    let bed = bed.reopen().await;

    bed.see(vm.uid, Phase::Absent).await;
    let free = bed.get(vm.uid).await;
    assert_eq!((free.host(), free.status.state), (None, State::Placing));
    assert_eq!(bed.get_host("h1").await.claimed.vcpus, 0);
    assert_eq!((bed.buried("h1").await, bed.used("acme", "vcpus").await), (0, 1), "its quota stays");
    bed.consistent().await;

    let PlaceAnswer::Placed(placed) = bed.place_again(vm.uid).await else { panic!("placed") };
    assert_eq!((placed.host(), placed.uid, placed.intent.away_from.clone()), (Some(&h("h2")), vm.uid, None));
    assert_eq!(bed.told_disk("h2").await, [1]);
    assert!(!bed.operation(&rebuild).await.done);
    bed.see(vm.uid, Phase::Running).await;
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Running));
    let done = bed.operation(&rebuild).await;
    assert_eq!((done.done, done.failure), (true, None));
    let (events, ..) = bed.store.events_list(Some(&t("acme")), Some(&vm.name()), &Page::first(100)).await.unwrap();
    assert!(events.iter().any(|event| event.reason == "InstanceMoved" && event.message.contains("has left hosts/h1")));
    // From there it may be rebuilt in place, or go back.
    bed.command(&vm, ELSEWHERE).await.unwrap();
    bed.see(vm.uid, Phase::Absent).await;
    let PlaceAnswer::Placed(back) = bed.place_again(vm.uid).await else { panic!("placed") };
    assert_eq!(back.host(), Some(&h("h1")));
    bed.consistent().await;
}

#[tokio::test]
async fn who_waits_for_another_host_can_be_stopped_deleted_fenced_or_content_with_any() {
    let bed = Bed::furnished().await;
    let (one, two, three) =
        (bed.running("acme", "one").await, bed.running("acme", "two").await, bed.running("acme", "three").await);
    bed.command(&one, ELSEWHERE).await.unwrap();
    bed.see(one.uid, Phase::Absent).await;
    // There is no other host; then any will do.
    bed.command(&one, Command::Rebuild).await.unwrap();
    let PlaceAnswer::Placed(placed) = bed.place_again(one.uid).await else { panic!("placed") };
    assert_eq!(placed.host(), Some(&h("h1")));

    bed.command(&two, Command::Stop { timeout: None }).await.unwrap();
    bed.see(two.uid, Phase::Off).await;
    let (rebuild, _) = bed.command(&two, ELSEWHERE).await.unwrap();
    bed.see(two.uid, Phase::Absent).await;
    assert_eq!(bed.get(two.uid).await.status.state, State::Stopped, "it stays off, without a host");
    assert!(bed.operation(&rebuild).await.done);

    bed.command(&three, ELSEWHERE).await.unwrap();
    let (delete, _) = bed.command(&three, Command::Delete { force: false }).await.unwrap();
    bed.see(three.uid, Phase::Absent).await;
    assert_eq!(bed.settle(three.uid).await.after, None);
    assert!(bed.operation(&delete).await.done);

    let four = bed.running("acme", "four").await;
    bed.command(&four, ELSEWHERE).await.unwrap();
    bed.store.host_fence(&call(), &h("h1")).await.unwrap();
    assert_eq!(bed.get(four.uid).await.status.state, State::Placing);
    bed.host("h2", 16).await;
    let PlaceAnswer::Placed(placed) = bed.place_again(four.uid).await else { panic!("placed") };
    assert_eq!(placed.host(), Some(&h("h2")));
    bed.consistent().await;
}

#[tokio::test]
async fn one_that_was_rebuilt_goes_only_where_the_agent_knows_of_it() {
    let bed = Bed::furnished().await;
    let vm = bed.running("acme", "vm").await;
    bed.command(&vm, Command::Rebuild).await.unwrap();
    bed.host("h2", 16).await;
    let old = croft_store::HostReport { features: vec!["seed.files".to_owned()], ..report(16) };
    bed.store.host_report(&h("h2"), old).await.unwrap();
    bed.claim(call(), small("acme", "new")).await.expect("others go there");
    bed.store.host_fence(&call(), &h("h1")).await.unwrap();
    let views = bed.store.host_views().await.unwrap();
    let request = croft_core::placement::Request::from(&bed.get(vm.uid).await);
    let refusal = croft_core::placement::place(&views, &request).unwrap_err().to_string();
    assert!(refusal.contains("lacks disk.rebuild"), "{refusal}");
}
