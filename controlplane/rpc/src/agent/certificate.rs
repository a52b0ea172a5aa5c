//! Certificate requests: whom they name, and RenewCertificate, which makes a new certificate of an enrolled host out of
//! one, before the old certificate ends.

use croft_core::audit::AuditEntry;
use croft_core::id::HostId;
use croft_core::validate::is_dns_name;
use croft_core::{Error, Result, host};
use croft_proto::agent::v1::{RenewCertificateRequest, RenewCertificateResponse};
use tonic::Code;
use x509_parser::prelude::{FromDer as _, X509CertificationRequest};

use crate::api::Api;
use crate::caller::Caller;
use crate::mutation::{append, audit_entry};
use crate::status::status;

const CSR_MAX: usize = 16 * 1024;

/// The common name of the subject. Whether the requester holds the key is for the signer to check.
pub fn host_of(csr_pem: &str) -> Result<HostId> {
    let wrong = |why: &str| Error::invalid("csr_pem", why);
    if csr_pem.len() > CSR_MAX {
        return Err(wrong("larger than any certificate request of a host"));
    }
    let (_, pem) = x509_parser::pem::parse_x509_pem(csr_pem.as_bytes())
        .map_err(|_| wrong("not a PEM block `CERTIFICATE REQUEST`"))?;
    let (_, csr) =
        X509CertificationRequest::from_der(&pem.contents).map_err(|_| wrong("not a certificate request (PKCS#10)"))?;
    let mut names = csr.certification_request_info.subject.iter_common_name();
    match (names.next().and_then(|name| name.as_str().ok()), names.next()) {
        (Some(name), None) if is_dns_name(name, host::ID_MAX) => Ok(name.into()),
        _ => Err(wrong("its subject's common name must be the host id")),
    }
}

pub async fn renew(
    api: &Api,
    caller: Caller,
    host: HostId,
    request: RenewCertificateRequest,
) -> Result<RenewCertificateResponse> {
    let result = sign(api, &host, &request.csr_pem).await;
    let entry = match &result {
        Ok(_) => audit_entry(api, &caller, Code::Ok, ""),
        Err(error) => audit_entry(api, &caller, status(error.clone()).code(), &error.to_string()),
    };
    append(api, AuditEntry { target: format!("hosts/{host}"), ..entry }).await;
    result
}

async fn sign(api: &Api, host: &HostId, csr_pem: &str) -> Result<RenewCertificateResponse> {
    let named = host_of(csr_pem)?;
    if named != *host {
        return Err(Error::invalid("csr_pem", format!("names {named}, and hosts/{host} asks")));
    }
    let uid = api.store().host_get(host).await?.ok_or_else(|| Error::not_found(format!("hosts/{host}")))?.meta.uid;
    let certificate_pem = api.deps.signer.sign_host(csr_pem, host, &uid)?;
    Ok(RenewCertificateResponse { certificate_pem, ca_pem: api.deps.signer.ca_pem() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csr(names: &[&str]) -> String {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in names {
            params.distinguished_name.push(rcgen::DnType::CommonName, *name);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    #[test]
    fn a_request_names_one_host() {
        assert_eq!(host_of(&csr(&["h1.example.org"])), Ok("h1.example.org".into()));
        for wrong in [csr(&[]), csr(&["Host One"]), csr(&["../h1"]), String::new(), "x".repeat(20_000)] {
            let error = host_of(&wrong).unwrap_err().to_string();
            assert!(error.starts_with("csr_pem: "), "{error}");
        }
        let garbage = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
        assert!(host_of(garbage).is_err());
    }
}
