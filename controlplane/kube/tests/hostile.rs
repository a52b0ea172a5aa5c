//! Servers that a tenant could register: expired, silent, endless, or talking nonsense. None holds the plane up or fills it.
#![expect(clippy::unwrap_used, reason = "the helpers of a test are part of the test")]

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use croft_core::join::cluster::{Access, Fault};
use croft_core::join::ports::{Cluster, Clusters as _};
use croft_kube::KubeClusters;
use croft_test_cluster::{Authority, Identity};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What is said to every request.
enum Says {
    Once(&'static str),
    /// A body without an end.
    Forever,
}

async fn serve(authority: &Authority, issued: Identity, says: Says) -> Arc<dyn Cluster> {
    let chain = vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not believe us hangs up here.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            _ = stream.read(&mut request).await;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
            match says {
                Says::Once(body) => {
                    let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
                    _ = stream.write_all(answer.as_bytes()).await;
                }
                Says::Forever => {
                    _ = stream.write_all(format!("{head}\r\n{{\"items\": \"").as_bytes()).await;
                    while stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
                }
            }
        }
    });
    open(authority, port)
}

fn open(authority: &Authority, port: u16) -> Arc<dyn Cluster> {
    let ca = STANDARD.encode(&authority.certificate_pem);
    let kubeconfig = format!(
        "contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{port}', certificate-authority-data: {ca}}}}}]\n\
         users: [{{name: u, user: {{token: abc}}}}]\n"
    );
    KubeClusters::default().open(&Access::Kubeconfig(kubeconfig)).unwrap()
}

fn good(authority: &Authority) -> Identity {
    authority.server("hostile", &["127.0.0.1".to_owned()])
}

#[tokio::test]
async fn an_expired_certificate_is_told_as_such_by_every_verb() {
    let authority = Authority::new("ca");
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names.push(rcgen::SanType::IpAddress("127.0.0.1".parse().unwrap()));
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
    let cluster =
        serve(&authority, authority.issue(params, rcgen::ExtendedKeyUsagePurpose::ServerAuth), Says::Once("{}")).await;
    for fault in [cluster.probe().await.unwrap_err(), cluster.nodes().await.unwrap_err()] {
        assert!(matches!(&fault, Fault::Certificate { why, .. } if why == "it has expired"), "{fault}");
        assert!(!fault.passes() && fault.server().starts_with("https://127.0.0.1:"));
    }
}

#[tokio::test]
async fn an_answer_without_an_end_is_cut_off() {
    let authority = Authority::new("ca");
    let cluster = serve(&authority, good(&authority), Says::Forever).await;
    let fault = cluster.nodes().await.unwrap_err();
    assert!(matches!(&fault, Fault::Refused { why, .. } if why.contains("too long")), "{fault}");
}

#[tokio::test]
async fn nonsense_is_no_answer() {
    let authority = Authority::new("ca");
    for nonsense in ["", "<html>", "{\"items\": 7}", "[]"] {
        let cluster = serve(&authority, good(&authority), Says::Once(nonsense)).await;
        let fault = cluster.nodes().await.unwrap_err();
        assert!(matches!(&fault, Fault::Refused { .. }), "{nonsense}: {fault}");
    }
}

#[tokio::test]
async fn a_list_that_never_ends_is_given_up() {
    let authority = Authority::new("ca");
    let page = "{\"apiVersion\":\"v1\",\"kind\":\"NodeList\",\"metadata\":{\"continue\":\"more\"},\"items\":[]}";
    let cluster = serve(&authority, good(&authority), Says::Once(page)).await;
    let fault = cluster.nodes().await.unwrap_err();
    assert!(matches!(&fault, Fault::Refused { why, .. } if why.contains("pages")), "{fault}");
}

/// The one test here that takes its time: the deadline's.
#[tokio::test]
async fn a_server_that_says_nothing_is_left_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cluster = open(&Authority::new("ca"), listener.local_addr().unwrap().port());
    let fault = cluster.probe().await.unwrap_err();
    assert!(matches!(&fault, Fault::Timeout { .. }) && fault.passes(), "{fault}");
}
