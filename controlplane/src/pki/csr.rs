//! What a host's signing request says, once its signature was checked.

use croft_core::host;
use croft_core::id::HostId;
use croft_core::validate::is_dns_name;
use rcgen::{PublicKeyData, SubjectPublicKeyInfo};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::*;

use super::Error;

const SIZE_MAX: usize = 16 * 1024;

/// The two things that are taken over. Everything else that a CSR may ask for (names, usages, CA:TRUE) is not read.
#[derive(Debug, Clone)]
pub struct Csr {
    /// Its common name: who it says that it is.
    pub host: HostId,
    pub(super) public_key: SubjectPublicKeyInfo,
}

impl Csr {
    pub fn parse(pem: &str) -> Result<Self, Error> {
        let wrong = |problem: &str| Error::Csr(problem.to_owned());
        if pem.len() > SIZE_MAX {
            return Err(Error::Csr(format!("the CSR has {} bytes; at most {SIZE_MAX}", pem.len())));
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| Error::Csr(format!("not a certificate signing request in PEM: {error}")))?;
        let (rest, csr) = X509CertificationRequest::from_der(&der)
            .map_err(|error| Error::Csr(format!("not a certificate signing request: {error}")))?;
        if !rest.is_empty() {
            return Err(wrong("bytes after the end of the CSR"));
        }
        let info = &csr.certification_request_info;
        let public_key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw)
            .map_err(|error| Error::Csr(format!("the CSR's public key cannot be used: {error}")))?;
        let strong = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
        if !strong.contains(&public_key.algorithm()) {
            return Err(wrong("the CSR's key is none of ECDSA P-256, ECDSA P-384 and Ed25519"));
        }
        csr.verify_signature().map_err(|_| wrong("the CSR's signature is not by its own key"))?;
        let names: Vec<_> = info.subject.iter_common_name().collect();
        let [name] = names.as_slice() else {
            return Err(wrong("the CSR's subject must have one common name: the host's id"));
        };
        let name = name.as_str().map_err(|_| wrong("the CSR's common name is not text"))?;
        if !is_dns_name(name, host::ID_MAX) {
            return Err(Error::Csr(format!("the CSR's common name `{name}` is no host id: 1 to 63 of [a-z0-9.-]")));
        }
        Ok(Self { host: name.into(), public_key })
    }
}
