//! One machine with everything on it: the plane, a host, and beside them, in a network namespace that stands for another
//! machine, the cluster. Guests reach no address of their own host, so it cannot be there.

use std::env;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use croft_test_cluster::{ControlPlane, Credentials, Kubectl, Options, within};
use serde_json::Value;

use crate::processes::{Daemon, binary, output, run};
use crate::steps::Steps;

/// A guest under emulation, beside a build. Only a failure waits this long.
pub const PATIENCE: Duration = Duration::from_secs(600);
pub const TENANT: &str = "acme";
pub const INSTANCE: &str = "train-1";

const CLUSTER_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2));
/// Nobody else listens in the namespace of tests/with-libvirtd.sh.
const PLANE: &str = "127.0.0.1:7443";

pub struct Site {
    pub cluster: ControlPlane,
    pub admin: Kubectl,
    pub lab: PathBuf,
    // In this order they are ended.
    _agent: Daemon,
    _plane: Daemon,
}

impl Site {
    /// All of it runs, the host is READY, and the tenant may make nodes of the cluster.
    pub async fn start(programs: &Path, image: &Path, steps: &mut Steps) -> Self {
        let lab = PathBuf::from(env::var_os("CROFT_LAB_DIR").expect("inside tests/with-libvirtd.sh"));
        connect_namespaces();
        let options = Options { network_namespace: Some("k8s".to_owned()), ..Options::at(CLUSTER_ADDRESS) };
        let cluster = ControlPlane::start(programs, &options).await;
        let admin = cluster.admin();
        steps.done("the cluster's control plane is ready");

        let (plane, data) = start_plane(&lab).await;
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let (ca, token) = (text(&data.join("ca.pem")), text(&data.join("admin.token")));
        croft_in(
            &lab,
            &["context", "set", "t", "--server", "https://localhost:7443", "--ca-file", &ca, "--token-file", &token],
        );
        let enrolment = croft_in(&lab, &["host", "enrol-token", "h1"]);
        let agent = start_agent(&lab, &ca, image, enrolment.trim());
        let site = Self { cluster, admin, lab, _agent: agent, _plane: plane };
        within(PATIENCE, "the host is READY", || async {
            let host = site.json(&["host", "get", "h1"])?;
            if host["state"] == "READY" { Ok(()) } else { Err(host["state"].to_string()) }
        })
        .await;
        site.croft(&["host", "update", "h1", "--reserve-disk", "1GiB"]);
        steps.done("the plane and its host are ready");

        site.register().await;
        site.prepare(image);
        steps.done("the cluster is registered, the image known");
        site
    }

    /// As its administrator would: what the CLI prints, a credential of the account in it, and no other right.
    async fn register(&self) {
        self.admin.create(&self.croft(&["cluster", "manifest"])).await.expect("the manifest");
        let token = self.cluster.service_account_token("croft-system", "croft").await.expect("a token");
        let kubeconfig = self.lab.join("croft.kubeconfig");
        fs::write(&kubeconfig, self.cluster.kubeconfig(Credentials::Token(&token))).expect("a kubeconfig");
        for tenant in [TENANT, "globex"] {
            self.croft(&["tenant", "create", tenant]);
        }
        let file = kubeconfig.to_str().expect("UTF-8");
        self.croft(&[
            "cluster",
            "register",
            "prod",
            "--platform",
            "--kubeconfig",
            file,
            "--shared-with",
            "acme,globex",
        ]);
        fs::remove_file(&kubeconfig).expect("the plane has it now");
    }

    fn prepare(&self, image: &Path) {
        let file = |name: &str| {
            let path = image.join(name);
            let path = path.to_str().expect("UTF-8");
            let sum = run("sha256sum", &[path]).split(' ').next().unwrap_or_default().to_owned();
            (format!("file://{path}"), sum)
        };
        let ((disk, disk_sum), (kernel, kernel_sum), (initrd, initrd_sum)) =
            (file("root.qcow2"), file("vmlinuz"), file("initrd.img"));
        let mut words = vec!["image", "create", "node", "--platform", "--format", "qcow2", "--min-disk-gib", "3"];
        words.extend(["--uri", &disk, "--sha256", &disk_sum, "--kernel-uri", &kernel, "--kernel-sha256", &kernel_sum]);
        words.extend(["--initrd-uri", &initrd, "--initrd-sha256", &initrd_sum]);
        words.extend(["--cmdline", "console=ttyS0 root=LABEL=root rw net.ifnames=0"]);
        self.croft(&words);
    }

