//! The plane's own certificate: kept over restarts, made again before it ends, swapped while connections come in.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use croft_core::Timestamp;
use rcgen::{DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::*;

use super::{Authority, Error, SERVER_LIFE, from_asn1, params, pem_of, provider};
use crate::files;

/// Under which names clients reach the plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(BTreeSet<String>);

impl Names {
    /// Loopback is always among them: the CLI and the agent on the same machine.
    pub fn new(public: &[String]) -> Result<Self, Error> {
        let mut names: BTreeSet<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
        for name in public {
            let name = name.trim().to_ascii_lowercase();
            ServerName::try_from(name.as_str()).map_err(|_| {
                Error::Io(format!("--public-name `{name}` is neither a DNS name nor an address (leave the port away)"))
            })?;
            names.insert(name.parse::<IpAddr>().map_or(name, |address| address.to_string()));
        }
        Ok(Self(names))
    }

    fn of(certificate: &X509Certificate<'_>) -> Option<Self> {
        let names = certificate.subject_alternative_name().ok()??;
        let names = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
                Ok(v4) => Some(IpAddr::from(v4).to_string()),
                Err(_) => <[u8; 16]>::try_from(*bytes).ok().map(|v6| IpAddr::from(v6).to_string()),
            },
            _ => None,
        });
        Some(Self(names.collect()))
    }
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Current {
    /// In its last third, or of a future that a clock set back made of the past.
    fn is_due(&self, now: Timestamp) -> bool {
        let life = self.not_after.since(self.not_before);
        now < self.not_before || now >= self.not_before.plus(life * 2 / 3)
    }
}

/// Hands out the newest certificate to every handshake.
#[derive(Debug)]
pub struct ServerCertificate {
    authority: Arc<Authority>,
    names: Names,
    path: PathBuf,
    current: RwLock<Current>,
}

impl ServerCertificate {
    /// Takes what is in `path` if it still serves: same CA, same names, not in its last third.
    pub fn open(authority: Arc<Authority>, names: Names, path: PathBuf) -> Result<Self, Error> {
        let kept = match files::read(&path)? {
            Some(pem) => load(&pem, &authority, &names).filter(|kept| !kept.is_due(authority.now())),
            None => None,
        };
        let current = match kept {
            Some(kept) => kept,
            None => make(&authority, &names, &path)?,
        };
        Ok(Self { authority, names, path, current: RwLock::new(current) })
    }

    /// Whether a new one was made. Cheap when nothing is due.
    pub fn renew_if_due(&self) -> Result<bool, Error> {
        if !self.read().is_due(self.authority.now()) {
            return Ok(false);
        }
        let renewed = make(&self.authority, &self.names, &self.path)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        Ok(true)
    }

    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.read().not_after
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Current> {
        // Replaced in one assignment: whole whatever panicked.
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for ServerCertificate {
    /// One certificate for every name: who asks for an unknown one sees what it is and refuses it.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.read().key.clone())
    }
}

/// `None` for whatever is no reason to stop: a damaged or foreign file is made again.
fn load(pem: &[u8], authority: &Authority, names: &Names) -> Option<Current> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    let key = PrivateKeyDer::from_pem_slice(pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
    if !authority.signed(&certificate) || Names::of(&certificate)? != *names {
        return None;
    }
    let validity = certificate.validity();
    let (not_before, not_after) = (from_asn1(validity.not_before), from_asn1(validity.not_after));
    let key = CertifiedKey::from_der(chain, key, &provider()).ok()?;
    Some(Current { key: Arc::new(key), not_before, not_after })
}

/// Chain and key are one file, so that a crash cannot leave two that do not belong together.
fn make(authority: &Authority, names: &Names, path: &std::path::Path) -> Result<Current, Error> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = params(authority.now(), SERVER_LIFE, Some(authority.not_after()))?;
    params.distinguished_name.push(DnType::CommonName, "croft-controlplane");
    for name in &names.0 {
        params.subject_alt_names.push(match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, authority.issuer())?;
    let mut pem = certificate.pem();
    if let Some(issuer) = authority.chain() {
        pem.push_str(&pem_of(issuer));
    }
    pem.push_str(&key.serialize_pem());
    files::write(path, pem.as_bytes(), files::SECRET)?;
    load(pem.as_bytes(), authority, names)
        .ok_or_else(|| Error::Io("the server certificate just made does not verify".to_owned()))
}
