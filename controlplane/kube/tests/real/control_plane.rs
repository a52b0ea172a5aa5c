//! A control plane of its own on free loopback ports, in a temporary folder; it ends with the test.

use std::fmt::Debug;
use std::fs::{self, File};
use std::future::Future;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use croft_core::join::cluster::Access;
use croft_core::join::ports::{Cluster, Clusters as _};
use croft_kube::KubeClusters;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tempfile::TempDir;

use crate::pki::{Authority, Issued};

/// Two cores, emulation beside it: generous, because only a failure waits this long.
pub const DEADLINE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(100);

pub struct ControlPlane {
    pub authority: Authority,
    pub server: String,
    processes: Vec<(&'static str, Child)>,
    dir: TempDir,
}

/// Asks until the answer is `Ok`, and panics with the last `Err` when the deadline is over.
pub async fn eventually<T, E: Debug, F: Future<Output = Result<T, E>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(last) if began.elapsed() > DEADLINE => panic!("{what}: not within {DEADLINE:?}; last seen: {last:?}"),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

impl ControlPlane {
    /// Approved requests become certificates for `hours`.
    pub async fn start(programs: &Path, hours: u32) -> Self {
        let dir = tempfile::tempdir().expect("a folder for the control plane");
        let [etcd, peer, secure] = free_ports();
        let authority = Authority::new("kubernetes-ca");
        let mut plane = Self { authority, server: format!("https://127.0.0.1:{secure}"), processes: Vec::new(), dir };
        plane.write_files();
        plane.start_etcd(programs, etcd, peer);
        plane.start_api_server(programs, etcd, secure);
        let admin = plane.admin().await;
        plane.ready(&admin).await;
        // They give up when there is no API server within seconds.
        plane.start_controllers(programs, hours);
        plane
    }

    /// A cluster administrator, without Croft between.
    pub async fn admin(&self) -> Client {
        self.client(&self.user(&["system:masters"], "admin")).await
    }

    pub fn user(&self, groups: &[&str], name: &str) -> Credential {
        Credential::Certificate(self.authority.user(groups, name))
    }

    pub fn kubeconfig(&self, credential: &Credential) -> String {
        kubeconfig(&self.server, &self.authority.pem, credential)
    }

    pub async fn client(&self, credential: &Credential) -> Client {
        let file = Kubeconfig::from_yaml(&self.kubeconfig(credential)).unwrap();
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }

    /// Through Croft's own eyes.
    pub fn cluster(&self, credential: &Credential) -> Arc<dyn Cluster> {
        KubeClusters::default().open(&Access::Kubeconfig(self.kubeconfig(credential))).expect("a good kubeconfig")
    }

    fn write_files(&self) {
        let put = |name: &str, text: &str| fs::write(self.dir.path().join(name), text).expect("a file");
        let pair = |name: &str, issued: &Issued| {
            put(&format!("{name}.crt"), &issued.certificate);
            put(&format!("{name}.key"), &issued.key);
        };
        put("ca.crt", &self.authority.pem);
        put("ca.key", &self.authority.key_pem);
        let local = "127.0.0.1".parse().unwrap();
        pair("apiserver", &self.authority.server(&["kubernetes", "kubernetes.default.svc"], &[local]));
        let accounts = rcgen::KeyPair::generate().unwrap();
        put("sa.key", &accounts.serialize_pem());
        put("sa.pub", &accounts.public_key_pem());
        for user in ["system:kube-controller-manager", "system:kube-scheduler"] {
            let name = user.trim_start_matches("system:");
            put(&format!("{name}.kubeconfig"), &self.kubeconfig(&self.user(&[], user)));
        }
    }

    fn start_etcd(&mut self, programs: &Path, client: u16, peer: u16) {
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let arguments = [
            "--data-dir=etcd".to_owned(),
            "--unsafe-no-fsync".to_owned(),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
        ];
        self.spawn(programs, "etcd", &arguments);
    }

