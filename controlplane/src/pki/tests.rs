use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use croft_core::id::HostId;
use croft_core::time::ManualClock;
use croft_core::{Clock, Timestamp};
use rcgen::{CertificateParams, DnType, IsCa, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

struct Setup {
    directory: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

impl Setup {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), clock: Arc::new(ManualClock::at(NOW)) }
    }

    fn files(&self) -> AuthorityFiles {
        let at = |name| self.directory.path().join(name);
        AuthorityFiles { certificate: at("ca.pem"), key: at("ca.key"), make: true }
    }

    fn open(&self) -> Result<Arc<Authority>, Error> {
        Authority::open(&self.files(), HOST_LIFE_DAYS, self.clock.clone()).map(Arc::new)
    }

    fn server(&self, names: &[&str]) -> ServerCertificate {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let path = self.directory.path().join("server.pem");
        ServerCertificate::open(self.open().unwrap(), Names::new(&names).unwrap(), path).unwrap()
    }

    fn server_pem(&self) -> Vec<u8> {
        std::fs::read(self.directory.path().join("server.pem")).unwrap()
    }
}

fn csr_params(host: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, host);
    params
}

fn csr(host: &str) -> String {
    csr_params(host).serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_ca_is_made_once_and_its_key_is_for_the_owner_alone() {
    let setup = Setup::new();
    let first = setup.open().unwrap().bundle_pem().to_owned();
    assert_eq!(setup.open().unwrap().bundle_pem(), first);
    assert_eq!(mode(&setup.files().key), 0o600);
    assert_eq!(mode(&setup.files().certificate), 0o644);
}

#[test]
fn a_crash_between_key_and_certificate_is_mended_and_a_lost_key_is_told() {
    let setup = Setup::new();
    let identity = {
        let authority = setup.open().unwrap();
        authority.sign_host(&Csr::parse(&csr("h1")).unwrap(), &"h1".into(), "u").unwrap()
    };
    std::fs::remove_file(setup.files().certificate).unwrap();
    let again = setup.open().unwrap();
    // What was signed before still verifies.
    let der = CertificateDer::from_pem_slice(identity.as_bytes()).unwrap();
    assert!(again.signed(&X509Certificate::from_der(&der).unwrap().1));

    std::fs::remove_file(setup.files().key).unwrap();
    let error = setup.open().unwrap_err().to_string();
    assert!(error.contains("ca.key") && error.contains("backup"), "{error}");
}

#[test]
fn a_host_certificate_says_who_and_for_how_long_and_can_do_nothing_else() {
    let setup = Setup::new();
    let authority = setup.open().unwrap();
    let host = HostId::from("h1");
    let pem = authority.sign_host(&Csr::parse(&csr("h1")).unwrap(), &host, "uid-1").unwrap();
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let identity = HostIdentity::of(&der).unwrap();
    let not_after = NOW.plus(Duration::from_secs(30 * 24 * 3600));
    assert_eq!(identity, HostIdentity { host, uid: "uid-1".into(), not_after });

    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let usage = certificate.extended_key_usage().unwrap().unwrap().value.clone();
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    assert!(!certificate.is_ca());
    assert_eq!(from_asn1(certificate.validity().not_before), NOW.minus(SKEW));
}

#[test]
fn two_certificates_of_one_key_have_two_serial_numbers() {
    let setup = Setup::new();
    let (authority, csr) = (setup.open().unwrap(), Csr::parse(&csr("h1")).unwrap());
    let serial = || {
        let pem = authority.sign_host(&csr, &"h1".into(), "u").unwrap();
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        X509Certificate::from_der(&der).unwrap().1.raw_serial().to_vec()
    };
    assert_ne!(serial(), serial());
}

#[test]
fn nothing_that_a_csr_asks_for_is_granted_but_its_key() {
    let setup = Setup::new();
    let mut greedy = csr_params("h1");
    greedy.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    greedy.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    greedy.subject_alt_names = vec![SanType::URI("croft://hosts/h2/other".try_into().unwrap())];
    greedy.distinguished_name.push(DnType::OrganizationName, "admins");
    let pem = greedy.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let signed = setup.open().unwrap().sign_host(&Csr::parse(&pem).unwrap(), &"h1".into(), "u1").unwrap();
    let der = CertificateDer::from_pem_slice(signed.as_bytes()).unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    assert!(!certificate.is_ca());
    assert_eq!(certificate.subject().to_string(), "CN=h1");
    assert!(!certificate.extended_key_usage().unwrap().unwrap().value.server_auth);
    assert_eq!(HostIdentity::of(&der).unwrap().host, "h1".into());
}

#[test]
fn a_csr_for_another_host_is_not_signed() {
    let setup = Setup::new();
    let error = setup.open().unwrap().sign_host(&Csr::parse(&csr("h2")).unwrap(), &"h1".into(), "u").unwrap_err();
    assert!(matches!(&error, Error::Csr(why) if why.contains("`h2`") && why.contains("`h1`")), "{error}");
}

#[test]
fn a_csr_that_was_tampered_with_is_refused() {
    let der = csr_params("h1").serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
    let pem = |der: &[u8]| pem_of(&der.to_vec().into()).replace("CERTIFICATE", "CERTIFICATE REQUEST");
    assert!(Csr::parse(&pem(&der)).is_ok());
    // Every byte of what is signed, and of the signature's numbers at the end.
    let signed = X509CertificationRequest::from_der(&der).unwrap().1.certification_request_info.raw.len();
    for at in (0..3 + signed).chain(der.len() - 64..der.len()) {
        let mut tampered = der.clone();
        tampered[at] ^= 0x01;
        assert!(Csr::parse(&pem(&tampered)).is_err(), "byte {at} can be changed");
    }
    let mut longer = der.clone();
    longer.push(0);
    assert!(Csr::parse(&pem(&longer)).is_err());
}

#[test]
fn what_is_no_csr_is_refused_in_words() {
    for (pem, word) in [
        ("", "PEM"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "signing request"),
        (csr("H1").as_str(), "no host id"),
        (csr("../h1").as_str(), "no host id"),
        (csr(&"h".repeat(64)).as_str(), "no host id"),
    ] {
        let error = Csr::parse(pem).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    assert!(Csr::parse(&"x".repeat(20_000)).unwrap_err().to_string().contains("at most"));
    let mut nameless = CertificateParams::default();
    nameless.distinguished_name = rcgen::DistinguishedName::new();
    let pem = nameless.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    assert!(Csr::parse(&pem).unwrap_err().to_string().contains("one common name"));
}

#[test]
fn a_certificate_of_the_same_ca_that_is_no_hosts_has_no_identity() {
    let setup = Setup::new();
    setup.server(&[]);
    let server = CertificateDer::from_pem_slice(&setup.server_pem()).unwrap();
    assert_eq!(HostIdentity::of(&server), None);
    // Common name and URI disagree.
    let mut odd = csr_params("h1");
    odd.subject_alt_names = vec![SanType::URI("croft://hosts/h2/u".try_into().unwrap())];
    let odd = odd.self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert_eq!(HostIdentity::of(odd.der()), None);
}

#[test]
fn the_server_certificate_survives_a_restart_and_follows_its_names() {
    let setup = Setup::new();
    setup.server(&["croft.example.org"]);
    let first = setup.server_pem();
    setup.server(&["croft.example.org"]);
    assert_eq!(setup.server_pem(), first);
    setup.server(&["croft.example.org", "10.0.0.1", "2001:db8:0::1"]);
    let second = setup.server_pem();
    assert_ne!(second, first);
    setup.server(&["2001:DB8::1", "10.0.0.1", "croft.example.org"]);
    assert_eq!(setup.server_pem(), second, "the same names in another order and spelling");
    assert_eq!(mode(&setup.directory.path().join("server.pem")), 0o600);
    assert!(Names::new(&["croft.example.org:7443".into()]).unwrap_err().to_string().contains("port"));
}

#[test]
fn the_server_certificate_is_swapped_in_its_last_third_and_after_a_clock_set_back() {
    let setup = Setup::new();
    let server = setup.server(&[]);
    let first = server.not_after();
    setup.clock.advance(DAY * 243);
    assert!(!server.renew_if_due().unwrap());
    setup.clock.advance(DAY);
    assert!(server.renew_if_due().unwrap());
    assert!(server.not_after() > first);
    assert!(!server.renew_if_due().unwrap());

    let earlier = Setup { directory: setup.directory, clock: Arc::new(ManualClock::at(NOW.minus(DAY))) };
    let server = earlier.server(&[]);
    assert!(server.not_after() < first.plus(DAY), "the one of the future was not kept");
}

#[test]
fn a_damaged_or_foreign_server_certificate_is_made_again() {
    let setup = Setup::new();
    setup.server(&[]);
    let path = setup.directory.path().join("server.pem");
    std::fs::write(&path, "rubbish").unwrap();
    setup.server(&[]);
    let ours = setup.server_pem();
    let other = Setup::new();
    other.server(&[]);
    std::fs::write(&path, other.server_pem()).unwrap();
    setup.server(&[]);
    assert_ne!(setup.server_pem(), ours);
    assert_ne!(setup.server_pem(), other.server_pem());
}

#[test]
fn your_own_ca_is_used_and_checked() {
    let setup = Setup::new();
    let files = AuthorityFiles { make: false, ..setup.files() };
    let open = || Authority::open(&files, 30, setup.clock.clone());
    assert!(open().unwrap_err().to_string().contains("ca.pem"));

    // An intermediate below a root: both in the file, the intermediate's key beside it.
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut root = params(NOW, CA_LIFE, None).unwrap();
    root.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    root.distinguished_name.push(DnType::CommonName, "Root");
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(root, root_key);
    let mut middle = params(NOW, DAY * 400, None).unwrap();
    middle.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    middle.distinguished_name.push(DnType::CommonName, "Croft of Example Ltd");
    let middle_pem = middle.signed_by(&key, &issuer).unwrap().pem();
    std::fs::write(&files.certificate, format!("{root_pem}{middle_pem}")).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();

    let authority = Arc::new(open().unwrap());
    assert_eq!(authority.not_after(), NOW.plus(DAY * 400));
    let path = setup.directory.path().join("server.pem");
    ServerCertificate::open(authority.clone(), Names::new(&[]).unwrap(), path).unwrap();
    assert_eq!(CertificateDer::pem_slice_iter(&setup.server_pem()).count(), 2, "the intermediate goes along");

    std::fs::write(&files.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(open().unwrap_err().to_string().contains("none of its 2 certificates belongs to"));
    let leaf = csr_params("leaf").self_signed(&key).unwrap().pem();
    std::fs::write(&files.certificate, leaf).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    assert!(open().unwrap_err().to_string().contains("not a CA's certificate"));
}

/// As docs/operations.md tells it: trusted first, then issuing, then alone.
#[test]
fn a_ca_is_replaced_without_a_day_on_which_somebody_is_locked_out() {
    let (setup, next) = (Setup::new(), Setup::new());
    let signed = |authority: &Authority| {
        let pem = authority.sign_host(&Csr::parse(&csr("h1")).unwrap(), &"h1".into(), "u").unwrap();
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    };
    let trusts = |authority: &Authority, certificate: &CertificateDer<'_>| {
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(authority.roots().unwrap().into(), provider());
        let now = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_micros(NOW.0.try_into().unwrap()));
        verifier.build().unwrap().verify_client_cert(certificate, &[], now).is_ok()
    };
    let (old, new) = (setup.open().unwrap().bundle_pem().to_owned(), next.open().unwrap().bundle_pem().to_owned());
    let by_old = signed(&setup.open().unwrap());
    std::fs::write(setup.files().certificate, format!("{old}{new}")).unwrap();
    let both = setup.open().unwrap();
    assert_eq!(both.bundle_pem(), format!("{old}{new}"));
    assert!(trusts(&both, &signed(&both)));

    std::fs::copy(next.files().key, setup.files().key).unwrap();
    let switched = setup.open().unwrap();
    assert_eq!(switched.bundle_pem(), format!("{new}{old}"), "the issuer comes first");
    let by_new = signed(&switched);
    assert!(trusts(&switched, &by_old) && trusts(&switched, &by_new) && trusts(&both, &by_new));

    std::fs::write(setup.files().certificate, &new).unwrap();
    let alone = setup.open().unwrap();
    assert!(trusts(&alone, &by_new) && !trusts(&alone, &by_old));
}

#[test]
fn an_expired_ca_stops_the_start_and_nothing_outlives_its_ca() {
    let setup = Setup::new();
    setup.open().unwrap();
    setup.clock.advance(CA_LIFE - DAY);
    let authority = setup.open().unwrap();
    let pem = authority.sign_host(&Csr::parse(&csr("h1")).unwrap(), &"h1".into(), "u").unwrap();
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    assert_eq!(HostIdentity::of(&der).unwrap().not_after, authority.not_after());
    setup.clock.advance(DAY);
    assert!(setup.open().unwrap_err().to_string().contains("expired"));
    assert!(setup.clock.now() >= authority.not_after());
}
