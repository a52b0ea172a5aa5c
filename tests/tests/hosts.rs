//! Hosts that go away, come back, and come back too late.

use croft_proto::v1;
use croft_proto::v1::host;
use croft_proto::v1::instance_status::State;
use croft_store::Page;
use croft_tests::Fleet;
use croft_tests::eventually;
use std::time::Duration;

const PAST_THE_LEASE: Duration = Duration::from_secs(45);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_away_means_unknown_and_nothing_else() {
    let mut fleet = Fleet::with_host("h1").await;
    fleet.host("h2").await;
    let uid = fleet.api.running("acme", "web").await.metadata.unwrap().uid;
    let home = fleet.home_of("acme", "web").await;
    fleet.agent_kill(&home).await;
    fleet.advance(PAST_THE_LEASE).await;
    fleet.api.host_until(&home, host::State::Unreachable).await;
    fleet.api.until("acme", "web", State::Unknown).await;
    assert!(fleet.sim(&home).is_running(&uid).await, "the VM runs on");
    assert_eq!(fleet.api.used("acme", "instances").await, 1, "still charged");
    assert_eq!(fleet.home_of("acme", "web").await, home, "not placed anew");
    fleet.consistent().await;

    // A delete is accepted, and waits: the host has not said that nothing is left.
    fleet.agent_start(&home).await;
    fleet.api.until("acme", "web", State::Running).await;
    assert_eq!(fleet.sim(&home).starts(&uid).await, 1, "adopted, not started again");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_makes_no_host_unreachable() {
    let fleet = Fleet::with_host("h1").await;
    fleet.api.running("acme", "web").await;
    let store = fleet.store();
    let hour = Duration::from_secs(3600);
    for to in [store.now().plus(hour), store.now().minus(hour)] {
        fleet.set_clock(to);
        eventually("a lease by the new clock", || async {
            let lease = store.host_get(&"h1".into()).await.unwrap().unwrap().lease_expire_time.unwrap();
            let left = if lease > to { lease.since(to) } else { to.since(lease) };
            if left <= croft_core::host::LEASE { Ok(()) } else { Err(left) }
        })
        .await;
    }
    let (events, _, _) = store.events_list(None, Some("hosts/h1"), &Page::first(100)).await.unwrap();
    let reasons: Vec<_> = events.iter().map(|event| event.reason.as_str()).collect();
    assert!(reasons.contains(&"HostReady") && !reasons.contains(&"HostUnreachable"), "{reasons:?}");
    assert_eq!(fleet.api.state("acme", "web").await, Some(State::Running));
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_waits_for_the_host_to_say_that_nothing_is_left() {
    let mut fleet = Fleet::with_host("h1").await;
    fleet.api.running("acme", "web").await;
    fleet.agent_kill("h1").await;
    let operation = fleet.api.delete("acme", "web").await.unwrap();
    fleet.advance(PAST_THE_LEASE).await;
    fleet.api.host_until("h1", host::State::Unreachable).await;
    assert_eq!(fleet.api.state("acme", "web").await, Some(State::Deleting));
    assert_eq!(fleet.api.used("acme", "instances").await, 1, "held until it is gone");
    fleet.agent_start("h1").await;
    fleet.api.done(&operation).await.expect("deleted");
    assert!(fleet.sim("h1").is_empty().await);
    assert_eq!(fleet.api.used("acme", "instances").await, 0);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_host_loses_its_instances_and_destroys_them_first_when_it_comes_back() {
    let mut fleet = Fleet::with_host("h1").await;
    let uid = fleet.api.running("acme", "web").await.metadata.unwrap().uid;
    fleet.agent_kill("h1").await;
    fleet.host("h2").await;

    let fence = |confirm| v1::FenceHostRequest {
        name: "hosts/h1".to_owned(),
        confirm_powered_off: confirm,
        ..Default::default()
    };
    let refused = fleet.api.hosts.clone().fence_host(fence(false)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    fleet.api.hosts.clone().fence_host(fence(true)).await.unwrap();
    fleet.api.host_until("h1", host::State::Fenced).await;
    fleet.api.until("acme", "web", State::Running).await;
    assert_eq!(fleet.home_of("acme", "web").await, "h2", "placed anew");
    assert_eq!(fleet.api.used("acme", "instances").await, 1, "charged once");
    fleet.consistent().await;

    // The machine was not off after all.
    assert!(fleet.sim("h1").is_running(&uid).await);
    fleet.agent_start("h1").await;
    fleet.api.host_until("h1", host::State::Ready).await;
    assert!(fleet.sim("h1").is_empty().await, "what was fenced is destroyed before the host takes work again");
    assert!(fleet.sim("h2").is_running(&uid).await);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_domains_are_counted_and_never_touched() {
    let mut fleet = Fleet::with_host("h1").await;
    fleet.sim("h1").add_foreign("legacy-db", 8, 32 * 1024, 100).await;
    croft_tests::eventually("it is counted", || async {
        let host = fleet.api.host("h1").await;
        let foreign = host.foreign.unwrap_or_default();
        let named = host.info.is_some_and(|info| info.foreign_domains.contains(&"legacy-db".to_owned()));
        if named && foreign.vcpus == 8 && foreign.memory_mib == 32 * 1024 { Ok(()) } else { Err(foreign) }
    })
    .await;
    fleet.api.running("acme", "web").await;
    fleet.agent_kill("h1").await;
    fleet.agent_start("h1").await;
    fleet.api.done(&fleet.api.delete("acme", "web").await.unwrap()).await.unwrap();
    assert_eq!(fleet.sim("h1").foreign().await, ["legacy-db"]);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hypervisor_that_does_not_answer_frees_nothing() {
    let fleet = Fleet::with_host("h1").await;
    let api = &fleet.api;
    api.running("acme", "web").await;
    fleet.sim("h1").unavailable(true).await;
    croft_tests::eventually("the host says so", || async {
        let conditions = api.host("h1").await.conditions;
        if conditions.iter().any(|c| c.reason.contains("HypervisorUnavailable") || c.r#type.contains("Hypervisor")) {
            Ok(())
        } else {
            Err(conditions)
        }
    })
    .await;
    assert_eq!(api.state("acme", "web").await, Some(State::Running), "not seen is not gone");
    let delete = api.delete("acme", "web").await.unwrap();
    assert_eq!(api.used("acme", "instances").await, 1);
    fleet.sim("h1").unavailable(false).await;
    api.done(&delete).await.expect("deleted once it answers");
    fleet.end().await;
}
