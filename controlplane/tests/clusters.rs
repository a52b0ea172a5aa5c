//! Clusters over the API, against a real API server: what is registered, what is refused and in which words, and what is seen
//! of a cluster that goes away, comes back, and takes rights and policies from us.
//!
//! Runs in the kubernetes lane; elsewhere it says that it did not run.
#![expect(clippy::unwrap_used, reason = "the helpers of a test are part of the test")]

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use croft_controlplane::{Config, Plane};
use croft_core::time::SystemClock;
use croft_proto::v1::cluster::Credential;
use croft_proto::v1::clusters_client::ClustersClient;
use croft_proto::v1::condition::Status as State;
use croft_proto::v1::{self};
use croft_test_cluster::{Authority, ControlPlane, Credentials, Kubectl, Options, kubeconfig, programs, until};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

/// The plane, and who speaks to it.
struct Croft {
    plane: Plane,
    directory: tempfile::TempDir,
    token: String,
}

impl Croft {
    async fn start(directory: tempfile::TempDir) -> Self {
        let plane = Plane::start(Config::local(directory.path()), Arc::new(SystemClock)).await.unwrap();
        let token = plane.admin_token.clone().unwrap();
        Self { plane, directory, token }
    }

    async fn kill_and_start(self) -> Self {
        self.plane.kill().await;
        Self::start(self.directory).await
    }

    fn channel(&self) -> Channel {
        let ca = Certificate::from_pem(&self.plane.ca_pem);
        let tls = ClientTlsConfig::new().ca_certificate(ca).domain_name("localhost");
        let endpoint = Endpoint::from_shared(format!("https://{}", self.plane.api_addr)).unwrap();
        endpoint.tls_config(tls).unwrap().connect_lazy()
    }

    fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let bearer: MetadataValue<Ascii> = format!("Bearer {}", self.token).parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        request
    }

    async fn register(&self, parent: &str, kubeconfig: &str) -> Result<v1::Cluster, Status> {
        let credential = Some(Credential::Kubeconfig(kubeconfig.to_owned()));
        let request = v1::RegisterClusterRequest {
            parent: parent.to_owned(),
            cluster_id: "prod".to_owned(),
            cluster: Some(v1::Cluster { credential, ..Default::default() }),
            ..Default::default()
        };
        let mut clusters = ClustersClient::new(self.channel());
        clusters.register_cluster(self.ask(request)).await.map(tonic::Response::into_inner)
    }

    /// What is wrong with it in one word, and in the words that a user reads.
    async fn refused(&self, parent: &str, kubeconfig: &str) -> (String, String) {
        let status = self.register(parent, kubeconfig).await.unwrap_err();
        let info = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
        (info.reason, status.message().to_owned())
    }

    async fn get(&self) -> v1::Cluster {
        let request = v1::GetClusterRequest { name: "clusters/prod".to_owned() };
        ClustersClient::new(self.channel()).get_cluster(self.ask(request)).await.unwrap().into_inner()
    }

    /// Looks now instead of within a minute, and waits until a condition is so, since clusters take a while to know.
    async fn until(&self, kind: &str, state: State, part: &str) -> v1::Condition {
        until(&format!("{kind} is {}", state.as_str_name()), || async {
            self.plane.engine().probe_clusters().await.map_err(|error| error.to_string())?;
            let conditions = self.get().await.status.unwrap().conditions;
            let found = conditions.into_iter().find(|condition| condition.r#type == kind).unwrap();
            if found.status() == state && found.message.contains(part) { Ok(found) } else { Err(format!("{found:?}")) }
        })
        .await
    }

    async fn events(&self) -> Vec<String> {
        let request = v1::ListEventsRequest { parent: "-".to_owned(), ..Default::default() };
        let mut events = v1::events_client::EventsClient::new(self.channel());
        let events = events.list_events(self.ask(request)).await.unwrap().into_inner().events;
        let of_clusters = events.into_iter().filter(|event| event.target == "clusters/prod");
        of_clusters.map(|event| event.message.split(':').next().unwrap_or_default().to_owned()).collect()
    }
}

