//! A whole plane in this process, started, stopped, killed, backed up and restored.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use croft_core::time::SystemClock;
use croft_proto::agent::v1::EnrolRequest;
use croft_proto::agent::v1::enrolment_client::EnrolmentClient;
use croft_proto::v1;
use croft_proto::v1::tenants_client::TenantsClient;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::pem::PemObject;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::admin;
use crate::config::Config;
use crate::datadir::DataDir;
use crate::{Plane, bootstrap};

async fn start(directory: &Path) -> Plane {
    Plane::start(Config::local(directory), Arc::new(SystemClock)).await.unwrap()
}

fn channel(plane: &Plane) -> Channel {
    let ca = Certificate::from_pem(&plane.ca_pem);
    let tls = ClientTlsConfig::new().ca_certificate(ca).domain_name("localhost");
    Endpoint::from_shared(format!("https://{}", plane.api_addr)).unwrap().tls_config(tls).unwrap().connect_lazy()
}

fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let bearer: MetadataValue<Ascii> = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request
}

async fn tenant_create(plane: &Plane, token: &str, id: &str) -> Result<(), Status> {
    let request =
        v1::CreateTenantRequest { tenant_id: id.to_owned(), tenant: Some(v1::Tenant::default()), ..Default::default() };
    TenantsClient::new(channel(plane)).create_tenant(with_token(token, request)).await.map(|_| ())
}

async fn tenants(plane: &Plane, token: &str) -> Result<Vec<String>, Status> {
    let request = with_token(token, v1::ListTenantsRequest::default());
    let list = TenantsClient::new(channel(plane)).list_tenants(request).await?.into_inner();
    Ok(list.tenants.into_iter().map(|tenant| tenant.name).collect())
}

