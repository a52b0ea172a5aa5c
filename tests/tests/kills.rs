//! SIGKILL of real processes at every named point: of the plane, generated from the state table, and of the agent, around
//! every verb. The supervisor of the test starts the process again, as systemd would, and the story must end as if
//! nothing had happened.

use std::collections::BTreeSet;

use croft_proto::v1;
use croft_proto::v1::instance_status::State;
use croft_tests::Wanted;
use croft_tests::cell::Cell;

/// How many stories run at once: each is three processes that mostly wait.
const AT_ONCE: usize = 6;

macro_rules! command {
    ($cell:expr, $method:ident, $request:ident, $id:expr $(, $field:ident: $value:expr)*) => {{
        let id = $id.to_owned();
        let request_id = format!("{}-{}-{}", stringify!($method), id, uuid::Uuid::new_v4());
        $cell.ask(stringify!($method), move |api| {
            let name = format!("tenants/acme/instances/{id}");
            let request = v1::$request { name, request_id: request_id.clone() $(, $field: $value)*, ..Default::default() };
            async move { api.instances.clone().$method(request).await }
        }).await.into_inner()
    }};
}

/// Through every state: create, stop, start, reboot, reset, rebuild, delete; a refused one; a silent and a fenced host.
async fn story(point: &'static str) -> (&'static str, usize) {
    let mut cell = Cell::start(point).await;
    cell.furnish().await;
    create(&mut cell, "web").await;
    cell.until("web", Some(State::Running)).await;
    let reboot = command!(cell, reboot_instance, RebootInstanceRequest, "web");
    cell.done(&reboot).await;
    let reset = command!(cell, reset_instance, ResetInstanceRequest, "web");
    cell.done(&reset).await;
    let rebuild = command!(cell, rebuild_instance, RebuildInstanceRequest, "web");
    cell.done(&rebuild).await;
    cell.until("web", Some(State::Running)).await;
    command!(cell, stop_instance, StopInstanceRequest, "web");
    cell.until("web", Some(State::Stopped)).await;
    command!(cell, start_instance, StartInstanceRequest, "web");
    cell.until("web", Some(State::Running)).await;
    command!(cell, stop_instance, StopInstanceRequest, "web", timeout: Some(prost_types::Duration::default()));
    cell.until("web", Some(State::Stopped)).await;
    if point.starts_with("plane.failed") {
        fail_once(&mut cell).await;
    }
    if ["plane.unknown", "plane.placing", "agent.epoch"].iter().any(|one| point.starts_with(one)) {
        lose_the_host(&mut cell).await;
    }
    command!(cell, delete_instance, DeleteInstanceRequest, "web");
    cell.until("web", None).await;
    cell.nothing_left().await;
    (point, cell.deaths())
}

async fn create(cell: &mut Cell, id: &'static str) {
    cell.ask("create", |api| async move {
        let request = v1::CreateInstanceRequest { request_id: id.to_owned(), ..Wanted::default().request("acme", id) };
        api.instances.clone().create_instance(request).await
    })
    .await;
}

/// An image that the simulated host refuses, as a real one refuses a wrong digest.
async fn fail_once(cell: &mut Cell) {
    let faults = cell.state_dir().join(croft_tests::fleet::FAULTS);
    std::fs::write(&faults, croft_tests::fleet::REFUSE_DEFINE).unwrap();
    create(cell, "bad").await;
    cell.until("bad", Some(State::Failed)).await;
    std::fs::remove_file(&faults).unwrap();
    command!(cell, delete_instance, DeleteInstanceRequest, "bad");
    cell.until("bad", None).await;
}

/// The agent goes silent past the lease; the host is fenced; the agent comes back with an old epoch.
async fn lose_the_host(cell: &mut Cell) {
    command!(cell, start_instance, StartInstanceRequest, "web");
    cell.until("web", Some(State::Running)).await;
    let agent_alive = cell.agent.deaths;
    cell.agent.pause();
    cell.until("web", Some(State::Unknown)).await;
    cell.ask("fence", |api| async move {
        let request = v1::FenceHostRequest {
            name: "hosts/h1".to_owned(),
            confirm_powered_off: true,
            request_id: "fence".to_owned(),
        };
        api.hosts.clone().fence_host(request).await
    })
    .await;
    cell.until("web", Some(State::Placing)).await;
    cell.agent.resume();
    assert_eq!(cell.agent.deaths, agent_alive);
    cell.until("web", Some(State::Running)).await;
    command!(cell, stop_instance, StopInstanceRequest, "web");
    cell.until("web", Some(State::Stopped)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_point_it_ends_as_if_nothing_had_happened() {
    let plane = croft_core::instance::State::TABLE.iter().flat_map(|row| row.crash_points.iter().copied());
    let agent = croft_hostagent::crash::POINTS.iter().copied();
    let mut waiting: Vec<&'static str> = plane.chain(agent).collect();
    let all: BTreeSet<&str> = waiting.iter().copied().collect();
    let listed: BTreeSet<&str> = croft_store::crash::POINTS.iter().copied().collect();
    assert!(listed.is_subset(&all), "points of the store without a kill test: {:?}", listed.difference(&all));
    // The slowest first.
    waiting.sort_by_key(|point| point.contains("unknown") || point.contains("placing") || point.contains("epoch"));
    let mut running = tokio::task::JoinSet::new();
    let mut never_died = Vec::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(point) = waiting.pop()
        {
            running.spawn(story(point));
        }
        let Some(ended) = running.join_next().await else { break };
        let (point, deaths) = ended.expect("a story failed");
        println!("{point}: died {deaths} time(s), and nothing is missing");
        if deaths == 0 {
            never_died.push(point);
        }
    }
    assert!(never_died.is_empty(), "points that no story reaches: {never_died:?}");
}