fn states(cluster: &v1::Cluster) -> Vec<String> {
    let conditions = &cluster.status.as_ref().unwrap().conditions;
    conditions.iter().map(|one| format!("{} {}", one.r#type, one.status().as_str_name())).collect()
}

fn holds(directory: &Path, secret: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holds(&path, secret));
        } else if std::fs::read(&path).unwrap().windows(secret.len()).any(|window| window == secret.as_bytes()) {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_cluster_is_registered_watched_and_told_of() {
    let Some(programs) = programs() else {
        eprintln!("not run: no CROFT_KUBERNETES_BIN; `cargo xtask test --lane kubernetes` sets it");
        return;
    };
    let began = Instant::now();
    let step = |what: &str| println!("{:6.1} s  {what}", began.elapsed().as_secs_f64());
    let mut cluster = ControlPlane::start(&programs, &Options::at(IpAddr::V4(Ipv4Addr::LOCALHOST))).await;
    let admin = cluster.admin();
    admin.create(&croft_kube::manifest::whole()).await.unwrap();
    let account = async |name: &str| cluster.service_account_token("croft-system", name).await.unwrap();
    admin.run(&["--namespace", "croft-system", "create", "serviceaccount", "narrow"]).await.unwrap();
    let (token, narrow) = (account("croft").await, account("narrow").await);
    let good = cluster.kubeconfig(Credentials::Token(&token));
    step("the cluster is ready");

    let croft = Croft::start(tempfile::tempdir().unwrap()).await;
    what_does_not_work_is_refused(&croft, &cluster, &token, &narrow).await;
    step("refused what does not work");

    let made = croft.register("", &good).await.unwrap();
    let status = made.status.clone().unwrap();
    assert_eq!(
        states(&made)[..4],
        ["Reachable TRUE", "CredentialValid TRUE", "RightsSufficient TRUE", "PoliciesInstalled TRUE"]
    );
    assert!(status.version.starts_with("v1.") && status.server == cluster.url(), "{status:?}");
    assert!(status.serving_expire_time.is_some() && status.ca_expire_time.is_some());
    assert!(status.credential_expire_time.is_some() && status.ca_pins[0].starts_with("sha256:"));
    let in_clear = holds(croft.directory.path(), &token);
    assert!(in_clear.is_empty(), "{in_clear:?}");
    step("registered");

    rights_and_policies_are_missed(&croft, &admin).await;
    step("missed what was taken away");

    cluster.cut_off();
    let lost = croft.until("Reachable", State::False, "").await;
    assert_eq!(lost.reason, "CLUSTER_UNREACHABLE");
    assert_eq!(croft.get().await.status.unwrap().version, status.version, "as last seen");
    let croft = croft.kill_and_start().await;
    assert_eq!(states(&croft.get().await)[0], "Reachable FALSE", "known after a start what was known before");
    cluster.restore().await;
    croft.until("Reachable", State::True, "").await;
    step("lost and found");

    let told = croft.events().await;
    let turns = ["RightsSufficient", "PoliciesInstalled", "Reachable"];
    let expected: Vec<String> =
        turns.iter().flat_map(|kind| ["False", "True"].map(|state| format!("{kind} is {state}"))).collect();
    assert_eq!(told, expected);
    assert_eq!(croft.plane.store().consistency().await.unwrap(), [""; 0]);
    croft.plane.stop().await.unwrap();
}

async fn what_does_not_work_is_refused(croft: &Croft, cluster: &ControlPlane, token: &str, narrow: &str) {
    let of = |server: &str, ca: &str, token: &str| kubeconfig(server, ca, Credentials::Token(token));
    let ca = &cluster.authority.certificate_pem;
    let url = cluster.url();
    let (reason, message) = croft.refused("", &of("https://127.0.0.1:1", ca, token)).await;
    assert_eq!(reason, "CLUSTER_UNREACHABLE");
    assert!(message.contains("https://127.0.0.1:1 cannot be reached"), "{message}");
    let (reason, message) = croft.refused("", &of(&url, &Authority::new("another").certificate_pem, token)).await;
    assert_eq!(reason, "CLUSTER_CERTIFICATE_REFUSED");
    assert!(message.contains("not signed by the CA of the kubeconfig"), "{message}");
    let (reason, message) = croft.refused("", &of(&url, ca, "nonsense")).await;
    assert_eq!(reason, "CLUSTER_CREDENTIAL_REFUSED");
    assert!(message.contains("register the cluster with a new one"), "{message}");
    let (reason, message) = croft.refused("", &of(&url, ca, narrow)).await;
    assert_eq!(reason, "CLUSTER_RIGHTS_MISSING");
    assert!(message.contains("list certificatesigningrequests.certificates.k8s.io"), "{message}");

    // A tenant's may not be where only the plane's machine reaches.
    let tenant = v1::CreateTenantRequest { tenant_id: "acme".to_owned(), ..Default::default() };
    let mut tenants = v1::tenants_client::TenantsClient::new(croft.channel());
    tenants.create_tenant(croft.ask(tenant)).await.unwrap();
    let (reason, message) = croft.refused("tenants/acme", &of(&url, ca, token)).await;
    assert_eq!(reason, "INVALID_ARGUMENT");
    assert!(message.contains("cluster.server: 127.0.0.1 is a loopback address"), "{message}");
    let port = url.rsplit(':').next().unwrap();
    let named = of(&format!("https://localhost:{port}"), ca, token);
    let (reason, message) = croft.refused("tenants/acme", &named).await;
    assert_eq!(reason, "CLUSTER_UNREACHABLE");
    assert!(message.contains("--tenant-cluster-allow-prefix"), "{message}");
    let request = v1::GetClusterRequest { name: "clusters/prod".to_owned() };
    let nothing = ClustersClient::new(croft.channel()).get_cluster(croft.ask(request)).await.unwrap_err();
    assert_eq!(nothing.code(), Code::NotFound, "nothing of it was kept");
}

async fn rights_and_policies_are_missed(croft: &Croft, admin: &Kubectl) {
    let manifest = croft_kube::manifest::whole();
    let give_back = async || {
        // What is there already is refused, and the rest is made.
        let _ = admin.create(&manifest).await;
    };
    admin.run(&["--namespace", "kube-system", "delete", "rolebinding", "croft-tokens"]).await.unwrap();
    let missing = croft.until("RightsSufficient", State::False, "create secrets in namespace kube-system").await;
    assert_eq!(missing.reason, "CLUSTER_RIGHTS_MISSING");
    give_back().await;
    croft.until("RightsSufficient", State::True, "").await;
    admin.run(&["delete", "validatingadmissionpolicy", "croft-tenant-pods"]).await.unwrap();
    let lacking = croft.until("PoliciesInstalled", State::False, "croft-tenant-pods is missing").await;
    assert_eq!(lacking.reason, "CLUSTER_POLICIES_MISSING");
    give_back().await;
    croft.until("PoliciesInstalled", State::True, "").await;
}
