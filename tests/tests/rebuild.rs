//! Another root disk for the same instance, here and on another host, and whoever is killed meanwhile.

use std::time::Duration;

use croft_proto::v1;
use croft_proto::v1::instance_status::State;
use croft_tests::{Fleet, eventually};
use tonic::Code;

fn of(instance: &v1::Instance) -> (String, String) {
    let status = instance.status.clone().unwrap_or_default();
    (instance.metadata.clone().unwrap_or_default().uid, status.host)
}

async fn macs(fleet: &Fleet, id: &str) -> Vec<String> {
    eventually("the guest has an address", || async {
        let status = fleet.api.get("acme", id).await.unwrap().status.unwrap();
        let macs: Vec<_> = status.addresses.iter().map(|address| address.mac.clone()).collect();
        if macs.is_empty() { Err(status) } else { Ok(macs) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuilt_instance_is_what_it_was_on_another_disk() {
    let fleet = Fleet::with_host("h1").await;
    let api = &fleet.api;
    let before = api.running("acme", "web").await;
    let (uid, _) = of(&before);
    let (disk, known) = (fleet.sim("h1").disk(&uid), macs(&fleet, "web").await);

    let name = before.name.clone();
    let dry = v1::RebuildInstanceRequest { name: name.clone(), validate_only: true, ..Default::default() };
    api.instances.clone().rebuild_instance(dry).await.unwrap();
    let stale = v1::RebuildInstanceRequest { name: name.clone(), etag: "0-0".to_owned(), ..Default::default() };
    assert_eq!(api.instances.clone().rebuild_instance(stale).await.unwrap_err().code(), Code::Aborted);
    let once = v1::RebuildInstanceRequest { name, request_id: "once".to_owned(), ..Default::default() };
    let operation = api.instances.clone().rebuild_instance(once.clone()).await.unwrap().into_inner();
    api.done(&operation).await.expect("rebuilt");
    let again = api.instances.clone().rebuild_instance(once).await.unwrap().into_inner();
    assert_eq!((again.name, again.verb.as_str()), (operation.name, "rebuild"));

    let after = api.get("acme", "web").await.unwrap();
    assert_eq!((of(&after), after.status.clone().unwrap().state()), (of(&before), State::Running));
    assert_eq!(macs(&fleet, "web").await, known);
    let second = fleet.sim("h1").disk(&uid);
    assert!(second.is_some() && second != disk, "once, and not the old one");
    assert_eq!(fleet.sim("h1").starts(&uid).await, 2);
    assert_eq!((api.used("acme", "instances").await, api.used("acme", "disk_gib").await), (1, 2));

    api.done(&api.stop("acme", "web").await.unwrap()).await.expect("stopped");
    api.done(&api.rebuild("acme", "web", false).await.unwrap()).await.expect("rebuilt");
    assert_eq!(api.state("acme", "web").await, Some(State::Stopped), "what is off stays off");
    assert!(![None, disk, second].contains(&fleet.sim("h1").disk(&uid)));
    assert_eq!(fleet.sim("h1").starts(&uid).await, 2);
    fleet.consistent().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elsewhere_is_another_host_or_nowhere() {
    let mut fleet = Fleet::with_host("h1").await;
    let before = fleet.api.running("acme", "web").await;
    let (uid, _) = of(&before);
    let disk = fleet.sim("h1").disk(&uid);
    let refused = fleet.api.rebuild("acme", "web", true).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("hosts/h1: it is to be rebuilt on another host"), "{refused}");
    let now = fleet.api.get("acme", "web").await.unwrap();
    assert_eq!(
        (&now.metadata, &now.spec, of(&now)),
        (&before.metadata, &before.spec, of(&before)),
        "nothing has begun"
    );
    assert!(fleet.sim("h1").is_running(&uid).await);

    fleet.host("h2").await;
    let request = v1::RebuildInstanceRequest {
        name: before.name.clone(),
        request_id: "away".to_owned(),
        elsewhere: true,
        ..Default::default()
    };
    let operation = fleet.api.instances.clone().rebuild_instance(request.clone()).await.unwrap().into_inner();
    fleet.api.done(&operation).await.expect("rebuilt");
    let after = fleet.api.get("acme", "web").await.unwrap();
    assert_eq!(of(&after), (uid.clone(), "hosts/h2".to_owned()));
    assert!(fleet.sim("h1").is_empty().await, "nothing is left");
    assert_ne!(fleet.sim("h2").disk(&uid), disk);
    assert_eq!(fleet.api.used("acme", "instances").await, 1);
    assert_eq!(fleet.api.host("h1").await.claimed, Some(v1::Resources::default()));
    // Room or not: a retry of what was done is answered as it was then.
    let cordon = v1::CordonHostRequest { name: "hosts/h1".to_owned(), ..Default::default() };
    fleet.api.hosts.clone().cordon_host(cordon).await.unwrap();
    let again = fleet.api.instances.clone().rebuild_instance(request).await.unwrap().into_inner();
    assert_eq!(again.name, operation.name);
    fleet.api.done(&fleet.api.delete("acme", "web").await.unwrap()).await.expect("deleted");
    fleet.consistent().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_meanwhile_it_runs_once_in_the_end_and_on_one_host() {
    let mut fleet = Fleet::with_host("h1").await;
    let uid = of(&fleet.api.running("acme", "web").await).0;
    fleet.host("h2").await;
    for (from, to) in [("h1", "h2"), ("h2", "h1")] {
        fleet.agent_kill(from).await;
        let operation = fleet.api.rebuild("acme", "web", true).await.unwrap();
        fleet.plane_kill().await;
        fleet.revive().await;
        // The host knows, and its plane dies before it hears the answer.
        fleet.plane_kill().await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        fleet.revive().await;
        fleet.api.done(&operation).await.expect("rebuilt");
        assert_eq!(fleet.home_of("acme", "web").await, to);
        assert!(fleet.sim(from).is_empty().await && fleet.sim(to).is_running(&uid).await);
        fleet.consistent().await;
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_not_heard_from_gives_nothing_up() {
    let mut fleet = Fleet::with_host("h1").await;
    let uid = of(&fleet.api.running("acme", "web").await).0;
    fleet.host("h2").await;
    fleet.agent_kill("h1").await;
    let operation = fleet.api.rebuild("acme", "web", true).await.unwrap();
    fleet.advance(Duration::from_secs(45)).await;
    fleet.api.until("acme", "web", State::Unknown).await;
    assert_eq!(fleet.home_of("acme", "web").await, "h1", "not placed anew");
    let refused = fleet.api.rebuild("acme", "web", false).await.unwrap_err();
    assert!(refused.message().contains("not heard from"), "{refused}");
    assert!(fleet.sim("h1").is_running(&uid).await);
    fleet.agent_start("h1").await;
    fleet.api.done(&operation).await.expect("rebuilt");
    assert_eq!(fleet.home_of("acme", "web").await, "h2");
    fleet.consistent().await;
    fleet.end().await;
}
