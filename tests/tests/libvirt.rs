//! The main job on real libvirt and QEMU, with the real binaries: create, console, adoption, deaths, delete.
//!
//! Runs inside `tests/with-libvirtd.sh`, which sets CROFT_LIBVIRT_TEST; elsewhere it says that it did not run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use croft_proto::v1;
use croft_proto::v1::instance_status::State;
use croft_tests::eventually::within;
use croft_tests::process::{self, Supervised};
use croft_tests::{Api, Wanted};
use tonic::Code;

/// A guest under emulation beside a build.
const BOOT: Duration = Duration::from_secs(240);

struct Lab {
    plane: Supervised,
    agent: Supervised,
    api: Api,
    state: PathBuf,
    server: String,
    data: PathBuf,
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn domains() -> Vec<String> {
    run("virsh", &["-q", "list", "--all", "--name"]).split_whitespace().map(str::to_owned).collect()
}

fn sha256(path: &Path) -> String {
    run("sha256sum", &[path.to_str().unwrap()]).split(' ').next().unwrap().to_owned()
}

fn agent_arguments(server: &str, data: &Path, state: &Path, images: &Path, token: &str) -> Vec<String> {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    [
        "run",
        "--server",
        server,
        "--ca-file",
        &text(&data.join("ca.pem")),
        "--host-id",
        "h1",
        "--token",
        token,
        "--state-dir",
        &text(state),
        "--image-dir",
        &text(images),
        "--metrics-listen",
        "127.0.0.1:0",
    ]
    .map(str::to_owned)
    .to_vec()
}

impl Lab {
    async fn start() -> Self {
        let lab = PathBuf::from(std::env::var("CROFT_LAB_DIR").expect("inside with-libvirtd.sh"));
        let (data, state, images) = (lab.join("plane"), lab.join("agent"), lab.join("images"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tiny-guest.sh");
        run(script.to_str().unwrap(), &[images.to_str().unwrap()]);
        let server = format!("127.0.0.1:{}", process::free_port());
        let arguments = ["serve", "--data-dir", data.to_str().unwrap(), "--listen", &server, "--metrics-listen", "127.0.0.1:0"];
        let plane = Supervised::start("croft-controlplane", &arguments, &lab.join("plane.log"), None);
        let (address, _) = process::listening(&data).await;
        let api = process::admin(&data, address);
        let request = v1::CreateEnrolmentTokenRequest { host_id: "h1".to_owned(), ..Default::default() };
        let token = api.hosts.clone().create_enrolment_token(request).await.expect("token").into_inner().token;
        let arguments = agent_arguments(&server, &data, &state, &images, &token);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let agent = Supervised::start("croft-hostagent", &arguments, &lab.join("agent.log"), None);
        let lab = Self { plane, agent, api, state, server, data };
        lab.prepare(&images).await;
        lab
    }

    async fn prepare(&self, images: &Path) {
        within(BOOT, "the host is ready", || async {
            let state = self.api.host("h1").await.state();
            if state == v1::host::State::Ready { Ok(()) } else { Err(state) }
        })
        .await;
        self.api.tenant("acme", None).await;
        self.api.quota("acme", "vcpus", 4).await;
        let file = |name: &str| {
            let path = images.join(name);
            Some(v1::ImageFile { uri: format!("file://{}", path.display()), sha256: sha256(&path) })
        };
        let kernel = v1::KernelImage {
            kernel: file("vmlinuz"),
            initrd: file("initrd"),
            root: None,
            cmdline: "console=ttyS0 quiet".to_owned(),
        };
        let image = v1::Image { boot: Some(v1::image::Boot::Kernel(kernel)), ..Default::default() };
        let request = v1::CreateImageRequest { image_id: "tiny".to_owned(), image: Some(image), ..Default::default() };
        self.api.images.clone().create_image(request).await.expect("image");
    }

    async fn until(&self, id: &str, wanted: State) {
        within(BOOT, &format!("{id} is {wanted:?}"), || async {
            let status = self.api.get("acme", id).await.map_err(|e| e.to_string())?.status.unwrap_or_default();
            if status.state() == wanted { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
    }

    async fn console(&self, id: &str) -> String {
        let name = format!("tenants/acme/instances/{id}");
        let request = v1::ReadConsoleLogRequest { name, tail_bytes: 0 };
        let Ok(stream) = self.api.instances.clone().read_console_log(request).await else { return String::new() };
        let (mut stream, mut text) = (stream.into_inner(), Vec::new());
        while let Ok(Some(chunk)) = stream.message().await {
            text.extend_from_slice(&chunk.data);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    async fn console_says(&self, id: &str, words: &str) {
        within(BOOT, &format!("the console of {id} says `{words}`"), || async {
            let text = self.console(id).await;
            if text.contains(words) { Ok(()) } else { Err(text) }
        })
        .await;
    }
}

fn guest(id: &str, user_data: &str) -> v1::CreateInstanceRequest {
    let mut request = Wanted { memory_mib: 192, disk_gib: 1, ..Wanted::default() }.request("acme", id);
    let spec = request.instance.as_mut().unwrap().spec.as_mut().unwrap();
    spec.cloud_init = Some(v1::CloudInit { user_data: user_data.to_owned(), ..Default::default() });
    spec.stop_timeout = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_vm_under_real_libvirt_through_every_death() {
    if std::env::var_os("CROFT_LIBVIRT_TEST").is_none() {
        println!("not run: needs tests/with-libvirtd.sh (the libvirt lane of `cargo xtask test`)");
        return;
    }
    let mut lab = Lab::start().await;
    let create = lab.api.create_as(guest("web", "#!/bin/sh\necho seed-was-read\n")).await.expect("accepted");
    lab.until("web", State::Running).await;
    lab.api.done(&create).await.expect("created");
    lab.console_says("web", "seed-was-read").await;
    let uid = lab.api.get("acme", "web").await.unwrap().metadata.unwrap().uid;
    assert_eq!(domains(), [format!("croft-{uid}")]);
    within(BOOT, "the plane knows the guest's address", || async {
        let status = lab.api.get("acme", "web").await.unwrap().status.unwrap();
        if status.addresses.iter().any(|address| !address.ip.is_empty()) { Ok(()) } else { Err(status) }
    })
    .await;
    let first_boot = run("virsh", &["-q", "domid", &format!("croft-{uid}")]);

    // The agent dies: the VM runs on, and is adopted.
    lab.agent.kill_and_revive();
    label(&lab, "web").await;
    // libvirtd dies, with the agent looking on.
    let pidfile = std::env::var("CROFT_LIBVIRTD_PIDFILE").expect("set by with-libvirtd.sh");
    run("kill", &["-9", std::fs::read_to_string(&pidfile).expect("libvirtd's pid").trim()]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(lab.api.used("acme", "vcpus").await, 1, "not seen is not free");
    run(Path::new(env!("CARGO_MANIFEST_DIR")).join("start-libvirtd.sh").to_str().unwrap(), &[]);
    // The plane dies.
    lab.plane.kill_and_revive();
    within(BOOT, "the plane is back", || async { lab.api.get("acme", "web").await.map(|_| ()) }).await;
    lab.until("web", State::Running).await;
    assert_eq!(run("virsh", &["-q", "domid", &format!("croft-{uid}")]), first_boot, "the same boot all along");

    // Stop is graceful: the guest says so itself.
    lab.api.done(&lab.api.stop("acme", "web").await.unwrap()).await.expect("stopped");
    let log = lab.console("web").await;
    assert!(log.contains("power button") || log.contains("asked to shut down"), "readable after the stop: {log}");
    let exit = lab.api.get("acme", "web").await.unwrap().status.unwrap().exit.expect("an exit");
    assert_eq!(exit.kind(), v1::exit::Kind::Stopped, "{exit:?}");
    lab.api.done(&lab.api.start("acme", "web").await.unwrap()).await.expect("started");

    // Over quota: refused, and nothing of it exists.
    let mut big = guest("big", "");
    big.instance.as_mut().unwrap().spec.as_mut().unwrap().vcpus = 4;
    assert_eq!(lab.api.create_as(big).await.unwrap_err().code(), Code::ResourceExhausted);

    lab.api.done(&lab.api.delete("acme", "web").await.unwrap()).await.expect("deleted");
    assert_eq!(domains(), Vec::<String>::new());
    let left: Vec<_> = std::fs::read_dir(lab.state.join("instances")).unwrap().flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let networks = run("virsh", &["-q", "net-list", "--all", "--name"]);
    assert!(!networks.contains("croft-"), "{networks}");
    assert_eq!(lab.api.used("acme", "vcpus").await, 0);

    deaths_at_points(&mut lab).await;
}

/// A change of intent that the agent must hear of and journal, and that restarts nothing.
async fn label(lab: &Lab, id: &str) {
    let mut instance = lab.api.get("acme", id).await.unwrap();
    let metadata = instance.metadata.as_mut().unwrap();
    metadata.labels.insert("touched".to_owned(), "yes".to_owned());
    metadata.etag.clear();
    let update_mask = Some(prost_types::FieldMask { paths: vec!["metadata.labels".to_owned()] });
    let request = v1::UpdateInstanceRequest { instance: Some(instance), update_mask, ..Default::default() };
    let generation = lab.api.instances.clone().update_instance(request).await.expect("update").into_inner();
    let generation = generation.metadata.unwrap().generation;
    within(BOOT, "the agent answers to the new generation", || async {
        let status = lab.api.get("acme", id).await.unwrap().status.unwrap();
        if status.observed_generation >= generation { Ok(()) } else { Err(status.observed_generation) }
    })
    .await;
}

/// A handful of the points that the simulated backend is killed at, here with QEMU underneath.
async fn deaths_at_points(lab: &mut Lab) {
    for point in ["agent.ensure_defined.after", "agent.start.before", "agent.start.after", "agent.remove.before"] {
        let images = lab.state.with_file_name("images");
        let arguments = agent_arguments(&lab.server, &lab.data, &lab.state, &images, "spent");
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        lab.agent.kill();
        let log = lab.state.with_file_name("agent.log");
        lab.agent = Supervised::start("croft-hostagent", &arguments, &log, Some(point));
        let create = lab.api.create_as(guest("frail", "")).await.expect("accepted");
        done(lab, &create).await;
        let delete = lab.api.delete("acme", "frail").await.expect("accepted");
        done(lab, &delete).await;
        assert_eq!(lab.agent.deaths, 1, "{point} was not reached");
        assert_eq!(domains(), Vec::<String>::new(), "{point}");
        assert_eq!(lab.api.used("acme", "vcpus").await, 0, "{point}");
    }
}

async fn done(lab: &mut Lab, operation: &v1::Operation) {
    let began = tokio::time::Instant::now();
    loop {
        lab.agent.revive();
        let request = v1::GetOperationRequest { name: operation.name.clone() };
        let now = lab.api.operations.clone().get_operation(request).await.expect("operation").into_inner();
        if now.done {
            assert_eq!(now.error, None);
            return;
        }
        assert!(began.elapsed() < BOOT, "{now:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
