//! A control plane outside, the agent inside under systemd, and what an operator and a tenant ask of them.

use std::fmt::Debug;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use croft_proto::v1;
use croft_proto::v1::instance_status::State;
use croft_tests::lab_host::{LabHost, machine};
use croft_tests::process::{self, Supervised};
use croft_tests::{Api, Wanted};

use crate::shared::work;

pub const HOST: &str = "lab";
pub const TENANT: &str = "acme";

/// A guest within an emulated machine, beside a build.
pub const BOOT: Duration = Duration::from_secs(300);
/// Its kernel's first word comes after some ten seconds, thirty beside a build.
const SILENCE: Duration = Duration::from_secs(90);

pub struct Site {
    pub api: Api,
    silent_boots: AtomicUsize,
    /// Ends with the site.
    _plane: Supervised,
}

impl Site {
    /// The plane is up, the host is enrolled and READY, and a tenant has quota for plain guests.
    pub async fn start(lab: &LabHost) -> Self {
        let work = work();
        let data = work.join("plane");
        let server = format!("127.0.0.1:{}", process::free_port());
        let arguments = [
            "serve",
            "--data-dir",
            data.to_str().expect("UTF-8"),
            "--listen",
            &server,
            "--metrics-listen",
            "127.0.0.1:0",
            "--public-name",
            machine::OUTSIDE,
        ];
        let plane = Supervised::start("croft-controlplane", &arguments, &work.join("plane.log"), None);
        let (address, _) = process::listening(&data).await;
        let api = process::admin(&data, address);
        let request = v1::CreateEnrolmentTokenRequest { host_id: HOST.to_owned(), ..Default::default() };
        let token = api.hosts.clone().create_enrolment_token(request).await.expect("token").into_inner().token;
        std::fs::copy(data.join("ca.pem"), lab.share().join("ca.pem")).expect("the CA's certificate");
        enrol(lab, address.port(), &token);
        let site = Self { api, silent_boots: AtomicUsize::new(0), _plane: plane };
        site.ready(lab).await;
        site.prepare(lab).await;
        site
    }

    /// Until the host is READY; what its agent logged is told when it is not.
    pub async fn ready(&self, lab: &LabHost) {
        patiently("the host is READY", || async {
            let request = v1::GetHostRequest { name: format!("hosts/{HOST}") };
            match self.api.hosts.clone().get_host(request).await {
                Ok(host) if host.get_ref().state() == v1::host::State::Ready => Ok(()),
                other => Err((other, agent_log(lab))),
            }
        })
        .await;
    }

