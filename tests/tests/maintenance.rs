//! Hosts under maintenance: what a preview says is what happens, nobody's wish is touched, and all comes back as it was, whoever dies
//! in between.

use croft_proto::v1;
use croft_proto::v1::drain_step::Effect;
use croft_proto::v1::host_maintenance::Phase;
use croft_proto::v1::instance_spec::Power;
use croft_proto::v1::instance_status::State;
use croft_proto::v1::token::Role;
use croft_proto::v1::{condition, host};
use croft_store::Page;
use croft_tests::cell::Cell;
use croft_tests::{Fleet, Wanted, eventually};
use std::time::Duration;
use tonic::Code;

const PAST_THE_LEASE: Duration = Duration::from_secs(45);

fn uid(instance: &v1::Instance) -> String {
    instance.metadata.clone().unwrap_or_default().uid
}

async fn reason_of(fleet: &Fleet, id: &str) -> String {
    fleet.api.get("acme", id).await.unwrap().status.unwrap().reason
}

async fn is_off_for_it(fleet: &Fleet, id: &str) {
    eventually(&format!("{id} is off for the maintenance"), || async {
        let status = fleet.api.get("acme", id).await.unwrap().status.unwrap();
        if (status.state(), status.reason.as_str()) == (State::Stopped, "HostMaintenance") {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_preview_says_happens_and_all_is_restored_as_it_was() {
    let fleet = Fleet::with_host("h1").await;
    let api = &fleet.api;
    let web = api.running("acme", "web").await;
    let rests = api.running("acme", "rests").await;
    fleet.sim("h1").guest_poweroff(&uid(&rests)).await;
    api.until("acme", "rests", State::Stopped).await;
    let off = Wanted { power: Power::Stopped, ..Wanted::default() }.request("acme", "off");
    api.done(&api.create_as(off).await.unwrap()).await.unwrap();
    let before = [
        ("off".to_owned(), Effect::StaysOff, false),
        ("rests".to_owned(), Effect::StaysOff, false),
        ("web".to_owned(), Effect::Stops, true),
    ];
    assert_eq!(api.drain_plan("h1").await, before);
    assert!(fleet.sim("h1").is_running(&uid(&web)).await, "a preview does nothing");
    let expect = v1::ExplainHostDrainRequest { name: "hosts/h1".to_owned() };
    let mut expect = api.hosts.clone().explain_host_drain(expect).await.unwrap().into_inner();
    let request = |expect: &v1::DrainPlan| v1::DrainHostRequest {
        name: "hosts/h1".to_owned(),
        reason: "new kernel".to_owned(),
        expect: Some(expect.clone()),
        ..Default::default()
    };
    let last = expect.steps.pop().unwrap();
    let other = api.hosts.clone().drain_host(request(&expect)).await.unwrap_err();
    assert!(other.code() == Code::FailedPrecondition && other.message().contains("web has come: STOPS"), "{other}");
    expect.steps.push(last);
    api.hosts.clone().drain_host(request(&expect)).await.unwrap();
    api.drained("h1").await;
    is_off_for_it(&fleet, "web").await;
    assert!(!fleet.sim("h1").is_running(&uid(&web)).await);
    let stopped = api.get("acme", "web").await.unwrap();
    assert_eq!(stopped.spec.as_ref().unwrap().power(), Power::Running, "its user still wants it");
    assert!(stopped.status.unwrap().message.contains("new kernel"));
    assert_ne!(reason_of(&fleet, "rests").await, "HostMaintenance");
    assert_eq!(api.used("acme", "instances").await, 3, "claims and charges stay");
    let done = [
        ("off".to_owned(), Effect::StaysOff, false),
        ("rests".to_owned(), Effect::StaysOff, false),
        ("web".to_owned(), Effect::StaysOff, true),
    ];
    assert_eq!(api.drain_plan("h1").await, done);
    let text = fleet.metrics().await;
    assert!(text.contains(r#"croft_host_maintenance{host="h1",phase="DRAINED"} 1"#), "{text}");

    let none = api.create("acme", "new").await.unwrap_err();
    assert!(none.message().contains("under maintenance"), "{none}");
    let second = api.drain("h1").await.unwrap_err();
    assert!(second.message().contains("undrain"), "{second}");
    // Its user changes his mind meanwhile; that counts when it is over.
    let start = api.start("acme", "off").await.unwrap();
    is_off_for_it(&fleet, "off").await;

    api.undrain("h1").await.unwrap();
    api.until("acme", "web", State::Running).await;
    api.done(&start).await.unwrap();
    api.until("acme", "off", State::Running).await;
    assert_eq!(api.state("acme", "rests").await, Some(State::Stopped));
    assert_eq!((fleet.sim("h1").starts(&uid(&web)).await, fleet.sim("h1").starts(&uid(&rests)).await), (2, 1));
    assert_eq!(api.host("h1").await.maintenance, None);
    api.running("acme", "new").await;

    let (events, ..) = fleet.store().events_list(None, Some("hosts/h1"), &Page::first(100)).await.unwrap();
    let reasons: Vec<_> = events.iter().map(|event| event.reason.as_str()).filter(|r| r.contains("rain")).collect();
    assert_eq!(reasons, ["HostDraining", "HostDrained", "HostUndrained"]);
    let whose = "tenants/acme/instances/web";
    let (events, ..) = fleet.store().events_list(Some(&"acme".into()), Some(whose), &Page::first(100)).await.unwrap();
    assert!(events.iter().any(|event| event.reason == "InstanceStopped" && event.message.contains("HostMaintenance")));
    let (audit, _) = fleet.store().audit_list(None, &Page::first(1000)).await.unwrap();
    let calls = |method: &str, result: &str| {
        audit
            .iter()
            .filter(|row| row.method.ends_with(method) && row.result == result && row.target == "hosts/h1")
            .count()
    };
    assert_eq!((calls("/DrainHost", "OK"), calls("/DrainHost", "FAILED_PRECONDITION")), (1, 2));
    assert_eq!(calls("/UndrainHost", "OK"), 1);
    fleet.consistent().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_is_taken_back_in_the_middle_starts_what_was_stopped_and_leaves_the_rest_alone() {
    let fleet = Fleet::with_host("h1").await;
    let api = &fleet.api;
    let (web, deaf) = (api.running("acme", "web").await, api.running("acme", "deaf").await);
    fleet.sim("h1").guest_deaf(&uid(&deaf), true).await;
    api.drain("h1").await.unwrap();
    is_off_for_it(&fleet, "web").await;
    api.until("acme", "deaf", State::Stopping).await;
    assert_eq!(api.host("h1").await.maintenance.unwrap().phase(), Phase::Draining);
    let left = [("deaf".to_owned(), Effect::Stops, true), ("web".to_owned(), Effect::StaysOff, true)];
    assert_eq!(api.drain_plan("h1").await, left, "what is still to be done");
    api.undrain("h1").await.unwrap();
    api.until("acme", "web", State::Running).await;
    api.until("acme", "deaf", State::Running).await;
    assert_eq!((fleet.sim("h1").starts(&uid(&web)).await, fleet.sim("h1").starts(&uid(&deaf)).await), (2, 1));
    // And once more: it hears now, and has its full time.
    fleet.sim("h1").guest_deaf(&uid(&deaf), false).await;
    api.drain("h1").await.unwrap();
    api.drained("h1").await;
    let exit = api.get("acme", "deaf").await.unwrap().status.unwrap().exit.unwrap();
    assert_eq!(exit.kind(), v1::exit::Kind::Stopped, "its plug was not pulled: {exit:?}");
    fleet.consistent().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_reboots_and_a_plane_that_restarts_in_the_middle_start_nobody() {
    let mut fleet = Fleet::with_host("h1").await;
    let (web, deaf) = (fleet.api.running("acme", "web").await, fleet.api.running("acme", "deaf").await);
    fleet.sim("h1").guest_deaf(&uid(&deaf), true).await;
    fleet.api.drain("h1").await.unwrap();
    is_off_for_it(&fleet, "web").await;
    fleet.api.until("acme", "deaf", State::Stopping).await;
    fleet.agent_kill("h1").await;
    fleet.sim("h1").host_reboot().await;
    fleet.advance(PAST_THE_LEASE).await;
    fleet.api.host_until("h1", host::State::Unreachable).await;
    assert_eq!(
        fleet.api.host("h1").await.maintenance.unwrap().phase(),
        Phase::Draining,
        "nobody said that deaf is off"
    );
    fleet.api.until("acme", "deaf", State::Unknown).await;
    assert_eq!(reason_of(&fleet, "web").await, "HostMaintenance", "known to be off, however silent its host is");
    fleet.plane_kill().await;
    fleet.revive().await;
    fleet.api.drained("h1").await;
    fleet.api.host_until("h1", host::State::Ready).await;
    is_off_for_it(&fleet, "deaf").await;
    is_off_for_it(&fleet, "web").await;
    fleet.agent_kill("h1").await;
    fleet.sim("h1").host_reboot().await;
    fleet.agent_start("h1").await;
    fleet.api.undrain("h1").await.unwrap();
    fleet.api.until("acme", "web", State::Running).await;
    fleet.api.until("acme", "deaf", State::Running).await;
    assert_eq!((fleet.sim("h1").starts(&uid(&web)).await, fleet.sim("h1").starts(&uid(&deaf)).await), (2, 2));
    fleet.consistent().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_are_kept_for_it_and_the_same_after_a_reboot() {
    let mut fleet = Fleet::start().await;
    fleet.host_with_devices("h1", "devbox").await;
    fleet.api.device_until("h1", "0000:41:00.0", v1::device::State::Available).await;
    fleet.api.quota("acme", "gpu_slices/h100_sxm_80gb/2g.20gb", 1).await;
    let slice = v1::device_request::MigSlice { profile: "2g.20gb".to_owned(), ..Default::default() };
    let device = v1::DeviceRequest {
        id: "slice".to_owned(),
        wanted: Some(v1::device_request::Wanted::Mig(slice)),
        ..Default::default()
    };
    let request = Wanted { devices: vec![device], ..Wanted::default() }.request("acme", "infer");
    fleet.api.done(&fleet.api.create_as(request).await.unwrap()).await.unwrap();
    let has_it = async |fleet: &Fleet| {
        eventually("it runs with its slice", || async {
            let status = fleet.api.get("acme", "infer").await.unwrap().status.unwrap();
            let attached = status.conditions.iter().find(|one| one.r#type == "DevicesAttached");
            let attached = attached.is_some_and(|one| one.status() == condition::Status::True);
            if attached && status.state() == State::Running { Ok(status.devices) } else { Err(status) }
        })
        .await
    };
    let given = has_it(&fleet).await;
    fleet.api.drain("h1").await.unwrap();
    fleet.api.drained("h1").await;
    assert_eq!(fleet.api.device("h1", "0000:41:00.0").await.holders.len(), 1, "nobody else gets it meanwhile");
    fleet.agent_kill("h1").await;
    fleet.sim("h1").host_reboot().await;
    fleet.agent_start("h1").await;
    fleet.api.undrain("h1").await.unwrap();
    assert_eq!(has_it(&fleet).await, given, "the same piece");
    fleet.consistent().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_and_what_cannot_be_is_refused() {
    let mut fleet = Fleet::with_host("h1").await;
    fleet.api.running("acme", "web").await;
    let token = v1::Token { tenant: "tenants/acme".to_owned(), role: Role::TenantAdmin.into(), ..Default::default() };
    let request = v1::CreateTokenRequest { token_id: "acme".to_owned(), token: Some(token), ..Default::default() };
    let secret = fleet.api.tokens.clone().create_token(request).await.unwrap().into_inner().secret;
    let tenant = fleet.client_with(&secret);
    assert_eq!(tenant.drain("h1").await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(tenant.undrain("h1").await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(fleet.api.drain("h9").await.unwrap_err().code(), Code::NotFound);
    let long = v1::DrainHostRequest { name: "hosts/h1".to_owned(), reason: "x".repeat(201), ..Default::default() };
    let long = fleet.api.hosts.clone().drain_host(long).await.unwrap_err();
    assert!(long.code() == Code::InvalidArgument && long.message().contains("reason"), "{long}");

    fleet.agent_kill("h1").await;
    fleet.advance(PAST_THE_LEASE).await;
    fleet.api.host_until("h1", host::State::Unreachable).await;
    assert_eq!(fleet.api.drain_plan("h1").await, [("web".to_owned(), Effect::Cannot, true)]);
    let silent = fleet.api.drain("h1").await.unwrap_err();
    assert!(silent.code() == Code::Unavailable && silent.message().contains("croft host fence h1"), "{silent}");
    assert_eq!(fleet.api.host("h1").await.maintenance, None);
    fleet.agent_start("h1").await;
    fleet.api.until("acme", "web", State::Running).await;

    // Fenced in the middle: what was parked there runs elsewhere, and the host stays in maintenance.
    fleet.host("h2").await;
    fleet.api.drain("h1").await.unwrap();
    fleet.api.drained("h1").await;
    fleet.agent_kill("h1").await;
    let fence = v1::FenceHostRequest { name: "hosts/h1".to_owned(), confirm_powered_off: true, ..Default::default() };
    fleet.api.hosts.clone().fence_host(fence).await.unwrap();
    fleet.api.until("acme", "web", State::Running).await;
    assert_eq!(fleet.home_of("acme", "web").await, "h2");
    fleet.agent_start("h1").await;
    fleet.api.host_until("h1", host::State::Ready).await;
    assert_eq!(fleet.api.host("h1").await.maintenance.unwrap().phase(), Phase::Drained);
    fleet.consistent().await;
    fleet.end().await;
}

/// Real processes: the plane is killed at each step of a drain and of its end, on either side of the commit, and the agent at its part.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_at_whichever_step_it_is_drained_and_restored_all_the_same() {
    use croft_store::crash::{DRAIN, DRAINED, UNDRAIN};
    let states = ["plane.stopping.before", "plane.stopping.after", "plane.stopped.before", "plane.stopped.after"];
    let mut stories = tokio::task::JoinSet::new();
    let agent = ["agent.stop.before", "agent.stop.after"];
    for point in [DRAIN, DRAINED, UNDRAIN, &states, &agent].concat() {
        stories.spawn(killed_at(point));
    }
    while let Some(ended) = stories.join_next().await {
        let (point, deaths) = ended.expect("a story failed");
        assert_eq!(deaths, 1, "{point} was never reached");
    }
}

async fn killed_at(point: &'static str) -> (&'static str, usize) {
    let mut cell = Cell::start(point).await;
    cell.furnish().await;
    cell.ask("create", |api| async move {
        let request =
            v1::CreateInstanceRequest { request_id: "web".to_owned(), ..Wanted::default().request("acme", "web") };
        api.instances.clone().create_instance(request).await
    })
    .await;
    cell.until("web", Some(State::Running)).await;
    cell.ask("drain", |api| async move {
        let (name, request_id) = ("hosts/h1".to_owned(), "drain".to_owned());
        api.hosts.clone().drain_host(v1::DrainHostRequest { name, request_id, ..Default::default() }).await
    })
    .await;
    cell.ask("drained", |api| async move {
        let request = v1::GetHostRequest { name: "hosts/h1".to_owned() };
        let host = api.hosts.clone().get_host(request).await?.into_inner();
        match host.maintenance.unwrap_or_default().phase() {
            Phase::Drained => Ok(()),
            phase => Err(tonic::Status::unavailable(format!("{phase:?}"))),
        }
    })
    .await;
    cell.until("web", Some(State::Stopped)).await;
    cell.ask("undrain", |api| async move {
        let (name, request_id) = ("hosts/h1".to_owned(), "undrain".to_owned());
        api.hosts.clone().undrain_host(v1::UndrainHostRequest { name, request_id }).await
    })
    .await;
    cell.until("web", Some(State::Running)).await;
    (point, cell.deaths())
}