    /// What the CLI printed; a refusal fails the test.
    pub fn croft(&self, arguments: &[&str]) -> String {
        croft_in(&self.lab, arguments)
    }

    pub fn json(&self, arguments: &[&str]) -> Result<Value, String> {
        let text = output(cli(&self.lab).args(["-o", "json"]).args(arguments))?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    pub fn instance(&self) -> Result<Value, String> {
        self.json(&["instance", "get", INSTANCE, "--tenant", TENANT])
    }

    /// Of its host, what the seed says now.
    pub fn seed(&self, uid: &str) -> Vec<u8> {
        fs::read(self.lab.join("agent/instances").join(uid).join("seed.img")).unwrap_or_default()
    }

    pub fn console(&self) -> String {
        output(cli(&self.lab).args(["instance", "console", INSTANCE, "--log", "--tenant", TENANT])).unwrap_or_default()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let console = self.console();
            let lines: Vec<&str> = console.lines().collect();
            println!("--- the last of the guest's console\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
            println!(
                "--- the instance\n{}",
                self.instance().map_or_else(|error| error, |seen| seen["status"].to_string())
            );
            println!("--- the cluster's logs\n{}", self.cluster.logs());
        }
    }
}

/// The cluster's machine, one hop away.
fn connect_namespaces() {
    for words in [
        "netns add k8s",
        "link add k0 type veth peer name k1 netns k8s",
        "addr add 10.99.0.1/24 dev k0",
        "link set k0 up",
        "-n k8s addr add 10.99.0.2/24 dev k1",
        "-n k8s link set k1 up",
        "-n k8s link set lo up",
        "-n k8s route add default via 10.99.0.1",
    ] {
        run("ip", &words.split(' ').collect::<Vec<_>>());
    }
}

async fn start_plane(lab: &Path) -> (Daemon, PathBuf) {
    let data = lab.join("plane");
    let folder = data.to_str().expect("UTF-8");
    let arguments = ["serve", "--data-dir", folder, "--listen", PLANE, "--metrics-listen", "127.0.0.1:0"];
    let plane = Daemon::start("croft-controlplane", &lab.join("plane.log"), &arguments);
    within(PATIENCE, "the plane listens", || async {
        fs::metadata(data.join("listen.json")).map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    (plane, data)
}

fn start_agent(lab: &Path, ca: &str, image: &Path, enrolment: &str) -> Daemon {
    let state = lab.join("agent");
    let text = |path: &'_ Path| path.to_str().expect("UTF-8").to_owned();
    let (state, image) = (text(&state), text(image));
    let mut arguments = vec!["run", "--server", PLANE, "--ca-file", ca, "--host-id", "h1", "--token", enrolment];
    arguments.extend(["--state-dir", &state, "--image-dir", &image, "--metrics-listen", "127.0.0.1:0"]);
    // Else a private network, which tenants' guests do not reach.
    arguments.extend(["--tenant-allow-prefix", "10.99.0.2/32"]);
    // What a guest of minutes writes is little; a developer's disk may be nearly full.
    arguments.extend(["--disk-reserve-gib", "1"]);
    Daemon::start("croft-hostagent", &lab.join("agent.log"), &arguments)
}

fn cli(lab: &Path) -> Command {
    let mut command = Command::new(binary("croft"));
    command.env("HOME", lab).env("XDG_CONFIG_HOME", lab.join("config"));
    command
}

fn croft_in(lab: &Path, arguments: &[&str]) -> String {
    output(cli(lab).args(arguments)).unwrap_or_else(|error| panic!("{error}"))
}