    async fn prepare(&self, lab: &LabHost) {
        self.api.tenant(TENANT, None).await;
        self.api.quota(TENANT, "vcpus", 8).await;
        let file = |name: &str| {
            let sha256 = sha256(&lab.share().join(name));
            Some(v1::ImageFile { uri: format!("file:///mnt/lab/{name}"), sha256 })
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

    pub async fn instance(&self, id: &str) -> v1::InstanceStatus {
        self.api.get(TENANT, id).await.expect("it is there").status.unwrap_or_default()
    }

    pub async fn is_there(&self, id: &str) -> bool {
        self.api.get(TENANT, id).await.is_ok()
    }

    pub async fn until(&self, id: &str, wanted: State) -> v1::InstanceStatus {
        patiently(&format!("{id} is {wanted:?}"), || async {
            let status = self.instance(id).await;
            if status.state() == wanted { Ok(status) } else { Err(status) }
        })
        .await
    }

    /// What the guest told on its serial line.
    pub async fn console(&self, id: &str) -> String {
        let name = format!("tenants/{TENANT}/instances/{id}");
        let request = v1::ReadConsoleLogRequest { name, tail_bytes: 0 };
        let Ok(stream) = self.api.instances.clone().read_console_log(request).await else { return String::new() };
        let (mut stream, mut text) = (stream.into_inner(), Vec::new());
        while let Ok(Some(chunk)) = stream.message().await {
            text.extend_from_slice(&chunk.data);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Until a line of the guest's has all these words; the line.
    pub async fn guest_says(&self, id: &str, words: &[&str]) -> String {
        self.until_heard(id).await;
        patiently(&format!("{id} says {words:?}"), || async {
            let text = self.console(id).await;
            let line = text.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned);
            line.ok_or(text)
        })
        .await
    }

    /// A guest of an emulated machine does not always come up. One that says nothing at all is switched off and on again, and
    /// counted; what it then says is no matter of luck.
    async fn until_heard(&self, id: &str) {
        for _ in 0..3 {
            let began = Instant::now();
            while began.elapsed() < SILENCE {
                if !self.console(id).await.is_empty() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
            self.silent_boots.fetch_add(1, Relaxed);
            println!("lab: {id} said nothing within {} s; it is switched off and on", SILENCE.as_secs());
            let name = format!("tenants/{TENANT}/instances/{id}");
            let timeout = Some(prost_types::Duration::default());
            let stop = v1::StopInstanceRequest { name: name.clone(), timeout, ..Default::default() };
            let stop = self.api.instances.clone().stop_instance(stop).await.expect("accepted").into_inner();
            self.done(&stop).await.expect("stopped");
            let start = v1::StartInstanceRequest { name, ..Default::default() };
            let start = self.api.instances.clone().start_instance(start).await.expect("accepted").into_inner();
            self.done(&start).await.expect("started");
        }
    }

    pub fn silent_boots(&self) -> usize {
        self.silent_boots.load(Relaxed)
    }

    /// Removes what a row that failed has left, so that the next one has the devices.
    pub async fn clear(&self) {
        let request =
            v1::ListInstancesRequest { parent: format!("tenants/{TENANT}"), page_size: 100, ..Default::default() };
        let left = self.api.instances.clone().list_instances(request).await.expect("instances").into_inner().instances;
        for instance in left {
            let request = v1::DeleteInstanceRequest { name: instance.name, force: true, ..Default::default() };
            let delete = self.api.instances.clone().delete_instance(request).await.expect("accepted").into_inner();
            self.done(&delete).await.expect("deleted");
        }
    }

    /// Creates it and waits until it runs.
    pub async fn run(&self, request: v1::CreateInstanceRequest) {
        let id = request.instance_id.clone();
        let create = self.api.create_as(request).await.unwrap_or_else(|status| panic!("{id}: {status:?}"));
        let done = self.done(&create).await;
        assert!(done.is_ok(), "{id}: {done:?}, {:?}", self.instance(&id).await);
    }

    pub async fn attach(&self, id: &str, device: v1::DeviceRequest) {
        let name = format!("tenants/{TENANT}/instances/{id}");
        let request = v1::AttachDeviceRequest { name, device: Some(device), ..Default::default() };
        let attach = self.api.instances.clone().attach_device(request).await.expect("accepted").into_inner();
        self.done(&attach).await.expect("attached");
    }

    pub async fn detach(&self, id: &str, device_id: &str) {
        let name = format!("tenants/{TENANT}/instances/{id}");
        let request = v1::DetachDeviceRequest { name, device_id: device_id.to_owned(), ..Default::default() };
        let detach = self.api.instances.clone().detach_device(request).await.expect("accepted").into_inner();
        self.done(&detach).await.expect("detached");
    }

    pub async fn device(&self, name: &str) -> v1::Device {
        let request = v1::GetDeviceRequest { name: name.to_owned() };
        self.api.devices.clone().get_device(request).await.expect("a device").into_inner()
    }

    pub async fn device_is(&self, name: &str, wanted: v1::device::State) -> v1::Device {
        patiently(&format!("{name} is {wanted:?}"), || async {
            let device = self.device(name).await;
            if device.state() == wanted { Ok(device) } else { Err(device) }
        })
        .await
    }

    /// How many virtual functions the operator wants of the card; `None`: the layout says nothing of it any more.
    pub async fn functions(&self, count: Option<i32>) {
        let device = machine::NIC.to_owned();
        let of_card = |virtual_functions| v1::DeviceLayout { device, virtual_functions, ..Default::default() };
        let name = format!("hosts/{HOST}/layout");
        let layout = v1::HostLayout { name, devices: count.map(of_card).into_iter().collect(), ..Default::default() };
        let request = v1::SetHostLayoutRequest { layout: Some(layout), ..Default::default() };
        self.api.hosts.clone().set_host_layout(request).await.expect("a layout");
    }

    pub async fn layout_is_so(&self, lab: &LabHost) {
        patiently("the host is laid out so", || async {
            let request = v1::GetHostLayoutRequest { name: format!("hosts/{HOST}/layout") };
            let layout = self.api.hosts.clone().get_host_layout(request).await.expect("a layout").into_inner();
            if layout.settled { Ok(()) } else { Err((layout.problems, agent_log(lab))) }
        })
        .await;
    }

    /// The USB device with this serial number.
    pub async fn usb(&self, serial: &str) -> v1::Device {
        patiently("the host tells of its USB devices", || async {
            let request = v1::ListDevicesRequest { parent: format!("hosts/{HOST}"), ..Default::default() };
            let devices = self.api.devices.clone().list_devices(request).await.expect("devices").into_inner().devices;
            devices.iter().find(|device| device.serial == serial).cloned().ok_or(devices)
        })
        .await
    }

    pub async fn stop(&self, id: &str) {
        let stop = self.api.stop(TENANT, id).await.expect("accepted");
        self.done(&stop).await.expect("stopped");
    }

    pub async fn remove(&self, id: &str) {
        let delete = self.api.delete(TENANT, id).await.expect("accepted");
        self.done(&delete).await.expect("deleted");
    }

    /// Waits for the operation, however slow the host is; its failure is the error.
    pub async fn done(&self, operation: &v1::Operation) -> Result<(), v1::Error> {
        let what = format!("{} of {} is done", operation.verb, operation.target);
        let done = patiently(&what, || async {
            let request = v1::GetOperationRequest { name: operation.name.clone() };
            let now = self.api.operations.clone().get_operation(request).await.map_err(|error| error.to_string())?;
            if now.get_ref().done { Ok(now.into_inner()) } else { Err(format!("{now:?}")) }
        });
        done.await.error.map_or(Ok(()), Err)
    }
}

/// Asks until the answer is `Ok`. Not as often as stories do: what answers runs on the processors that are waited for.
pub async fn patiently<T, E: Debug, F: Future<Output = Result<T, E>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(last) if began.elapsed() > BOOT => panic!("{what}: not within {BOOT:?}; last seen: {last:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(400)).await,
        }
    }
}

/// A guest that tells what devices it sees.
pub fn guest(id: &str) -> v1::CreateInstanceRequest {
    let mut request = Wanted { memory_mib: 192, disk_gib: 1, ..Wanted::default() }.request(TENANT, id);
    let spec = request.instance.as_mut().and_then(|instance| instance.spec.as_mut()).expect("a spec");
    spec.stop_timeout = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    request
}

/// What the agent said last, by the host's journal.
pub fn agent_log(lab: &LabHost) -> String {
    lab.run("journalctl -q -o cat -u croft-hostagent -n 30").stdout
}

fn enrol(lab: &LabHost, port: u16, token: &str) {
    let outside = machine::OUTSIDE;
    lab.sh(&format!(
        "install -m 755 /mnt/lab/croft-hostagent /usr/bin/
         install -m 644 /mnt/lab/croft-hostagent.service /etc/systemd/system/
         systemctl daemon-reload
         cat > /etc/croft/hostagent.env <<'END'
CROFT_SERVER={outside}:{port}
CROFT_CA_FILE=/mnt/lab/ca.pem
CROFT_HOST_ID={HOST}
CROFT_ENROLMENT_TOKEN={token}
CROFT_IMAGE_DIR=/mnt/lab
END
         systemctl enable -q --now croft-hostagent"
    ));
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("sha256sum");
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().to_owned()
}
