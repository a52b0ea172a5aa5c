//! Certificate authorities, and what they issue.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// A certificate authority. Its certificates never expire.
#[derive(Debug)]
pub struct Authority {
    pub certificate_pem: String,
    pub key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, both PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = subject(name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate_pem = params.self_signed(&key).expect("a self-signed certificate").pem();
        Self { certificate_pem, key_pem: key.serialize_pem(), issuer: Issuer::new(params, key) }
    }

    /// For a server that is reached under these names and addresses.
    pub fn server(&self, name: &str, reached_as: &[String]) -> Identity {
        let mut params = CertificateParams::new(reached_as.to_vec()).expect("names and addresses");
        params.distinguished_name = subject(name, None).distinguished_name;
        self.issue(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// For a client, who is this user and of this group.
    pub fn client(&self, user: &str, group: Option<&str>) -> Identity {
        self.issue(subject(user, group), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// One that says what it likes of its holder and of its time.
    pub fn issue(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Identity {
        let key = KeyPair::generate().expect("a key");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() }
    }
}

/// Kubernetes reads the user in CN and the group in O.
pub(crate) fn subject(common_name: &str, organisation: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    if let Some(organisation) = organisation {
        params.distinguished_name.push(DnType::OrganizationName, organisation);
    }
    params
}
