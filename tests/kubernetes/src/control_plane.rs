//! The control plane: its certificates, its flags, and how it is known to be ready.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::flags::Files;
use crate::server::Server;
use crate::{Authority, Credentials, Kubectl, kubeconfig, until};

/// Where it listens, and in what it differs from its defaults.
#[derive(Debug, Clone)]
pub struct Options {
    /// An address of this machine: loopback, or a bridge's where guests join.
    pub address: IpAddr,
    /// Its processes run in this namespace of `ip netns`, where the address is: as another machine's. None: in ours.
    pub network_namespace: Option<String>,
    /// Under which other names and addresses it is reached, for its certificate.
    pub also_reached_as: Vec<String>,
    /// How long what it signs for kubelets is good; a Go duration.
    pub certificates_live: String,
    /// More flags.
    pub api_server: Vec<String>,
    pub controller_manager: Vec<String>,
}

impl Options {
    pub fn at(address: IpAddr) -> Self {
        Self {
            address,
            network_namespace: None,
            also_reached_as: Vec::new(),
            certificates_live: "24h".to_owned(),
            api_server: Vec::new(),
            controller_manager: Vec::new(),
        }
    }
}

/// A running control plane. Dropped, its processes are ended and its files removed.
#[derive(Debug)]
pub struct ControlPlane {
    /// Who signs for clients, servers and kubelets.
    pub authority: Authority,
    address: SocketAddr,
    programs: PathBuf,
    // In this order they are ended: nobody complains that somebody else has gone.
    scheduler: Server,
    controller_manager: Server,
    api_server: Server,
    etcd: Server,
    directory: TempDir,
}

impl ControlPlane {
    /// Starts it from the programs in this directory and waits until it is ready: the API, and the controllers behind it.
    pub async fn start(programs: &Path, options: &Options) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let files = Files { dir: directory.path().to_owned() };
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let [etcd_client, etcd_peer] = free_ports(loopback);
        // In a namespace of its own everything is free, and its address is not ours to try.
        let [port] = free_ports(if options.network_namespace.is_some() { loopback } else { options.address });
        let address = SocketAddr::new(options.address, port);
        let authority = files.write_certificates(address, &options.also_reached_as);

        let etcd_url = format!("http://127.0.0.1:{etcd_client}");
        let before = match &options.network_namespace {
            Some(namespace) => vec!["ip", "netns", "exec", namespace],
            None => vec![],
        };
        let start = |name, arguments| Server::start(name, &before, programs, &files.dir, arguments);
        let mut etcd = start("etcd", files.etcd(&etcd_url, &format!("http://127.0.0.1:{etcd_peer}")));
        let mut api_server =
            start("kube-apiserver", [files.api_server(address, &etcd_url), options.api_server.clone()].concat());
        let kubectl = kubectl(programs, &files.dir, "admin");
        until("the API server is ready", || {
            let alive = etcd.alive().and_then(|()| api_server.alive());
            let kubectl = kubectl.clone();
            async move {
                // A server that has ended will not become ready.
                alive.unwrap_or_else(|error| panic!("{error}"));
                tokio::net::TcpStream::connect(address).await.map_err(|error| error.to_string())?;
                kubectl.run(&["get", "--raw", "/readyz"]).await.map(|_| ())
            }
        })
        .await;

        // Not sooner: they give up on a server that is not ready within seconds.
        let mut arguments = files.controller_manager(&options.certificates_live);
        arguments.extend(options.controller_manager.clone());
        let controller_manager = start("kube-controller-manager", arguments);
        let scheduler = start("kube-scheduler", files.scheduler());
        let mut plane = Self {
            authority,
            address,
            programs: programs.to_owned(),
            scheduler,
            controller_manager,
            api_server,
            etcd,
            directory,
        };
        // Pods need it, and a controller makes it.
        until("the controllers work", || {
            let alive = plane.alive();
            let kubectl = kubectl.clone();
            async move {
                alive.unwrap_or_else(|error| panic!("{error}"));
                kubectl.run(&["get", "serviceaccount", "default"]).await
            }
        })
        .await;
        plane
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// A kubeconfig in which everything is embedded.
    pub fn kubeconfig(&self, credentials: Credentials<'_>) -> String {
        kubeconfig(&self.url(), &self.authority.certificate_pem, credentials)
    }

    /// A kubeconfig for whom nothing is forbidden.
    pub fn admin_kubeconfig(&self) -> String {
        fs::read_to_string(self.directory.path().join("admin.kubeconfig")).expect("written at the start")
    }

    /// kubectl as the cluster's admin.
    pub fn admin(&self) -> Kubectl {
        kubectl(&self.programs, self.directory.path(), "admin")
    }

    /// kubectl as anybody; `name` tells the files of one from another's.
    pub fn kubectl(&self, name: &str, credentials: Credentials<'_>) -> Kubectl {
        let files = Files { dir: self.directory.path().to_owned() };
        files.write(&format!("{name}.kubeconfig"), &self.kubeconfig(credentials));
        kubectl(&self.programs, self.directory.path(), name)
    }

    /// A token of a service account that exists, good for a day.
    pub async fn service_account_token(&self, namespace: &str, name: &str) -> Result<String, String> {
        let arguments = ["create", "token", name, "--namespace", namespace, "--duration", "24h"];
        self.admin().run(&arguments).await.map(|token| token.trim().to_owned())
    }

    /// The cluster is gone: the API server is killed.
    pub fn cut_off(&mut self) {
        self.api_server.kill();
    }

    /// It is back, on the same address with the same data.
    pub async fn restore(&mut self) {
        self.api_server.restart();
        let kubectl = self.admin();
        until("the API server is ready again", || kubectl.run(&["get", "--raw", "/readyz"])).await;
        // These ask again after pauses that grow; started anew they ask at once.
        self.controller_manager.restart();
        self.scheduler.restart();
    }

    /// The ends of all logs, for the message of a test that failed.
    pub fn logs(&self) -> String {
        let servers = [&self.etcd, &self.api_server, &self.controller_manager, &self.scheduler];
        servers.map(Server::log_tail).join("\n---\n")
    }

    fn alive(&mut self) -> Result<(), String> {
        let servers = [&mut self.etcd, &mut self.api_server, &mut self.controller_manager, &mut self.scheduler];
        servers.into_iter().try_for_each(Server::alive)
    }
}

fn kubectl(programs: &Path, directory: &Path, name: &str) -> Kubectl {
    Kubectl {
        program: programs.join("kubectl"),
        kubeconfig: directory.join(format!("{name}.kubeconfig")),
        cache: directory.join("kubectl-cache"),
    }
}

/// Ports that were free a moment ago, all different.
fn free_ports<const N: usize>(address: IpAddr) -> [u16; N] {
    let listeners: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind((address, 0)).unwrap_or_else(|e| panic!("{address}: {e}")));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}
