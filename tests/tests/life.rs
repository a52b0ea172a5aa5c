//! The life of an instance, end to end: placed, charged, run, stopped, started, rebooted, deleted.

use croft_proto::v1;
use croft_proto::v1::instance_status::State;
use croft_tests::{Fleet, Wanted, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_create_to_nothing_left() {
    let fleet = Fleet::with_host("h1").await;
    let api = &fleet.api;
    let web = api.running("acme", "web").await;
    let status = web.status.clone().unwrap();
    assert_eq!((status.state(), status.host.as_str()), (State::Running, "hosts/h1"));
    assert_eq!(api.used("acme", "vcpus").await, 1);
    assert_eq!(api.used("acme", "memory_mib").await, 256);
    assert_eq!(api.used("acme", "disk_gib").await, 2);
    assert_eq!(api.used("acme", "instances").await, 1);
    eventually("the guest has an address", || async {
        let status = api.get("acme", "web").await.unwrap().status.unwrap();
        if status.addresses.is_empty() { Err(status) } else { Ok(()) }
    })
    .await;

    api.done(&api.stop("acme", "web").await.unwrap()).await.expect("stopped");
    assert_eq!(api.state("acme", "web").await, Some(State::Stopped));
    assert_eq!(api.used("acme", "instances").await, 1, "a stopped instance keeps its charges");
    api.done(&api.start("acme", "web").await.unwrap()).await.expect("started");
    assert_eq!(api.state("acme", "web").await, Some(State::Running));
    let name = "tenants/acme/instances/web".to_owned();
    let reboot = v1::RebootInstanceRequest { name: name.clone(), ..Default::default() };
    let operation = api.instances.clone().reboot_instance(reboot).await.unwrap().into_inner();
    api.done(&operation).await.expect("rebooted");
    let reset = v1::ResetInstanceRequest { name, ..Default::default() };
    let operation = api.instances.clone().reset_instance(reset).await.unwrap().into_inner();
    api.done(&operation).await.expect("reset");

    api.done(&api.delete("acme", "web").await.unwrap()).await.expect("deleted");
    assert_eq!(api.state("acme", "web").await, None);
    for resource in ["vcpus", "memory_mib", "disk_gib", "instances"] {
        assert_eq!(api.used("acme", resource).await, 0, "{resource}");
    }
    assert!(fleet.sim("h1").is_empty().await, "nothing is left on the host");
    assert_eq!(api.host("h1").await.claimed, Some(v1::Resources::default()));
    fleet.consistent().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guests_own_poweroff_stays_off_and_a_hosts_shutdown_does_not_count_as_one() {
    let fleet = Fleet::with_host("h1").await;
    let api = &fleet.api;
    let uid = api.running("acme", "web").await.metadata.unwrap().uid;
    fleet.sim("h1").guest_poweroff(&uid).await;
    api.until("acme", "web", State::Stopped).await;
    let exit = api.get("acme", "web").await.unwrap().status.unwrap().exit.unwrap();
    assert_eq!(exit.kind(), v1::exit::Kind::GuestPoweroff);
    let intent = api.get("acme", "web").await.unwrap().spec.unwrap().power();
    assert_eq!(intent, v1::instance_spec::Power::Running, "nobody but the user writes intent");
    api.done(&api.start("acme", "web").await.unwrap()).await.expect("started");

    fleet.sim("h1").guest_crash(&uid).await;
    eventually("it was restarted after the crash", || async {
        let status = api.get("acme", "web").await.unwrap().status.unwrap();
        if status.state() == State::Running && status.restart_count >= 1 { Ok(()) } else { Err(status) }
    })
    .await;

    let mut fleet = fleet;
    fleet.agent_kill("h1").await;
    fleet.sim("h1").host_reboot().await;
    fleet.agent_start("h1").await;
    let api = &fleet.api;
    eventually("it runs again after the host's reboot", || async {
        let status = api.get("acme", "web").await.unwrap().status.unwrap();
        let host_went_down = status.exit.as_ref().is_some_and(|exit| exit.kind() == v1::exit::Kind::HostShutdown);
        if status.state() == State::Running && host_went_down { Ok(()) } else { Err(status) }
    })
    .await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_share_the_work_and_a_full_fleet_says_which_limit_on_which_host() {
    let mut fleet = Fleet::with_host("h1").await;
    fleet.host("h2").await;
    let api = &fleet.api;
    for id in ["a", "b", "c", "d"] {
        api.running("acme", id).await;
    }
    let mut per_host = std::collections::BTreeMap::new();
    for id in ["a", "b", "c", "d"] {
        *per_host.entry(api.get("acme", id).await.unwrap().status.unwrap().host).or_insert(0) += 1;
    }
    assert_eq!(per_host.values().copied().collect::<Vec<_>>(), [2, 2], "spread");

    let huge = Wanted { memory_mib: 64 * 1024 * 1024, ..Wanted::default() };
    let refused = api.create_as(huge.request("acme", "huge")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(refused.message().contains("MiB") && refused.message().contains("hosts/h"), "{}", refused.message());
    assert_eq!(api.used("acme", "instances").await, 4, "a refusal charges nothing");

    let request = v1::ExplainInstanceRequest { create: Some(huge.request("acme", "huge")), ..Default::default() };
    let answer = api.instances.clone().explain_instance(request).await.unwrap().into_inner();
    assert_eq!(answer.hosts.len(), 2);
    assert!(
        answer.hosts.iter().all(|host| !host.fits && host.predicate == "Size" && !host.fix.is_empty()),
        "{answer:?}"
    );

    let cordon = |name: &str| v1::CordonHostRequest { name: format!("hosts/{name}"), ..Default::default() };
    api.hosts.clone().cordon_host(cordon("h1")).await.unwrap();
    api.running("acme", "e").await;
    assert_eq!(api.get("acme", "e").await.unwrap().status.unwrap().host, "hosts/h2");
    fleet.consistent().await;
    fleet.end().await;
}
