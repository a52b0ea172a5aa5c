//! The control plane of croft-test-cluster, as these tests want it, with clients of it that are not Croft's own.

use std::fmt::Debug;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use croft_core::join::cluster::Access;
use croft_core::join::ports::{Cluster, Clusters as _};
use croft_kube::KubeClusters;
pub use croft_test_cluster::{Authority, Identity};
use croft_test_cluster::{Credentials, Options, until};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

pub struct ControlPlane {
    pub server: String,
    plane: croft_test_cluster::ControlPlane,
}

pub enum Credential {
    Certificate(Identity),
    Token(String),
}

/// Asks until the answer is `Ok`, and panics with the last `Err` when the deadline is over.
pub async fn eventually<T, E: Debug, F: Future<Output = Result<T, E>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    until(what, || {
        let asked = ask();
        async { asked.await.map_err(|error| format!("{error:?}")) }
    })
    .await
}

impl ControlPlane {
    /// Approved requests become certificates for `hours`.
    pub async fn start(programs: &Path, hours: u32) -> Self {
        let options = Options {
            also_reached_as: vec!["kubernetes.default.svc".to_owned()],
            certificates_live: format!("{hours}h"),
            // Else no pod before its namespace has an account; the tests are about other things.
            api_server: vec!["--disable-admission-plugins=ServiceAccount".to_owned()],
            // The tests' kubelets send no heartbeats.
            controller_manager: vec!["--controllers=-node-lifecycle-controller".to_owned()],
            ..Options::at(IpAddr::V4(Ipv4Addr::LOCALHOST))
        };
        let plane = croft_test_cluster::ControlPlane::start(programs, &options).await;
        Self { server: plane.url(), plane }
    }

    /// A cluster administrator, without Croft between.
    pub async fn admin(&self) -> Client {
        self.client(&self.user(Some("system:masters"), "admin")).await
    }

    pub fn user(&self, group: Option<&str>, name: &str) -> Credential {
        Credential::Certificate(self.plane.authority.client(name, group))
    }

    pub fn ca(&self) -> &str {
        &self.plane.authority.certificate_pem
    }

    pub fn kubeconfig(&self, credential: &Credential) -> String {
        kubeconfig(&self.server, self.ca(), credential)
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
}

pub fn kubeconfig(server: &str, ca: &str, credential: &Credential) -> String {
    let credentials = match credential {
        Credential::Certificate(identity) => Credentials::Certificate(identity),
        Credential::Token(token) => Credentials::Token(token),
    };
    croft_test_cluster::kubeconfig(server, ca, credentials)
}
