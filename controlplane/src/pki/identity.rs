//! Which host a verified certificate speaks for.

use croft_core::Timestamp;
use croft_core::id::HostId;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::*;

use super::from_asn1;

const SCHEME: &str = "croft://hosts/";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostIdentity {
    pub host: HostId,
    /// Of the host's row: a host that was deleted and enrolled again is another one.
    pub uid: String,
    pub not_after: Timestamp,
}

/// The URI under which a host's identity is in its certificate.
pub(super) fn uri(host: &HostId, uid: &str) -> String {
    format!("{SCHEME}{host}/{uid}")
}

impl HostIdentity {
    /// `None` for a certificate that is no host's: with a CA of your own, others may carry its signature too.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(SCHEME),
            _ => None,
        });
        let (Some(path), None) = (uris.next(), uris.next()) else { return None };
        let (host, uid) = path.split_once('/')?;
        let common_name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
        (common_name == host && !uid.is_empty() && !uid.contains('/')).then(|| Self {
            host: host.into(),
            uid: uid.to_owned(),
            not_after: from_asn1(certificate.validity().not_after),
        })
    }
}
