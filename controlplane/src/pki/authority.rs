//! The CA: who it is, and what else is trusted.
//!
//! The certificate file may hold several certificates. The one whose key is in the key file issues; all of them are
//! trusted. That is how a CA is replaced without a day on which somebody is locked out (docs/operations.md).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use croft_core::id::HostId;
use croft_core::{Clock, Timestamp};
use rcgen::{DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::*;

use super::{CA_LIFE, Csr, DAY, Error, from_asn1, identity, params, pem_of};
use crate::files;

/// Where the CA is kept.
#[derive(Debug, Clone)]
pub struct AuthorityFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Ours is made when it is missing; yours must be there.
    pub make: bool,
}

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// What clients and agents trust: the issuer, then the others.
    bundle_pem: String,
    bundle: Vec<CertificateDer<'static>>,
    not_after: Timestamp,
    host_life: std::time::Duration,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("trusted", &self.bundle.len()).field("not_after", &self.not_after).finish()
    }
}

impl Authority {
    /// Makes what is missing. A key without its certificate gets a new one: the same name and key verify everything
    /// that the lost one did. A certificate without its key is an error, because nothing can make that key again.
    pub fn open(files: &AuthorityFiles, host_days: u32, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let AuthorityFiles { certificate, key, make } = files;
        let (bundle, key_pem) = (read(certificate)?, read(key)?);
        let (bundle_pem, key_pem) = match (bundle, key_pem) {
            (Some(bundle), Some(key)) => (bundle, key),
            (None, key_pem) if *make => make_authority(certificate, key, key_pem, clock.now())?,
            (None, _) => return Err(Error::file(certificate, "no such file, and your own CA is not made for you")),
            (Some(_), None) => {
                return Err(Error::file(
                    key,
                    "the CA's key is missing; restore it from the backup, or move the certificate away too to begin \
                     with a new CA (every host must enrol again)",
                ));
            }
        };
        Self::load(certificate, key, bundle_pem, &key_pem, host_days, clock)
    }

    fn load(
        path: &Path,
        key_path: &Path,
        bundle_pem: String,
        key_pem: &str,
        host_days: u32,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let key = KeyPair::from_pem(key_pem)
            .map_err(|error| Error::file(key_path, format!("not a private key in PKCS#8 PEM: {error}")))?;
        let bundle = CertificateDer::pem_slice_iter(bundle_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::file(path, format!("not certificates in PEM: {error}")))?;
        let mut found = None;
        for der in &bundle {
            let (_, certificate) = X509Certificate::from_der(der)
                .map_err(|error| Error::file(path, format!("holds something that is no certificate: {error}")))?;
            if !certificate.is_ca() {
                let subject = certificate.subject();
                return Err(Error::file(path, format!("`{subject}` is not a CA's certificate (CA:TRUE is missing)")));
            }
            if certificate.public_key().subject_public_key.data.as_ref() == key.public_key_raw() {
                found = Some((der.clone(), from_asn1(certificate.validity().not_after)));
            }
        }
        let (certificate, not_after) = found.ok_or_else(|| {
            Error::file(path, format!("none of its {} certificates belongs to {}", bundle.len(), key_path.display()))
        })?;
        if not_after <= clock.now() {
            return Err(Error::file(
                path,
                "the CA's certificate has expired; docs/operations.md says how to replace it",
            ));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        // Whoever looks at one certificate only looks at the first.
        let others = bundle.iter().filter(|other| **other != certificate);
        let bundle_pem = std::iter::once(&certificate).chain(others).map(pem_of).collect();
        let host_life = DAY.saturating_mul(host_days);
        Ok(Self { issuer, certificate, bundle_pem, bundle, not_after, host_life, clock })
    }

    /// What agents and clients trust, as PEM.
    #[must_use]
    pub fn bundle_pem(&self) -> &str {
        &self.bundle_pem
    }

    /// What this plane trusts.
    pub fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in &self.bundle {
            roots.add(certificate.clone())?;
        }
        Ok(roots)
    }

    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// A certificate for the host that `csr` speaks for. The caller has made sure that this is who asks.
    pub fn sign_host(&self, csr: &Csr, host: &HostId, uid: &str) -> Result<String, Error> {
        if csr.host != *host {
            return Err(Error::Csr(format!("the CSR is for `{}`, not for `{host}`", csr.host)));
        }
        let mut params = params(self.clock.now(), self.host_life, Some(self.not_after))?;
        params.distinguished_name.push(DnType::CommonName, host.as_str());
        params.subject_alt_names = vec![SanType::URI(identity::uri(host, uid).try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params.signed_by(&csr.public_key, &self.issuer)?.pem())
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// Goes along in the handshake unless everybody has it as a root anyway.
    pub(super) fn chain(&self) -> Option<&CertificateDer<'static>> {
        let (_, certificate) = X509Certificate::from_der(&self.certificate).ok()?;
        (certificate.subject() != certificate.issuer()).then_some(&self.certificate)
    }

    /// Whether `certificate` was signed by the key that signs now.
    pub(super) fn signed(&self, certificate: &X509Certificate<'_>) -> bool {
        X509Certificate::from_der(&self.certificate)
            .is_ok_and(|(_, own)| certificate.verify_signature(Some(own.public_key())).is_ok())
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    let contents = files::read(path)?;
    contents.map(|bytes| String::from_utf8(bytes).map_err(|_| Error::file(path, "not text"))).transpose()
}

/// The key is on disk before its certificate: a crash between leaves what the next start completes.
fn make_authority(
    certificate: &Path,
    key_path: &Path,
    key_pem: Option<String>,
    now: Timestamp,
) -> Result<(String, String), Error> {
    let key = match &key_pem {
        Some(pem) => KeyPair::from_pem(pem)
            .map_err(|error| Error::file(key_path, format!("not a private key in PKCS#8 PEM: {error}")))?,
        None => {
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
            files::write(key_path, key.serialize_pem().as_bytes(), files::SECRET)?;
            key
        }
    };
    let mut params = params(now, CA_LIFE, None)?;
    params.distinguished_name.push(DnType::OrganizationName, "Croft");
    params.distinguished_name.push(DnType::CommonName, "Croft control plane CA");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let pem = params.self_signed(&key)?.pem();
    files::write(certificate, pem.as_bytes(), files::PUBLIC)?;
    Ok((pem, key.serialize_pem()))
}
