//! Who this host is: its key, its certificate, and the only CA that it trusts.
//!
//! ```text
//! agent.key   made here, never leaves; stays the same when the certificate is renewed
//! agent.csr   what the plane was asked to sign; a lost answer is asked for again with the same
//! agent.pem   what it signed
//! ca.pem      who signed it, and signs the plane's own certificate
//! ```

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _};
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer as _;

use crate::clock::Wall;
use crate::durable;

const KEY: &str = "agent.key";
const CSR: &str = "agent.csr";
const CERTIFICATE: &str = "agent.pem";
const CA: &str = "ca.pem";

/// Everything that is needed to dial.
#[derive(Clone)]
pub struct Identity {
    pub host_id: String,
    pub key_pem: String,
    pub certificate_pem: String,
    pub ca_pem: String,
    pub validity: Validity,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("host_id", &self.host_id).field("validity", &self.validity).finish()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub from: Wall,
    pub until: Wall,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: can not be read: {source}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Write(#[from] durable::Error),
    #[error("{}: {fault}; {ADVICE}", path.display())]
    Unusable { path: PathBuf, fault: String },
    #[error("the certificate in {} is for another key than {KEY} beside it; {ADVICE}", path.display())]
    ForeignKey { path: PathBuf },
    #[error("the certificate in {} was not signed by {CA} beside it: it comes from another control plane; {ADVICE}", path.display())]
    ForeignCa { path: PathBuf },
    #[error(
        "this host's certificate ended at {until} (seconds since 1970; the clock here says {now}); if the clock is right, {ADVICE}"
    )]
    Expired { until: i64, now: i64 },
    #[error("{0:?} is no host id: 1 to 63 of [a-z0-9.-] are allowed")]
    HostId(String),
    #[error("a key or certificate request can not be made")]
    Make(#[from] rcgen::Error),
}

const ADVICE: &str =
    "ask an operator for a new token and run croft-hostagent enrol (instances go on running meanwhile)";

/// The key and the request for a certificate, on the disk before anybody is asked to sign.
#[derive(Clone)]
pub struct Request {
    pub key_pem: String,
    pub csr_pem: String,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Request")
    }
}

impl Identity {
    #[must_use]
    pub fn exists(state_dir: &Path) -> bool {
        state_dir.join(CERTIFICATE).exists()
    }

    /// Blocks.
    pub fn load(state_dir: &Path) -> Result<Self, Error> {
        let [key, certificate, ca] = [KEY, CERTIFICATE, CA].map(|name| read(&state_dir.join(name)));
        Self::assemble(state_dir, key?, certificate?, ca?)
    }

    /// Whether the pieces belong together is said before they are used, or kept.
    fn assemble(state_dir: &Path, key_pem: String, certificate_pem: String, ca_pem: String) -> Result<Self, Error> {
        let unusable = |name: &str, fault: String| Error::Unusable { path: state_dir.join(name), fault };
        let key = KeyPair::from_pem(&key_pem).map_err(|error| unusable(KEY, error.to_string()))?;
        let ca = Parsed::from_pem(&ca_pem).map_err(|fault| unusable(CA, fault))?;
        let certificate = Parsed::from_pem(&certificate_pem).map_err(|fault| unusable(CERTIFICATE, fault))?;
        if certificate.public_key != key.subject_public_key_info() {
            return Err(Error::ForeignKey { path: state_dir.join(CERTIFICATE) });
        }
        if certificate.issuer != ca.subject {
            return Err(Error::ForeignCa { path: state_dir.join(CERTIFICATE) });
        }
        let host_id = certificate.common_name.ok_or("names no host in its subject".to_owned());
        let host_id = host_id.map_err(|fault| unusable(CERTIFICATE, fault))?;
        Ok(Self { host_id, key_pem, certificate_pem, ca_pem, validity: certificate.validity })
    }

    /// An expired certificate is refused by the plane; better said before dialling.
    pub fn check(&self, now: Wall) -> Result<(), Error> {
        if now >= self.validity.until {
            return Err(Error::Expired { until: self.validity.until.0 / 1_000_000, now: now.0 / 1_000_000 });
        }
        Ok(())
    }

