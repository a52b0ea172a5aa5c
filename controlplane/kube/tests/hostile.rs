//! Servers that a tenant could register: expired, silent, endless, or talking nonsense. None holds the plane up or fills it.
#![expect(clippy::unwrap_used, reason = "the helpers of a test are part of the test")]

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use croft_core::join::cluster::{Access, Fault, Ready};
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
    /// A list of these, as many at once as `limit` says.
    List(Vec<String>),
}

/// A page of it, from where the request's `continue` says.
fn page(request: &str, items: &[String]) -> String {
    let number = |name: &str| {
        let (_, rest) = request.split_once(&format!("{name}="))?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok()
    };
    let from = number("continue").unwrap_or(0);
    let to = (from + number("limit").unwrap_or(items.len())).min(items.len());
    let next = if to < items.len() { to.to_string() } else { String::new() };
    let items = items[from..to].join(",");
    format!(
        r#"{{"kind":"List","apiVersion":"v1","metadata":{{"resourceVersion":"1","continue":"{next}"}},"items":[{items}]}}"#
    )
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
            let read = stream.read(&mut request).await.unwrap_or(0);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
            match &says {
                Says::Once(body) => _ = stream.write_all(whole(head, body).as_bytes()).await,
                Says::List(items) => {
                    let body = page(&String::from_utf8_lossy(&request[..read]), items);
                    _ = stream.write_all(whole(head, &body).as_bytes()).await;
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

fn whole(head: &str, body: &str) -> String {
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
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

/// `{}` is three bytes, and a node in memory more than a thousand.
#[tokio::test]
async fn a_page_has_no_more_items_than_were_asked_for() {
    let authority = Authority::new("ca");
    let body: &str =
        Box::leak(format!("{{\"metadata\":{{}},\"items\":[{}]}}", vec!["{}"; 101].join(",")).into_boxed_str());
    let cluster = serve(&authority, good(&authority), Says::Once(body)).await;
    for fault in [cluster.nodes().await.unwrap_err(), cluster.pods("a").await.unwrap_err()] {
        assert!(matches!(&fault, Fault::Refused { why, .. } if why.contains("more than 100")), "{fault}");
    }
    let fault = cluster.signings().await.unwrap_err();
    assert!(matches!(&fault, Fault::Refused { why, .. } if why.contains("more than 100")), "{fault}");
}

fn node(name: &str, labels: &str, conditions: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"{name}","uid":"u-{name}","labels":{{{labels}}}}},
        "spec":{{"providerID":"croft://acme/{name}"}},"status":{{"conditions":[{conditions}]}}}}"#
    )
}

/// Any kubelet writes to its own Node, and whoever may join sends requests.
#[tokio::test]
async fn one_who_makes_his_object_long_holds_up_no_other() {
    let authority = Authority::new("ca");
    let condition = r#"{"type":"","status":"","lastHeartbeatTime":null,"lastTransitionTime":null}"#;
    let ready = r#"{"type":"Ready","status":"True"}"#;
    // Six on a page are too long, and one of them is so alone.
    let mut nodes: Vec<String> = (0..40)
        .map(|n| node(&format!("a-{n}"), "", &[vec![ready], vec![condition; 19_000]].concat().join(",")))
        .collect();
    nodes.push(node("b", "", &vec![condition; 130_000].join(",")));
    nodes.extend((0..150).map(|n| node(&format!("c-{n}"), "", ready)));
    let cluster = serve(&authority, good(&authority), Says::List(nodes)).await;
    let seen = cluster.nodes().await.unwrap();
    assert_eq!(seen.len(), 191);
    assert!(seen.iter().all(|node| node.provider_id == Some(format!("croft://acme/{}", node.name))));
    assert_eq!(seen.iter().filter(|node| node.ready == Ready::Yes).count(), 190, "what one says of itself is lost");

    let request = |n: usize| {
        let note = "x".repeat(250_000);
        format!(
            r#"{{"metadata":{{"name":"csr-{n}","uid":"u{n}","resourceVersion":"1","annotations":{{"note":"{note}"}}}},
            "spec":{{"signerName":"kubernetes.io/kubelet-serving","username":"system:node:a-{n}","request":""}}}}"#
        )
    };
    let cluster = serve(&authority, good(&authority), Says::List((0..60).map(request).collect())).await;
    assert_eq!(cluster.signings().await.unwrap().len(), 2 * 60, "as many of each signer");
}

/// Each page is short enough, and there are many.
#[tokio::test]
async fn what_is_kept_of_all_pages_together_has_an_end() {
    let authority = Authority::new("ca");
    let taint = format!(r#"{{"key":"{}","effect":"NoSchedule"}}"#, "x".repeat(7_000_000));
    let heavy = format!(r#"{{"metadata":{{"name":"a","uid":"u"}},"spec":{{"taints":[{taint}]}}}}"#);
    let cluster = serve(&authority, good(&authority), Says::List(vec![heavy; 20])).await;
    let fault = cluster.nodes().await.unwrap_err();
    assert!(matches!(&fault, Fault::Refused { why, .. } if why.contains("64 MiB")), "{fault}");
}

#[tokio::test]
async fn what_a_kubelet_says_of_itself_is_kept_short() {
    let authority = Authority::new("ca");
    let labels = (0..20_000).map(|n| format!(r#""a{n}":"{n}""#)).collect::<Vec<_>>().join(",");
    let long = format!("croft://\\u001b[2J{}", "x".repeat(100_000));
    let node = node("a", &labels, "").replace("croft://acme/a", &long);
    let cluster = serve(&authority, good(&authority), Says::List(vec![node])).await;
    let seen = cluster.nodes().await.unwrap().remove(0);
    let kept: usize = seen.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert!(kept > 1000 && kept < 20_000, "{kept}");
    let said = seen.provider_id.unwrap();
    assert!(said.len() < 2000 && !said.contains('\u{1b}'), "{said}");
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
