//! CertificateSigningRequests: those to the two signers of kubelets, and the answers to them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use croft_core::join::cluster::{Answer, Fault, Signing, Stage};
use croft_core::join::csr::{CLIENT_SIGNER, Request, SERVING_SIGNER};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition as Condition, CertificateSigningRequestSpec,
    CertificateSigningRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource as _;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::core::request::Request as Kube;
use serde::Deserialize;

use crate::certificate;
use crate::connection::{Connection, text};
use crate::csr::subject;
use crate::list::{self, Item, Longer};
use crate::rights::{SIGNING_ANSWER, SIGNING_DELETE, SIGNINGS_LIST};
use crate::wire::{Meta, few, name};

const APPROVED: &str = "AgreesWithRecord";

/// Of one signer's. Whoever holds a token can send any number; those that are dealt with are deleted, and the next ones come into
/// sight.
const LOOKED_AT: usize = 1000;
/// Of a user's name: a node's is shorter, and so is a token's; and of a group's.
const USERNAME_MAX: usize = 300;
/// There are fewer usages and fewer groups of anybody honest.
const WORDS_MAX: usize = 64;

fn requests() -> Kube {
    Kube::new(CertificateSigningRequest::url_path(&(), None))
}

async fn of_signer<T: Item>(connection: &Connection, signer: &str) -> Result<Vec<T>, Fault> {
    let params = ListParams::default().fields(&format!("spec.signerName={signer}"));
    list::list(connection, &requests(), SIGNINGS_LIST, params, Longer::IsCutAt(LOOKED_AT)).await
}

pub(crate) async fn list(connection: &Connection) -> Result<Vec<Signing>, Fault> {
    let mut all = of_signer(connection, CLIENT_SIGNER).await?;
    all.extend(of_signer(connection, SERVING_SIGNER).await?);
    Ok(all)
}

/// Of the kubelets' client certificates that the cluster still keeps the request of (about an hour), the longest life.
pub(crate) async fn certificate_life(connection: &Connection) -> Result<Option<Duration>, Fault> {
    let lives: Vec<Life> = of_signer(connection, CLIENT_SIGNER).await?;
    Ok(lives.into_iter().map(|life| life.0).max())
}

/// The request is replaced as it was read, its version included: neither another request of the same name nor another's
/// answer in between can be answered by mistake. The server keeps everything but the conditions as it has them.
pub(crate) async fn answer(connection: &Connection, signing: &Signing, answer: &Answer) -> Result<(), Fault> {
    let (kind, reason, message) = match answer {
        Answer::Approve => ("Approved", APPROVED, "it agrees with Croft's record of the machine"),
        Answer::Deny { reason, message } => ("Denied", reason.as_str(), message.as_str()),
    };
    let condition = Condition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..Condition::default()
    };
    let body = CertificateSigningRequest {
        metadata: ObjectMeta {
            name: Some(signing.name.clone()),
            uid: Some(signing.uid.clone()),
            resource_version: Some(signing.resource_version.clone()),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec { signer_name: signing.request.signer.clone(), ..Default::default() },
        status: Some(CertificateSigningRequestStatus { conditions: Some(vec![condition]), ..Default::default() }),
    };
    let doing = SIGNING_ANSWER.of(&signing.name);
    let request = requests().replace_subresource("approval", &signing.name, &PostParams::default(), text(&body));
    connection.say(&doing, request).await.map(drop)
}

pub(crate) async fn delete(connection: &Connection, signing: &Signing) -> Result<(), Fault> {
    let this = Preconditions { uid: Some(signing.uid.clone()), resource_version: None };
    let request = requests().delete(&signing.name, &DeleteParams::default().preconditions(this));
    // Another of the same name is there instead: this one is gone.
    match connection.say(&SIGNING_DELETE.of(&signing.name), request).await {
        Ok(_) | Err(Fault::NotFound { .. } | Fault::Conflict { .. }) => Ok(()),
        Err(fault) => Err(fault),
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Wire {
    metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    request: String,
    signer_name: String,
    username: String,
    #[serde(deserialize_with = "few::<_, _, WORDS_MAX>")]
    groups: Vec<String>,
    #[serde(deserialize_with = "few::<_, _, WORDS_MAX>")]
    usages: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    #[serde(deserialize_with = "few::<_, _, WORDS_MAX>")]
    conditions: Vec<Said>,
    certificate: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Said {
    r#type: String,
}

impl Item for Signing {
    type Wire = Wire;

    fn read(wire: Wire) -> Option<Self> {
        let Wire { metadata, spec, status } = wire;
        let created = metadata.created();
        // What was left out of them could be what the judge has to see: then the request is not read at all.
        let is_short =
            |words: &[String]| words.len() < WORDS_MAX && words.iter().all(|word| word.len() <= USERNAME_MAX);
        let readable = is_short(&spec.usages) && is_short(&spec.groups);
        let words = |words: Vec<String>| words.into_iter().filter(|word| word.len() <= USERNAME_MAX).collect();
        Some(Self {
            name: name(metadata.name)?,
            uid: name(metadata.uid)?,
            resource_version: name(metadata.resource_version)?,
            created,
            stage: stage(&status),
            request: Request {
                subject: STANDARD.decode(&spec.request).ok().filter(|_| readable).and_then(|pem| subject(&pem)),
                signer: spec.signer_name,
                username: Some(spec.username).filter(|name| name.len() <= USERNAME_MAX)?,
                groups: words(spec.groups),
                usages: words(spec.usages),
            },
        })
    }
}

fn stage(status: &Status) -> Stage {
    let has = |kind: &str| status.conditions.iter().any(|condition| condition.r#type == kind);
    if has("Denied") {
        Stage::Denied
    } else if has("Failed") {
        Stage::Failed
    } else if status.certificate.as_ref().is_some_and(|certificate| !certificate.is_empty()) {
        Stage::Issued
    } else if has("Approved") {
        Stage::Approved
    } else {
        Stage::Open
    }
}

/// From one of the requests whose certificate was issued.
struct Life(Duration);

impl Item for Life {
    type Wire = Wire;

    fn read(wire: Wire) -> Option<Self> {
        let pem = STANDARD.decode(wire.status.certificate?).ok()?;
        certificate::life(certificate::from_pem(&pem).ok()?.first()?).map(Self)
    }
}