    fn start_api_server(&mut self, programs: &Path, etcd: u16, secure: u16) {
        let fixed = [
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            "--tls-cert-file=apiserver.crt",
            "--tls-private-key-file=apiserver.key",
            "--client-ca-file=ca.crt",
            "--service-account-key-file=sa.pub",
            "--service-account-signing-key-file=sa.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=Node,RBAC",
            "--enable-bootstrap-token-auth",
            "--enable-admission-plugins=NodeRestriction",
            // Else no pod before its namespace has an account; the tests are about other things.
            "--disable-admission-plugins=ServiceAccount",
            "--service-cluster-ip-range=10.96.0.0/24",
            "--watch-cache=true",
        ];
        let mut arguments: Vec<_> = fixed.map(str::to_owned).into();
        arguments.push(format!("--etcd-servers=http://127.0.0.1:{etcd}"));
        arguments.push(format!("--secure-port={secure}"));
        self.spawn(programs, "kube-apiserver", &arguments);
    }

    /// No life cycle of nodes: the tests' kubelets send no heartbeats. And nothing that approves requests by itself.
    fn start_controllers(&mut self, programs: &Path, hours: u32) {
        let manager = [
            "--kubeconfig=kube-controller-manager.kubeconfig".to_owned(),
            "--secure-port=0".to_owned(),
            "--use-service-account-credentials".to_owned(),
            "--controllers=certificatesigningrequest-signing-controller,clusterrole-aggregation-controller,\
             disruption-controller,namespace-controller,token-cleaner-controller,\
             validatingadmissionpolicy-status-controller"
                .to_owned(),
            "--leader-elect=false".to_owned(),
            "--cluster-signing-cert-file=ca.crt".to_owned(),
            "--cluster-signing-key-file=ca.key".to_owned(),
            format!("--cluster-signing-duration={hours}h"),
            "--service-account-private-key-file=sa.key".to_owned(),
        ];
        self.spawn(programs, "kube-controller-manager", &manager);
        let scheduler = ["--kubeconfig=kube-scheduler.kubeconfig", "--secure-port=0", "--leader-elect=false"];
        self.spawn(programs, "kube-scheduler", &scheduler.map(str::to_owned));
    }

    fn spawn(&mut self, programs: &Path, name: &'static str, arguments: &[String]) {
        let log = File::create(self.log(name)).expect("a log file");
        let child = Command::new(programs.join(name))
            .args(arguments)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("{} in CROFT_KUBERNETES_BIN: {error}", name));
        self.processes.push((name, child));
    }

    fn log(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    /// Its own roles are written too.
    async fn ready(&mut self, admin: &Client) {
        let began = Instant::now();
        loop {
            for (name, child) in &mut self.processes {
                if let Ok(Some(status)) = child.try_wait() {
                    let log = fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default();
                    let tail: Vec<_> = log.lines().rev().take(15).collect();
                    panic!("{name} ended with {status}: {tail:#?}");
                }
            }
            let asked = http::Request::get("/readyz").body(Vec::new()).unwrap();
            match admin.request_text(asked).await {
                Ok(text) if text == "ok" => return,
                last if began.elapsed() > DEADLINE => panic!("the API server is not ready: {last:?}"),
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // The API server takes half a minute to end by itself; there is nothing to save.
        for (_, child) in self.processes.iter_mut().rev() {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

pub enum Credential {
    Certificate(Issued),
    Token(String),
}

pub fn kubeconfig(server: &str, ca: &str, credential: &Credential) -> String {
    let user = match credential {
        Credential::Certificate(Issued { certificate, key }) => format!(
            "{{client-certificate-data: {}, client-key-data: {}}}",
            STANDARD.encode(certificate),
            STANDARD.encode(key)
        ),
        Credential::Token(token) => format!("{{token: '{token}'}}"),
    };
    let ca = STANDARD.encode(ca);
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: '{server}', certificate-authority-data: {ca}}}}}]\n\
         users: [{{name: u, user: {user}}}]\n"
    )
}

/// Free a moment ago; all held at once, so that they differ.
fn free_ports<const N: usize>() -> [u16; N] {
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|listener| listener.local_addr().expect("its address").port())
}
