//! The keys of the plane: its CA, its own certificate, and the certificates of hosts.
//!
//! ```text
//!   Authority (ca.pem, ca.key; 10 years, or yours)
//!     ├── ServerCertificate (server.pem; 1 year, made again at two thirds of it, swapped under the listener)
//!     └── host certificates (30 days, client authentication only; the agent renews them)
//! ```
//! Nothing of a CSR is believed but its public key, and its common name only as a claim that the caller checks.
//! Refuses: to sign for a name that was not asked for, keys weaker than a P-256, a CA whose key is another's.

mod authority;
mod csr;
mod identity;
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use croft_core::Timestamp;
use ring::rand::SecureRandom;
use rustls::pki_types::CertificateDer;
use x509_parser::time::ASN1Time;

pub use authority::{Authority, AuthorityFiles};
pub use csr::Csr;
pub use identity::HostIdentity;
pub use server::{Names, ServerCertificate};

/// A verifier whose clock is a little behind ours must not take a new certificate for one of the future.
pub(crate) const SKEW: Duration = Duration::from_secs(5 * 60);
const DAY: Duration = Duration::from_secs(24 * 3600);
const CA_LIFE: Duration = DAY.saturating_mul(3652);
const SERVER_LIFE: Duration = DAY.saturating_mul(365);
pub const HOST_LIFE_DAYS: u32 = 30;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's fault: what is wrong with the CSR.
    #[error("{0}")]
    Csr(String),
    /// The operator's fault: a file that is not what it should be.
    #[error("{path}: {problem}")]
    File { path: String, problem: String },
    #[error("{0}")]
    Io(String),
    #[error("the certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// Outside of what X.509 can write down.
    #[error("the clock shows a time that no certificate can carry")]
    Time,
    #[error("the machine gives no random numbers")]
    Random,
}

impl Error {
    fn file(path: &std::path::Path, problem: impl Into<String>) -> Self {
        Self::File { path: path.display().to_string(), problem: problem.into() }
    }
}

impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        Self::Io(format!("{error:#}"))
    }
}

/// One provider for everything; nothing depends on a process-wide default, so that planes can share a process.
#[must_use]
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn seconds(at: Timestamp) -> i64 {
    at.0.div_euclid(1_000_000)
}

fn from_asn1(time: ASN1Time) -> Timestamp {
    Timestamp(time.timestamp().saturating_mul(1_000_000))
}

fn pem_of(certificate: &CertificateDer<'_>) -> String {
    let text = BASE64_STANDARD.encode(certificate);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Certificate parameters that run from a little before now for `life`, but not past `end`.
fn params(now: Timestamp, life: Duration, end: Option<Timestamp>) -> Result<rcgen::CertificateParams, Error> {
    let asn1 = |at: Timestamp| ASN1Time::from_timestamp(seconds(at)).map(|time| time.to_datetime());
    let not_after = end.map_or(now.plus(life), |end| end.min(now.plus(life)));
    let mut params = rcgen::CertificateParams::default();
    params.not_before = asn1(now.minus(SKEW)).map_err(|_| Error::Time)?;
    params.not_after = asn1(not_after).map_err(|_| Error::Time)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    // rcgen's own choice follows from the key, so a renewed certificate of the same key would repeat it.
    let mut serial = [0; 16];
    ring::rand::SystemRandom::new().fill(&mut serial).map_err(|_| Error::Random)?;
    serial[0] &= 0x7f;
    params.serial_number = Some(rcgen::SerialNumber::from_slice(&serial));
    Ok(params)
}
