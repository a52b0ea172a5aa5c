//! A machine that joins: the kubelet's part, played against the real API server.

use std::collections::BTreeSet;

use croft_core::Timestamp;
use croft_core::join::cluster::{Answer, BootstrapToken, Signing, Stage};
use croft_core::join::csr::{CLIENT_SIGNER, Denial, Record, SERVING_SIGNER, Standing, judge};
use croft_core::join::ports::Cluster;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::control_plane::{ControlPlane, Credential, Identity, eventually};
use crate::request;

pub const CLIENT_USAGES: [&str; 2] = ["digital signature", "client auth"];
pub const SERVING_USAGES: [&str; 2] = ["digital signature", "server auth"];

/// Far enough for any test.
pub fn soon() -> Timestamp {
    Timestamp((jiff::Timestamp::now().as_second() + 3600) * 1_000_000)
}

pub fn token(id: &str) -> BootstrapToken {
    BootstrapToken {
        id: id.to_owned(),
        secret: "0123456789abcdef".to_owned(),
        expires: soon(),
        description: "tenants/acme/instances/train-1".to_owned(),
    }
}

pub fn record(node: &str, standing: Standing) -> Record {
    Record { node: node.to_owned(), addresses: BTreeSet::from(["10.201.0.7".parse().unwrap()]), standing }
}

pub async fn send(by: &Client, name: &str, signer: &str, usages: &[&str], pem: &str) -> Result<(), kube::Error> {
    let usages = usages.iter().map(|usage| (*usage).to_owned()).collect();
    let csr = CertificateSigningRequest {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.as_bytes().to_vec()),
            signer_name: signer.to_owned(),
            usages: Some(usages),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    Api::<CertificateSigningRequest>::all(by.clone()).create(&PostParams::default(), &csr).await.map(drop)
}

pub async fn seen(croft: &dyn Cluster, name: &str) -> Option<Signing> {
    croft.signings().await.expect("requests").into_iter().find(|signing| signing.name == name)
}

/// What Croft does with a request: read, judge, answer.
pub async fn decide(croft: &dyn Cluster, name: &str, record: &Record) -> Result<(), Denial> {
    let signing = seen(croft, name).await.unwrap_or_else(|| panic!("{name} is not listed"));
    assert_eq!(signing.stage, Stage::Open, "{name}");
    let verdict = judge(&signing.request, record);
    let answer = match &verdict {
        Ok(()) => Answer::Approve,
        Err(denial) => Answer::Deny { reason: denial.reason().to_owned(), message: denial.to_string() },
    };
    croft.signing_answer(&signing, &answer).await.unwrap_or_else(|fault| panic!("{name}: {fault}"));
    verdict
}

/// The certificate of an approved request.
pub async fn issued(admin: &Client, name: &str) -> String {
    let api: Api<CertificateSigningRequest> = Api::all(admin.clone());
    eventually(&format!("{name} is issued"), async || {
        let csr = api.get(name).await.map_err(|error| error.to_string())?;
        match csr.status.clone().and_then(|status| status.certificate) {
            Some(pem) if !pem.0.is_empty() => Ok(String::from_utf8(pem.0).expect("PEM")),
            _ => Err(format!("{:?}", csr.status)),
        }
    })
    .await
}

/// The whole honest way to a kubelet's credential: token, request, approval, certificate.
pub async fn join(plane: &ControlPlane, croft: &dyn Cluster, id: &str, node: &str) -> Credential {
    let token = token(id);
    croft.token_ensure(&token).await.expect("a token");
    let by_token = plane.client(&Credential::Token(token.text())).await;
    let (pem, key) = request::signed(&request::node_name(node), &[]);
    let name = format!("client-{node}");
    let sent = async || send(&by_token, &name, CLIENT_SIGNER, &CLIENT_USAGES, &pem).await;
    eventually("the token is taken", sent).await;
    decide(croft, &name, &record(node, Standing::Booting)).await.expect("an honest request");
    let certificate_pem = issued(&plane.admin().await, &name).await;
    croft.token_delete(id).await.expect("the token goes");
    Credential::Certificate(Identity { certificate_pem, key_pem: key.serialize_pem() })
}

/// And the certificate that it serves with.
pub async fn serve(plane: &ControlPlane, croft: &dyn Cluster, kubelet: &Client, node: &str) {
    let names = request::alternative_names(&[request::dns(node), request::ip(&[10, 201, 0, 7])]);
    let (pem, _) = request::signed(&request::node_name(node), &[request::asking(&[&[names]])]);
    let name = format!("serving-{node}");
    send(kubelet, &name, SERVING_SIGNER, &SERVING_USAGES, &pem).await.expect("a serving request");
    decide(croft, &name, &record(node, Standing::Joined)).await.expect("an honest request");
    issued(&plane.admin().await, &name).await;
}
