//! A control plane and an agent as processes, on the real libvirtd of `tests/with-libvirtd.sh`, with a guest that boots in
//! seconds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use croft_proto::v1;
use croft_proto::v1::instance_status::State;

use crate::eventually::within;
use crate::process::{self, Supervised};
use crate::{Api, Wanted};

/// A guest under emulation beside a build.
pub const BOOT: Duration = Duration::from_secs(240);

#[derive(Debug)]
pub struct Lab {
    pub plane: Supervised,
    pub agent: Supervised,
    pub api: Api,
    pub state: PathBuf,
    pub server: String,
    pub data: PathBuf,
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn domains() -> Vec<String> {
    run("virsh", &["-q", "list", "--all", "--name"]).split_whitespace().map(str::to_owned).collect()
}

fn sha256(path: &Path) -> String {
    run("sha256sum", &[path.to_str().unwrap()]).split(' ').next().unwrap().to_owned()
}

pub fn agent_arguments(server: &str, data: &Path, state: &Path, images: &Path, token: &str) -> Vec<String> {
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
    pub async fn start() -> Self {
        let lab = PathBuf::from(std::env::var("CROFT_LAB_DIR").expect("inside with-libvirtd.sh"));
        let (data, state, images) = (lab.join("plane"), lab.join("agent"), lab.join("images"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tiny-guest.sh");
        run(script.to_str().unwrap(), &[images.to_str().unwrap()]);
        let server = format!("127.0.0.1:{}", process::free_port());
        let arguments =
            ["serve", "--data-dir", data.to_str().unwrap(), "--listen", &server, "--metrics-listen", "127.0.0.1:0"];
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

    /// Creates a small guest and waits until the hypervisor runs it.
    pub async fn create_and_run(&self, id: &str) {
        let create = self.api.create_as(guest(id, "")).await.expect("accepted");
        self.api.done(&create).await.expect("created");
    }

    /// Pulls the plug.
    pub async fn stop_now(&self, id: &str) {
        let name = format!("tenants/acme/instances/{id}");
        let timeout = Some(prost_types::Duration::default());
        let request = v1::StopInstanceRequest { name, timeout, ..Default::default() };
        let stop = self.api.instances.clone().stop_instance(request).await.expect("accepted").into_inner();
        self.api.done(&stop).await.expect("stopped");
    }

    pub async fn remove(&self, id: &str) {
        let delete = self.api.delete("acme", id).await.expect("accepted");
        self.api.done(&delete).await.expect("deleted");
    }

    async fn prepare(&self, images: &Path) {
        within(BOOT, "the host is ready", || async {
            let request = v1::GetHostRequest { name: "hosts/h1".to_owned() };
            let host = self.api.hosts.clone().get_host(request).await.map_err(|e| e.to_string())?.into_inner();
            if host.state() == v1::host::State::Ready { Ok(()) } else { Err(format!("{:?}", host.state())) }
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

    pub async fn until(&self, id: &str, wanted: State) {
        within(BOOT, &format!("{id} is {wanted:?}"), || async {
            let status = self.api.get("acme", id).await.map_err(|e| e.to_string())?.status.unwrap_or_default();
            if status.state() == wanted { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
    }

    pub async fn console(&self, id: &str) -> String {
        let name = format!("tenants/acme/instances/{id}");
        let request = v1::ReadConsoleLogRequest { name, tail_bytes: 0 };
        let Ok(stream) = self.api.instances.clone().read_console_log(request).await else { return String::new() };
        let (mut stream, mut text) = (stream.into_inner(), Vec::new());
        while let Ok(Some(chunk)) = stream.message().await {
            text.extend_from_slice(&chunk.data);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    pub async fn console_says(&self, id: &str, words: &str) {
        within(BOOT, &format!("the console of {id} says `{words}`"), || async {
            let text = self.console(id).await;
            if text.contains(words) { Ok(()) } else { Err(text) }
        })
        .await;
    }
}

pub fn guest(id: &str, user_data: &str) -> v1::CreateInstanceRequest {
    let mut request = Wanted { memory_mib: 192, disk_gib: 1, ..Wanted::default() }.request("acme", id);
    let spec = request.instance.as_mut().unwrap().spec.as_mut().unwrap();
    spec.cloud_init = Some(v1::CloudInit { user_data: user_data.to_owned(), ..Default::default() });
    spec.stop_timeout = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    request
}
