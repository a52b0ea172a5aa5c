use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use croft_core::Clock;
use croft_core::time::{ManualClock, SystemClock};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::util::MapRequestLayer;

use super::*;
use crate::metrics::{Format, Metrics, Truth};
use crate::pki::{Authority, AuthorityFiles, Csr, HostIdentity, Names, ServerCertificate};

/// The port with nothing behind it but health, and an ear on who calls.
struct Port {
    directory: tempfile::TempDir,
    clock: Arc<ManualClock>,
    authority: Arc<Authority>,
    certificate: Arc<ServerCertificate>,
    metrics: Arc<Metrics>,
    callers: Arc<Mutex<Vec<Option<HostIdentity>>>>,
    hold: Hold,
    address: std::net::SocketAddr,
    stop: CancellationToken,
}

fn authority(directory: &Path, clock: &Arc<ManualClock>) -> Arc<Authority> {
    let files = AuthorityFiles { certificate: directory.join("ca.pem"), key: directory.join("ca.key"), make: true };
    Arc::new(Authority::open(&files, 30, clock.clone()).unwrap())
}

impl Port {
    async fn open(handshake: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Clients go by the machine's clock, so the plane's begins there.
        let clock = Arc::new(ManualClock::at(SystemClock.now()));
        let authority = authority(directory.path(), &clock);
        let path = directory.path().join("server.pem");
        let certificate = ServerCertificate::open(authority.clone(), Names::new(&[]).unwrap(), path).unwrap();
        let certificate = Arc::new(certificate);
        let tls = tls_config(&authority, certificate.clone(), clock.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (metrics, stop) = (Metrics::new(), CancellationToken::new());
        let callers = Arc::new(Mutex::new(Vec::new()));
        let heard = callers.clone();
        let listen = MapRequestLayer::new(move |request: http::Request<_>| {
            let info = request.extensions().get::<ConnectInfo>().unwrap();
            heard.lock().unwrap().push(info.identity.as_deref().cloned());
            let panics = request.headers().contains_key("panic");
            assert!(!panics, "told to");
            request
        });
        let hold = Hold::new(directory.path().join("restored.json"));
        let (health, routes) = Health::add_to(Routes::default()).await;
        health.serving().await;
        let routes = routes.into_axum_router().layer(listen);
        let routes = routes.layer(HoldLayer(hold.clone())).layer(CallsLayer(metrics.clone())).into();
        let limits = Limits { connections: 64, handshake };
        let connections = accept(listener, tls, limits, metrics.clone(), stop.clone());
        tokio::spawn(serve(connections, routes, stop.clone()));
        Self { directory, clock, authority, certificate, metrics, callers, hold, address, stop }
    }

    /// One health check on a connection of its own.
    async fn call(&self, identity: Option<Identity>) -> Result<(), Status> {
        self.client(identity).check(HealthCheckRequest::default()).await.map(|_| ())
    }

    fn client(&self, identity: Option<Identity>) -> HealthClient<tonic::transport::Channel> {
        let ca = Certificate::from_pem(self.authority.bundle_pem());
        let mut tls = ClientTlsConfig::new().ca_certificate(ca).domain_name("localhost");
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).unwrap().tls_config(tls).unwrap();
        HealthClient::new(endpoint.connect_lazy())
    }

    fn callers(&self) -> Vec<Option<HostIdentity>> {
        std::mem::take(&mut self.callers.lock().unwrap())
    }

    fn handshakes(&self, result: &str) -> u64 {
        let text = self.metrics.render(&Arc::new(Truth::default()), Format::Prometheus).unwrap();
        let start = format!("croft_tls_handshakes_total{{result=\"{result}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
    }

    async fn until_handshakes(&self, result: &str, count: u64) {
        let counted = async {
            while self.handshakes(result) < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), counted).await.unwrap();
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn host_identity(authority: &Authority, host: &str) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, host);
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let certificate = authority.sign_host(&Csr::parse(&csr).unwrap(), &host.into(), "uid-1").unwrap();
    Identity::from_pem(certificate, key.serialize_pem())
}

#[tokio::test]
async fn a_host_is_known_by_its_certificate_and_nobody_needs_one() {
    let port = Port::open(HANDSHAKE).await;
    port.call(None).await.unwrap();
    port.call(Some(host_identity(&port.authority, "h1"))).await.unwrap();
    let callers = port.callers();
    assert_eq!(callers[0], None);
    let identity = callers[1].as_ref().unwrap();
    assert_eq!((identity.host.as_str(), identity.uid.as_str()), ("h1", "uid-1"));
    assert_eq!(port.handshakes("good"), 2);
}