async fn get(address: std::net::SocketAddr, path: &str, accept: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_first_start_makes_what_is_needed_and_the_second_changes_none_of_it() {
    let above = tempfile::tempdir().unwrap();
    let directory = above.path().join("plane");
    let plane = start(&directory).await;
    let token = plane.admin_token.clone().unwrap();
    tenant_create(&plane, &token, "acme").await.unwrap();
    let ca = plane.ca_pem.clone();
    let mode = |name: &str| std::fs::metadata(directory.join(name)).unwrap().permissions().mode() & 0o777;
    let modes = [("", 0o700), ("ca.pem", 0o644), ("ca.key", 0o600), ("admin.token", 0o600), ("croft.db", 0o600)];
    for (name, expected) in modes {
        assert_eq!(mode(name), expected, "{name}");
    }
    let listen: serde_json::Value =
        serde_json::from_slice(&std::fs::read(directory.join("listen.json")).unwrap()).unwrap();
    assert_eq!(listen["api"], plane.api_addr.to_string());
    assert_eq!(listen["metrics"], plane.metrics_addr.to_string());
    plane.stop().await.unwrap();
    assert!(!directory.join("listen.json").exists(), "nobody listens there any more");

    // The operator has moved the token to a safer place.
    std::fs::remove_file(directory.join("admin.token")).unwrap();
    let plane = start(&directory).await;
    assert_eq!((plane.ca_pem.as_str(), plane.admin_token.as_deref()), (ca.as_str(), None));
    assert_eq!(tenants(&plane, &token).await.unwrap(), ["tenants/acme"]);
    plane.stop().await.unwrap();
}

#[tokio::test]
async fn a_first_start_that_died_after_writing_the_token_keeps_its_word() {
    let above = tempfile::tempdir().unwrap();
    std::fs::write(above.path().join("admin.token"), "croft_admin_what-an-operator-read-already\n").unwrap();
    let plane = start(above.path()).await;
    assert_eq!(tenants(&plane, "croft_admin_what-an-operator-read-already").await.unwrap(), [""; 0]);
    plane.stop().await.unwrap();
}

#[tokio::test]
async fn two_planes_never_share_a_data_directory() {
    let above = tempfile::tempdir().unwrap();
    let plane = start(above.path()).await;
    let error = Plane::start(Config::local(above.path()), Arc::new(SystemClock)).await.unwrap_err().to_string();
    assert!(error.contains("another croft-controlplane"), "{error}");
    assert!(above.path().join("listen.json").exists(), "the one that runs was left alone");
    plane.stop().await.unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_its_option() {
    let above = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Config { listen: taken.local_addr().unwrap(), ..Config::local(above.path()) };
    let error = format!("{:#}", Plane::start(config, Arc::new(SystemClock)).await.unwrap_err());
    assert!(error.contains("--listen") && error.contains("in use"), "{error}");
    start(above.path()).await.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_plane_comes_back_on_the_same_port_with_what_it_acknowledged() {
    let above = tempfile::tempdir().unwrap();
    let mut plane = start(above.path()).await;
    let (address, token) = (plane.api_addr, plane.admin_token.clone().unwrap());
    for round in 0..4 {
        tenant_create(&plane, &token, &format!("t{round}")).await.unwrap();
        plane.kill().await;
        let config = Config { listen: address, ..Config::local(above.path()) };
        plane = Plane::start(config, Arc::new(SystemClock)).await.unwrap();
        assert_eq!(tenants(&plane, &token).await.unwrap().len(), round + 1);
    }
    assert_eq!(plane.store().consistency().await.unwrap(), [""; 0]);
    plane.stop().await.unwrap();
}

#[tokio::test]
async fn a_stop_ends_streams_and_waits_for_none_of_them() {
    let above = tempfile::tempdir().unwrap();
    let plane = start(above.path()).await;
    let channel = channel(&plane);
    let mut health = HealthClient::new(channel.clone());
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    let status = watch.message().await.unwrap().unwrap().status;
    assert_eq!(status, i32::from(ServingStatus::Serving));
    let request = v1::WatchEventsRequest { parent: "-".to_owned(), ..Default::default() };
    let token = plane.admin_token.clone().unwrap();
    let mut events = v1::events_client::EventsClient::new(channel);
    let mut events = events.watch_events(with_token(&token, request)).await.unwrap().into_inner();

    let began = std::time::Instant::now();
    let ended = tokio::spawn(async move {
        while let Ok(Some(_)) = events.message().await {}
        // Health turns before the connection goes, and its own stream ends, too.
        let turned = watch.message().await.unwrap().unwrap().status;
        assert!(watch.message().await.is_ok_and(|end| end.is_none()));
        turned
    });
    plane.stop().await.unwrap();
    assert_eq!(ended.await.unwrap(), i32::from(ServingStatus::NotServing));
    assert!(began.elapsed() < Duration::from_secs(10), "well within the grace: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_stop_that_nobody_waits_for_and_a_plane_that_is_dropped_do_no_harm() {
    let above = tempfile::tempdir().unwrap();
    let plane = start(above.path()).await;
    assert!(tokio::time::timeout(Duration::ZERO, plane.stop()).await.is_err(), "left at its first breath");
    let again = || Plane::start(Config::local(above.path()), Arc::new(SystemClock));
    let free = async {
        loop {
            // Its threads end by themselves, a little later.
            match again().await {
                Ok(plane) => break plane,
                Err(error) => assert!(error.to_string().contains("another"), "{error:#}"),
            }
        }
    };
    drop(tokio::time::timeout(Duration::from_secs(20), free).await.unwrap());
}

#[tokio::test]
async fn a_lost_admin_token_is_made_again_while_the_plane_runs_and_audited() {
    let above = tempfile::tempdir().unwrap();
    let plane = start(above.path()).await;
    let old = plane.admin_token.clone().unwrap();
    let directory = DataDir::find(above.path()).unwrap();
    // As the command does it: by a connection of its own to the same database.
    let place = Config::local(above.path()).place;
    let store = directory.store(&place, Arc::new(SystemClock), false).await.unwrap();
    let new = bootstrap::reset_token(&store, &directory).await.unwrap();
    store.close().await;
    assert_eq!(std::fs::read_to_string(above.path().join("admin.token")).unwrap().trim(), new);
    tenant_create(&plane, &new, "acme").await.unwrap();
    assert_eq!(tenants(&plane, &old).await.unwrap_err().code(), Code::Unauthenticated);
    let page = croft_store::Page { size: 10, token: None };
    let (audit, _) = plane.store().audit_list(None, &page).await.unwrap();
    let row = audit.iter().find(|entry| entry.method.contains("reset-token")).expect("an audit row");
    assert_eq!((row.actor.as_str(), row.result.as_str()), ("local:root", "OK"));
    plane.stop().await.unwrap();
}

#[tokio::test]
async fn a_backup_of_a_running_plane_restores_it_with_agents_held_off() {
    let above = tempfile::tempdir().unwrap();
    let (first, copy, second) = (above.path().join("a"), above.path().join("backup"), above.path().join("b"));
    let plane = start(&first).await;
    let token = plane.admin_token.clone().unwrap();
    tenant_create(&plane, &token, "before").await.unwrap();
    let directory = DataDir::find(&first).unwrap();
    admin::backup(&directory, plane.store(), &copy).await.unwrap();
    tenant_create(&plane, &token, "after").await.unwrap();
    let error = format!("{:#}", admin::backup(&directory, plane.store(), &copy).await.unwrap_err());
    assert!(error.contains("--to"), "an older backup is not written over: {error}");
    let error = admin::restore(&first, &copy).unwrap_err().to_string();
    assert!(error.contains("not empty"), "{error}");
    plane.stop().await.unwrap();

    admin::restore(&second, &copy).unwrap();
    let plane = start(&second).await;
    assert_eq!(tenants(&plane, &token).await.unwrap(), ["tenants/before"]);
    assert_eq!(plane.store().consistency().await.unwrap(), [""; 0]);
    let mut agent = EnrolmentClient::new(channel(&plane));
    let held = agent.enrol(EnrolRequest::default()).await.unwrap_err();
    assert!(held.code() == Code::Unavailable && held.message().contains("release-agents"), "{held}");
    assert!(get(plane.metrics_addr, "/metrics", "*/*").await.contains("croft_agents_held 1"));
    admin::release_agents(&DataDir::find(&second).unwrap()).unwrap();
    let let_in = async {
        while agent.enrol(EnrolRequest::default()).await.unwrap_err().code() == Code::Unavailable {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), let_in).await.unwrap();
    plane.stop().await.unwrap();
}

#[tokio::test]
async fn a_damaged_or_unfinished_backup_is_no_backup() {
    let above = tempfile::tempdir().unwrap();
    let (data, copy) = (above.path().join("a"), above.path().join("backup"));
    let plane = start(&data).await;
    admin::backup(&DataDir::find(&data).unwrap(), plane.store(), &copy).await.unwrap();
    plane.stop().await.unwrap();
    let refused = |part: &str| {
        let target = above.path().join("b");
        let error = format!("{:#}", admin::restore(&target, &copy).unwrap_err());
        assert!(error.contains(part), "{error}");
        assert!(!target.exists(), "nothing was begun");
    };
    let key = std::fs::read(copy.join("ca.key")).unwrap();
    std::fs::write(copy.join("ca.key"), "x").unwrap();
    refused("ca.key is damaged");
    std::fs::remove_file(copy.join("ca.key")).unwrap();
    refused("ca.key cannot be read");
    std::fs::write(copy.join("ca.key"), key).unwrap();
    std::fs::rename(copy.join("backup.json"), copy.join("x")).unwrap();
    refused("never finished");
}

#[tokio::test]
async fn a_host_enrols_over_the_port_and_gets_a_certificate_of_this_ca() {
    let above = tempfile::tempdir().unwrap();
    let plane = start(above.path()).await;
    let token = plane.admin_token.clone().unwrap();
    let mut hosts = v1::hosts_client::HostsClient::new(channel(&plane));
    let request = v1::CreateEnrolmentTokenRequest { host_id: "h1".to_owned(), ..Default::default() };
    let given = hosts.create_enrolment_token(with_token(&token, request)).await.unwrap().into_inner();
    assert_eq!(given.ca_pem, plane.ca_pem);
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "h1");
    let csr_pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let request = EnrolRequest { token: given.token, csr_pem };
    let mut agent = EnrolmentClient::new(channel(&plane));
    let answer = agent.enrol(request).await.unwrap().into_inner();
    let der = rustls::pki_types::CertificateDer::from_pem_slice(answer.certificate_pem.as_bytes()).unwrap();
    let identity = crate::pki::HostIdentity::of(&der).unwrap();
    let host = plane.store().host_get(&"h1".into()).await.unwrap().unwrap();
    assert_eq!((identity.host, identity.uid), (host.id, host.meta.uid));
    plane.stop().await.unwrap();
}

#[tokio::test]
async fn metrics_are_the_databases_truth_and_readiness_is_told() {
    let above = tempfile::tempdir().unwrap();
    let plane = start(above.path()).await;
    let token = plane.admin_token.clone().unwrap();
    tenant_create(&plane, &token, "acme").await.unwrap();
    let mut quotas = v1::quotas_client::QuotasClient::new(channel(&plane));
    let name = "tenants/acme/quotas/vcpus".to_owned();
    let quota = Some(v1::Quota { name, limit: Some(50), ..Default::default() });
    let request = v1::SetQuotaRequest { quota, ..Default::default() };
    quotas.set_quota(with_token(&token, request)).await.unwrap();
    assert!(tenants(&plane, "croft_admin_wrong").await.is_err());

    let text = get(plane.metrics_addr, "/metrics", "*/*").await;
    assert!(text.contains("text/plain; version=0.0.4"), "{text}");
    for line in [
        "croft_quota_limit{tenant=\"acme\",resource=\"vcpus\"} 50",
        "croft_hosts{state=\"READY\"} 0",
        "croft_grpc_requests_total{method=\"/croft.v1.Tenants/CreateTenant\",code=\"OK\"} 1",
        "croft_grpc_requests_total{method=\"/croft.v1.Tenants/ListTenants\",code=\"UNAUTHENTICATED\"} 1",
        "croft_agents_held 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let openmetrics = get(plane.metrics_addr, "/metrics", "application/openmetrics-text").await;
    assert!(openmetrics.contains("version=1.0.0") && openmetrics.trim_end().ends_with("# EOF"), "{openmetrics}");
    assert!(get(plane.metrics_addr, "/healthz", "*/*").await.starts_with("HTTP/1.1 200"));
    assert!(get(plane.metrics_addr, "/readyz", "*/*").await.starts_with("HTTP/1.1 200"));
    assert!(get(plane.metrics_addr, "/", "*/*").await.starts_with("HTTP/1.1 404"));

    // The database goes away under it: families are missing and counted, and the plane is not ready.
    plane.store().close().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let text = get(plane.metrics_addr, "/metrics", "*/*").await;
    assert!(!text.contains("croft_quota_limit{") && !text.contains("croft_hosts{"), "{text}");
    assert!(text.contains("croft_scrape_errors_total{family=\"quotas\"} 1"), "{text}");
    let ready = get(plane.metrics_addr, "/readyz", "*/*").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("the database"), "{ready}");
    plane.stop().await.unwrap();
}
