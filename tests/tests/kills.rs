//! SIGKILL of real processes at every named point: of the plane, generated from the state table, and of the agent, around
//! every verb. The supervisor of the test starts the process again, as systemd would, and the story must end as if
//! nothing had happened.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use croft_proto::v1;
use croft_proto::v1::instance_status::State;
use croft_tests::process::{self, Supervised};
use croft_tests::{Api, Wanted};
use tonic::{Code, Status};

const DEADLINE: Duration = Duration::from_secs(150);
/// How many stories run at once: each is three processes that mostly wait.
const AT_ONCE: usize = 6;

struct Cell {
    plane: Supervised,
    agent: Supervised,
    api: Api,
    directory: tempfile::TempDir,
}

impl Cell {
    /// A plane and one simulated host; `crash_at` goes to whichever of them has such a point.
    async fn start(crash_at: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (data, state) = (directory.path().join("plane"), directory.path().join("agent"));
        let address = format!("127.0.0.1:{}", process::free_port());
        let plane_point = crash_at.starts_with("plane.").then_some(crash_at);
        let agent_point = crash_at.starts_with("agent.").then_some(crash_at);
        let arguments =
            ["serve", "--data-dir", data.to_str().unwrap(), "--listen", &address, "--metrics-listen", "127.0.0.1:0"];
        let plane =
            Supervised::start("croft-controlplane", &arguments, &directory.path().join("plane.log"), plane_point);
        let (api_address, _) = process::listening(&data).await;
        let api = process::admin(&data, api_address);
        let token = croft_tests::eventually("an enrolment token", || async {
            let request = v1::CreateEnrolmentTokenRequest { host_id: "h1".to_owned(), ..Default::default() };
            api.hosts.clone().create_enrolment_token(request).await.map(|answer| answer.into_inner().token)
        })
        .await;
        let ca_file = data.join("ca.pem");
        let arguments = [
            "run",
            "--server",
            &address,
            "--ca-file",
            ca_file.to_str().unwrap(),
            "--host-id",
            "h1",
            "--token",
            &token,
            "--state-dir",
            state.to_str().unwrap(),
            "--backend",
            "simulated",
            "--metrics-listen",
            "127.0.0.1:0",
        ];
        let agent = Supervised::start("croft-hostagent", &arguments, &directory.path().join("agent.log"), agent_point);
        Self { plane, agent, api, directory }
    }

    fn revive(&mut self) {
        self.plane.revive();
        self.agent.revive();
    }

    fn deaths(&self) -> usize {
        self.plane.deaths + self.agent.deaths
    }

    fn logs(&self) -> String {
        let tail = |name: &str| {
            let text = std::fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(25)..].join("\n")
        };
        format!("--- plane\n{}\n--- agent\n{}", tail("plane.log"), tail("agent.log"))
    }

    /// Asks until it is answered, as a client that retries would; a request_id makes that safe.
    async fn ask<T, F>(&mut self, what: &str, mut call: impl FnMut(Api) -> F) -> T
    where
        F: Future<Output = Result<T, Status>>,
    {
        let began = tokio::time::Instant::now();
        loop {
            self.revive();
            match tokio::time::timeout(Duration::from_secs(5), call(self.api.clone())).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(status)) if !transient(&status) => panic!("{what}: {status:?}\n{}", self.logs()),
                other => assert!(began.elapsed() < DEADLINE, "{what}: {:?}\n{}", other.err(), self.logs()),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn state(&mut self, id: &str) -> Option<State> {
        let name = format!("tenants/acme/instances/{id}");
        self.ask("get", |api| {
            let request = v1::GetInstanceRequest { name: name.clone() };
            async move {
                match api.instances.clone().get_instance(request).await {
                    Ok(instance) => Ok(Some(instance.into_inner().status.unwrap_or_default().state())),
                    Err(status) if status.code() == Code::NotFound => Ok(None),
                    Err(status) => Err(status),
                }
            }
        })
        .await
    }

    async fn done(&mut self, operation: &v1::Operation) {
        let name = operation.name.clone();
        self.ask(&operation.verb, |api| {
            let request = v1::GetOperationRequest { name: name.clone() };
            async move {
                let operation = api.operations.clone().get_operation(request).await?.into_inner();
                if operation.done { Ok(()) } else { Err(Status::unavailable(operation.progress)) }
            }
        })
        .await;
    }

    async fn until(&mut self, id: &str, wanted: Option<State>) {
        let began = tokio::time::Instant::now();
        loop {
            let state = self.state(id).await;
            if state == wanted {
                return;
            }
            let late = began.elapsed() > DEADLINE;
            assert!(!late, "{id} is {state:?}, not {wanted:?}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn transient(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Internal
    )
}

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

/// Through every state: create, stop, start, reboot, reset, delete; a refused one; a silent and a fenced host.
async fn story(point: &'static str) -> (&'static str, usize) {
    let mut cell = Cell::start(point).await;
    cell.ask("tenant", |api| async move {
        let request =
            v1::CreateTenantRequest { tenant_id: "acme".to_owned(), request_id: "t".to_owned(), ..Default::default() };
        api.tenants.clone().create_tenant(request).await
    })
    .await;
    cell.ask("image", |api| async move {
        let request = v1::CreateImageRequest { request_id: "i".to_owned(), ..croft_tests::api::tiny_image_request() };
        api.images.clone().create_image(request).await
    })
    .await;
    cell.ask("host", |api| async move {
        let request = v1::GetHostRequest { name: "hosts/h1".to_owned() };
        let host =
            api.hosts.clone().get_host(request).await.map_err(|e| Status::unavailable(e.to_string()))?.into_inner();
        if host.state() == v1::host::State::Ready {
            Ok(())
        } else {
            Err(Status::unavailable(format!("{:?}", host.state())))
        }
    })
    .await;

    create(&mut cell, "web").await;
    cell.until("web", Some(State::Running)).await;
    let reboot = command!(cell, reboot_instance, RebootInstanceRequest, "web");
    cell.done(&reboot).await;
    let reset = command!(cell, reset_instance, ResetInstanceRequest, "web");
    cell.done(&reset).await;
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
    nothing_left(&mut cell).await;
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
    let faults = cell.directory.path().join("agent").join(croft_tests::fleet::FAULTS);
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

async fn nothing_left(cell: &mut Cell) {
    for resource in ["vcpus", "memory_mib", "disk_gib", "instances"] {
        let used = cell
            .ask("quota", |api| async move {
                let name = format!("tenants/acme/quotas/{resource}");
                api.quotas.clone().get_quota(v1::GetQuotaRequest { name }).await
            })
            .await
            .into_inner()
            .used;
        assert_eq!(used, 0, "{resource}\n{}", cell.logs());
    }
    assert!(instances_on_disk(&cell.directory.path().join("agent")).is_empty(), "{}", cell.logs());
}

fn instances_on_disk(state: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(state.join("instances")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
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