    /// Takes over what the plane signed. Blocks.
    pub fn store(state_dir: &Path, certificate_pem: &str, ca_pem: &str) -> Result<Self, Error> {
        let key_pem = read(&state_dir.join(KEY))?;
        let identity = Self::assemble(state_dir, key_pem, certificate_pem.to_owned(), ca_pem.to_owned())?;
        durable::write(&state_dir.join(CA), ca_pem.as_bytes())?;
        // Last: a certificate that is there has everything that belongs to it.
        durable::write(&state_dir.join(CERTIFICATE), certificate_pem.as_bytes())?;
        Ok(identity)
    }
}

impl Validity {
    /// Two thirds of a certificate's life leave a third to repair what keeps it from being renewed.
    #[must_use]
    pub fn is_due(&self, now: Wall) -> bool {
        now.since(self.from) >= self.until.since(self.from) / 3 * 2
    }
}

impl Request {
    /// The one on the disk, or a new one. Blocks.
    pub fn ensure(state_dir: &Path, host_id: &str) -> Result<Self, Error> {
        check_host_id(host_id)?;
        durable::private_directory(state_dir)?;
        let (key_path, csr_path) = (state_dir.join(KEY), state_dir.join(CSR));
        if !key_path.exists() {
            durable::write(&key_path, KeyPair::generate()?.serialize_pem().as_bytes())?;
        }
        let key_pem = read(&key_path)?;
        if let Ok(csr_pem) = read(&csr_path)
            && csr_is_for(&csr_pem, host_id, &key_pem)
        {
            return Ok(Self { key_pem, csr_pem });
        }
        let key = KeyPair::from_pem(&key_pem)
            .map_err(|error| Error::Unusable { path: key_path, fault: error.to_string() })?;
        let csr_pem = make_csr(&key, host_id)?;
        durable::write(&csr_path, csr_pem.as_bytes())?;
        Ok(Self { key_pem, csr_pem })
    }
}

fn make_csr(key: &KeyPair, host_id: &str) -> Result<String, Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, host_id);
    Ok(params.serialize_request(key)?.pem()?)
}

fn csr_is_for(csr_pem: &str, host_id: &str, key_pem: &str) -> bool {
    use x509_parser::certification_request::X509CertificationRequest;
    let Ok(key) = KeyPair::from_pem(key_pem) else { return false };
    let Ok((_, pem)) = parse_x509_pem(csr_pem.as_bytes()) else { return false };
    let Ok((_, csr)) = X509CertificationRequest::from_der(&pem.contents) else { return false };
    let info = &csr.certification_request_info;
    info.subject_pki.raw == key.subject_public_key_info()
        && info.subject.iter_common_name().any(|name| name.as_str() == Ok(host_id))
}

struct Parsed {
    common_name: Option<String>,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    public_key: Vec<u8>,
    validity: Validity,
}

impl Parsed {
    fn from_pem(pem: &str) -> Result<Self, String> {
        let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|error| format!("is no PEM certificate: {error}"))?;
        let (_, certificate) =
            X509Certificate::from_der(&pem.contents).map_err(|error| format!("is no certificate: {error}"))?;
        let micros = |seconds: i64| Wall(seconds.saturating_mul(1_000_000));
        Ok(Self {
            common_name: certificate
                .subject()
                .iter_common_name()
                .find_map(|name| name.as_str().ok())
                .map(str::to_owned),
            subject: certificate.subject().as_raw().to_vec(),
            issuer: certificate.issuer().as_raw().to_vec(),
            public_key: certificate.public_key().raw.to_vec(),
            validity: Validity {
                from: micros(certificate.validity().not_before.timestamp()),
                until: micros(certificate.validity().not_after.timestamp()),
            },
        })
    }
}

/// The same rule as the plane's.
pub fn check_host_id(id: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.' || byte == b'-';
    if (1..=63).contains(&id.len()) && id.bytes().all(allowed) { Ok(()) } else { Err(Error::HostId(id.to_owned())) }
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