#[tokio::test]
async fn a_foreign_certificate_ends_the_handshake() {
    let port = Port::open(HANDSHAKE).await;
    // Of another plane, for a host of the same name.
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = authority(elsewhere.path(), &port.clock);
    assert!(port.call(Some(host_identity(&foreign, "h1"))).await.is_err());
    // Signed by nobody but itself.
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let own = params.self_signed(&key).unwrap();
    assert!(port.call(Some(Identity::from_pem(own.pem(), key.serialize_pem()))).await.is_err());
    assert!(port.callers().is_empty(), "nothing of it reached a handler");
    assert!(port.handshakes("refused") >= 2);
}

#[tokio::test]
async fn the_servers_own_certificate_opens_nothing() {
    let port = Port::open(HANDSHAKE).await;
    let pem = std::fs::read_to_string(port.directory.path().join("server.pem")).unwrap();
    assert!(port.call(Some(Identity::from_pem(&pem, &pem))).await.is_err());
    assert!(port.callers().is_empty());
}

#[tokio::test]
async fn an_expired_certificate_ends_the_handshake_by_the_planes_clock() {
    let port = Port::open(HANDSHAKE).await;
    let identity = host_identity(&port.authority, "h1");
    port.clock.advance(Duration::from_secs(29 * 24 * 3600));
    port.call(Some(identity.clone())).await.unwrap();
    port.clock.advance(Duration::from_secs(2 * 24 * 3600));
    assert!(port.call(Some(identity)).await.is_err());
    assert_eq!(port.callers().len(), 1);
    // One that was made a moment ago is good, whatever the client's clock says.
    port.call(Some(host_identity(&port.authority, "h1"))).await.unwrap();
}

#[tokio::test]
async fn a_new_server_certificate_is_shown_without_a_restart() {
    let port = Port::open(HANDSHAKE).await;
    let first = shown(port.address).await;
    assert_eq!(shown(port.address).await, first);
    port.clock.advance(Duration::from_secs(250 * 24 * 3600));
    assert!(port.certificate.renew_if_due().unwrap());
    let stored = std::fs::read(port.directory.path().join("server.pem")).unwrap();
    let renewed = CertificateDer::from_pem_slice(&stored).unwrap();
    assert_ne!(renewed, first);
    assert_eq!(shown(port.address).await, renewed);
}

#[tokio::test]
async fn what_is_not_tls_and_http2_gets_nowhere_and_keeps_nobody_waiting() {
    let port = Port::open(Duration::from_millis(300)).await;
    let mut plain = TcpStream::connect(port.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    port.until_handshakes("refused", 1).await;
    // Forty that say nothing at all, before TLS and after it.
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(port.address).await.unwrap());
    }
    port.call(None).await.unwrap();
    port.until_handshakes("late", 40).await;
    let mut byte = [0; 1];
    for stream in &mut silent {
        assert_eq!(stream.read(&mut byte).await.unwrap_or(0), 0, "hung up");
    }
    // TLS, and then nothing.
    shown(port.address).await;
    port.call(None).await.unwrap();
}

#[tokio::test]
async fn a_panic_is_an_answer_and_the_connection_lives_on() {
    let port = Port::open(HANDSHAKE).await;
    let mut client = port.client(None);
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    request.metadata_mut().insert("panic", "yes".parse().unwrap());
    let status = client.check(request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, "internal error"));
    client.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(port.handshakes("good"), 1);
}

#[tokio::test]
async fn agents_are_held_off_while_the_file_is_there() {
    use croft_proto::agent::v1::EnrolRequest;
    use croft_proto::agent::v1::enrolment_client::EnrolmentClient;
    let port = Port::open(HANDSHAKE).await;
    let ca = Certificate::from_pem(port.authority.bundle_pem());
    let tls = ClientTlsConfig::new().ca_certificate(ca).domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{}", port.address)).unwrap().tls_config(tls).unwrap();
    let mut agent = EnrolmentClient::new(endpoint.connect_lazy());
    let file = port.directory.path().join("restored.json");
    std::fs::write(&file, "{}").unwrap();
    assert!(!port.hold.held(), "only a start looks for it");
    let restarted = Hold::new(file.clone());
    assert!(restarted.held());
    std::fs::remove_file(&file).unwrap();
    tokio::time::timeout(Duration::from_secs(20), restarted.clone().watch()).await.unwrap();
    assert!(!restarted.held());
    // Let in: there is no such service behind this port, which is another answer than UNAVAILABLE.
    let status = agent.enrol(EnrolRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

const HANDSHAKE: Duration = Duration::from_secs(20);

/// The certificate that a new connection is shown, looked at and not judged: it may be of the future.
async fn shown(address: std::net::SocketAddr) -> CertificateDer<'static> {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    #[derive(Debug)]
    struct Anybody;
    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            crate::pki::provider().signature_verification_algorithms.supported_schemes()
        }
    }
    let config = rustls::ClientConfig::builder_with_provider(crate::pki::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}
