//! Enrol: spends a one-time token and signs a CSR. The store does both in one transaction, keeps the certificate for a
//! caller whose answer was lost, and writes the audit row of either outcome.

use croft_core::{Error, Reason, Result};
use croft_proto::agent::v1::{EnrolRequest, EnrolResponse};
use sha2::{Digest as _, Sha256};
use tonic::Request;

use super::certificate::host_of;
use crate::api::Api;
use crate::caller::Caller;
use crate::random;

pub async fn enrol(api: &Api, request: Request<EnrolRequest>) -> Result<EnrolResponse> {
    let caller = Caller::of(&request)?;
    let EnrolRequest { token, csr_pem } = request.into_inner();
    api.enrolments.check(&caller.peer)?;
    let result = spend(api, &caller, &token, csr_pem).await;
    if result.is_err() {
        api.enrolments.note(&caller.peer);
    }
    result
}

async fn spend(api: &Api, caller: &Caller, token: &str, csr_pem: String) -> Result<EnrolResponse> {
    let host = host_of(&csr_pem)?;
    if !random::is_enrolment_token(token) {
        let message = "the enrolment token is not one of ours; was it cut when copied?".to_owned();
        return Err(Error::Unauthenticated { reason: Reason::EnrolmentTokenInvalid, message });
    }
    let token_sha256: [u8; 32] = Sha256::digest(token).into();
    let csr_sha256: [u8; 32] = Sha256::digest(&csr_pem).into();
    let (signer, named) = (api.deps.signer.clone(), host.clone());
    let sign = move |uid: &str| signer.sign_host(&csr_pem, &named, uid);
    let certificate_pem = api.store().host_enrol(&caller.peer, &host, token_sha256, csr_sha256, sign).await?;
    api.deps.wake.hosts();
    Ok(EnrolResponse { host_id: host.to_string(), certificate_pem, ca_pem: api.deps.signer.ca_pem() })
}
