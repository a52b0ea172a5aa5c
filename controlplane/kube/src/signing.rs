//! CertificateSigningRequests: those to the two signers of kubelets, and the answers to them.

use croft_core::Timestamp;
use croft_core::join::cluster::{Answer, Fault, Signing, Stage};
use croft_core::join::csr::{CLIENT_SIGNER, Request, SERVING_SIGNER};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition as Condition, CertificateSigningRequestSpec,
    CertificateSigningRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};

use crate::connection::{Connection, Longer};
use crate::csr::subject;
use crate::rights::{SIGNING_ANSWER, SIGNING_DELETE, SIGNINGS_LIST};

const APPROVED: &str = "AgreesWithRecord";

/// Whoever holds a token can send any number; those that are answered are deleted, and the next ones come into sight.
pub(crate) async fn raw(connection: &Connection) -> Result<Vec<CertificateSigningRequest>, Fault> {
    let api: Api<CertificateSigningRequest> = Api::all(connection.client());
    let mut all = Vec::new();
    for signer in [CLIENT_SIGNER, SERVING_SIGNER] {
        let params = ListParams::default().fields(&format!("spec.signerName={signer}"));
        all.extend(connection.list(&api, SIGNINGS_LIST, params, Longer::IsCut).await?);
    }
    Ok(all)
}

pub(crate) async fn list(connection: &Connection) -> Result<Vec<Signing>, Fault> {
    Ok(raw(connection).await?.into_iter().filter_map(read).collect())
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
    let api: Api<CertificateSigningRequest> = Api::all(connection.client());
    let params = PostParams::default();
    let call = api.replace_subresource("approval", &signing.name, &params, &body);
    connection.ask(&SIGNING_ANSWER.of(&signing.name), call).await.map(drop)
}

pub(crate) async fn delete(connection: &Connection, signing: &Signing) -> Result<(), Fault> {
    let api: Api<CertificateSigningRequest> = Api::all(connection.client());
    let this = Preconditions { uid: Some(signing.uid.clone()), resource_version: None };
    let params = DeleteParams::default().preconditions(this);
    // Another of the same name is there instead: this one is gone.
    match connection.ask(&SIGNING_DELETE.of(&signing.name), api.delete(&signing.name, &params)).await {
        Ok(_) | Err(Fault::NotFound { .. } | Fault::Conflict { .. }) => Ok(()),
        Err(fault) => Err(fault),
    }
}

fn read(csr: CertificateSigningRequest) -> Option<Signing> {
    let CertificateSigningRequest { metadata, spec, status } = csr;
    Some(Signing {
        name: metadata.name?,
        uid: metadata.uid?,
        resource_version: metadata.resource_version?,
        created: metadata.creation_timestamp.as_ref().map(timestamp),
        stage: stage(&status.unwrap_or_default()),
        request: Request {
            signer: spec.signer_name,
            username: spec.username.unwrap_or_default(),
            groups: spec.groups.unwrap_or_default().into_iter().collect(),
            usages: spec.usages.unwrap_or_default().into_iter().collect(),
            subject: subject(&spec.request.0),
        },
    })
}

fn stage(status: &CertificateSigningRequestStatus) -> Stage {
    let has = |kind: &str| status.conditions.iter().flatten().any(|condition| condition.type_ == kind);
    if has("Denied") {
        Stage::Denied
    } else if has("Failed") {
        Stage::Failed
    } else if status.certificate.as_ref().is_some_and(|certificate| !certificate.0.is_empty()) {
        Stage::Issued
    } else if has("Approved") {
        Stage::Approved
    } else {
        Stage::Open
    }
}

pub(crate) fn timestamp(time: &Time) -> Timestamp {
    Timestamp(time.0.as_microsecond())
}
