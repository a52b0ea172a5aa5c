//! The smallest fleet of real processes: a plane and one host, either of which may die at a named point, and a client that
//! asks until it is answered.

use std::path::{Path, PathBuf};
use std::time::Duration;

use croft_proto::v1;
use croft_proto::v1::instance_status::State;
use tonic::{Code, Status};

use crate::Api;
use crate::process::{self, Supervised};

const DEADLINE: Duration = Duration::from_secs(150);

#[derive(Debug)]
pub struct Cell {
    pub plane: Supervised,
    pub agent: Supervised,
    pub api: Api,
    directory: tempfile::TempDir,
}

impl Cell {
    /// A plane and one simulated host; `crash_at` goes to whichever of them has such a point.
    pub async fn start(crash_at: &str) -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"), crash_at, &["--backend", "simulated"]).await
    }

    /// The same, on a machine of that preset.
    pub async fn with_devices(preset: &str, crash_at: &str) -> Self {
        // A machine is thousands of small files.
        let directory = tempfile::tempdir_in(croft_gpu_sim::kernel::scratch()).expect("a directory");
        Self::start_in(directory, crash_at, &["--simulate", preset]).await
    }

    async fn start_in(directory: tempfile::TempDir, crash_at: &str, machine: &[&str]) -> Self {
        let (data, state) = (directory.path().join("plane"), directory.path().join("agent"));
        let address = format!("127.0.0.1:{}", process::free_port());
        let plane_point = crash_at.starts_with("plane.").then_some(crash_at);
        let agent_point = crash_at.starts_with("agent.").then_some(crash_at);
        let arguments = ["serve", "--data-dir", text(&data), "--listen", &address, "--metrics-listen", "127.0.0.1:0"];
        let plane =
            Supervised::start("croft-controlplane", &arguments, &directory.path().join("plane.log"), plane_point);
        let (api_address, _) = process::listening(&data).await;
        let api = process::admin(&data, api_address);
        let token = crate::eventually("an enrolment token", || async {
            let request = v1::CreateEnrolmentTokenRequest { host_id: "h1".to_owned(), ..Default::default() };
            api.hosts.clone().create_enrolment_token(request).await.map(|answer| answer.into_inner().token)
        })
        .await;
        let ca_file = data.join("ca.pem");
        let mut arguments = vec![
            "run",
            "--server",
            &address,
            "--ca-file",
            text(&ca_file),
            "--host-id",
            "h1",
            "--token",
            &token,
            "--state-dir",
            text(&state),
            "--metrics-listen",
            "127.0.0.1:0",
        ];
        arguments.extend(machine);
        let agent = Supervised::start("croft-hostagent", &arguments, &directory.path().join("agent.log"), agent_point);
        Self { plane, agent, api, directory }
    }

    pub fn revive(&mut self) {
        self.plane.revive();
        self.agent.revive();
    }

    pub fn deaths(&self) -> usize {
        self.plane.deaths + self.agent.deaths
    }

    pub fn logs(&self) -> String {
        let tail = |name: &str| {
            let text = std::fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(25)..].join("\n")
        };
        format!("--- plane\n{}\n--- agent\n{}", tail("plane.log"), tail("agent.log"))
    }

    /// Asks until it is answered, as a client that retries would; a request_id makes that safe.
    pub async fn ask<T, F>(&mut self, what: &str, mut call: impl FnMut(Api) -> F) -> T
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

    pub async fn state(&mut self, id: &str) -> Option<State> {
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

    pub async fn done(&mut self, operation: &v1::Operation) {
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

    pub async fn until(&mut self, id: &str, wanted: Option<State>) {
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

    /// Where the agent keeps what it has.
    pub fn state_dir(&self) -> PathBuf {
        self.directory.path().join("agent")
    }

    /// The tenant `acme`, the image `images/tiny`, and a host that is ready.
    pub async fn furnish(&mut self) {
        self.ask("tenant", |api| async move {
            let request = v1::CreateTenantRequest {
                tenant_id: "acme".to_owned(),
                request_id: "t".to_owned(),
                ..Default::default()
            };
            api.tenants.clone().create_tenant(request).await
        })
        .await;
        self.ask("image", |api| async move {
            let request = v1::CreateImageRequest { request_id: "i".to_owned(), ..crate::api::tiny_image_request() };
            api.images.clone().create_image(request).await
        })
        .await;
        self.ask("host", |api| async move {
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
    }

    pub async fn used(&mut self, resource: &str) -> i64 {
        let name = format!("tenants/acme/quotas/{resource}");
        self.ask("quota", |api| {
            let request = v1::GetQuotaRequest { name: name.clone() };
            async move { api.quotas.clone().get_quota(request).await }
        })
        .await
        .into_inner()
        .used
    }

    /// Nobody is charged for anything, and the host has no directory of an instance.
    pub async fn nothing_left(&mut self) {
        for resource in ["vcpus", "memory_mib", "disk_gib", "instances"] {
            let used = self.used(resource).await;
            assert_eq!(used, 0, "{resource}\n{}", self.logs());
        }
        assert!(instances_on_disk(&self.state_dir()).is_empty(), "{}", self.logs());
    }
}

fn transient(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Internal
    )
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn instances_on_disk(state: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(state.join("instances")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
