//! What is read of certificates: when they end, what their keys are pinned by.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use croft_core::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

const PEM_LINE: usize = 64;

/// Every certificate of a PEM text; nothing else that stands in it.
pub(crate) fn from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| format!("is not PEM: {error}"))?;
    if all.is_empty() {
        return Err("has no certificate in it".to_owned());
    }
    for der in &all {
        parse(der).ok_or_else(|| "has a certificate that cannot be read".to_owned())?;
    }
    Ok(all)
}

/// Written anew, so that what else stood in the text (a key, by mistake) goes nowhere.
pub(crate) fn to_pem<'a>(all: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut text = String::new();
    for der in all {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut rest = STANDARD.encode(der);
        while !rest.is_empty() {
            let tail = rest.split_off(rest.len().min(PEM_LINE));
            text.push_str(&rest);
            text.push('\n');
            rest = tail;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// `sha256:<hex>` of the public key, as `kubeadm join --discovery-token-ca-cert-hash` takes it.
pub(crate) fn pin(der: &[u8]) -> Option<String> {
    let key = parse(der)?.tbs_certificate.subject_pki.raw;
    Some(format!("sha256:{}", hex::encode(Sha256::digest(key))))
}

pub(crate) fn end(der: &[u8]) -> Option<Timestamp> {
    Some(seconds(parse(der)?.validity().not_after.timestamp()))
}

pub(crate) fn life(der: &[u8]) -> Option<Duration> {
    let certificate = parse(der)?;
    let (from, to) = (certificate.validity().not_before, certificate.validity().not_after);
    Some(seconds(to.timestamp()).since(seconds(from.timestamp())))
}

pub(crate) fn seconds(since_epoch: i64) -> Timestamp {
    Timestamp(since_epoch.saturating_mul(1_000_000))
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, certificate)| certificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_written_as_it_was_read_without_what_is_not_a_certificate() {
        let made = || rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let (one, two) = (made(), made());
        let text = format!("{}{}{}", one.cert.pem(), one.signing_key.serialize_pem(), two.cert.pem());
        let read = from_pem(text.as_bytes()).unwrap();
        assert_eq!(read, [one.cert.der().clone(), two.cert.der().clone()]);
        let written = to_pem(read.iter().map(AsRef::as_ref));
        assert_eq!(from_pem(written.as_bytes()).unwrap(), read);
        assert!(!written.contains("PRIVATE"));
        assert!(from_pem(one.signing_key.serialize_pem().as_bytes()).unwrap_err().contains("no certificate"));
    }

    #[test]
    fn a_pin_is_of_the_key_alone() {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = |name: &str| rcgen::CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
        let (one, two) = (pin(made("a").der()).unwrap(), pin(made("b").der()).unwrap());
        assert!(one == two && one.starts_with("sha256:") && one.len() == 71, "{one}");
        assert_eq!(pin(b"x"), None);
    }
}
