use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateSigningRequestParams, CertifiedIssuer, IsCa};

use super::*;

fn ca(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("params");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("ca")
}

fn sign(ca: &CertifiedIssuer<'static, KeyPair>, csr_pem: &str) -> String {
    CertificateSigningRequestParams::from_pem(csr_pem).expect("csr").signed_by(ca).expect("signed").pem()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").permissions().mode() & 0o777
}

#[test]
fn a_request_stays_the_same_until_it_is_for_another_host() {
    let dir = tempfile::tempdir().expect("tempdir");
    let first = Request::ensure(dir.path(), "h1").expect("first");
    let again = Request::ensure(dir.path(), "h1").expect("again");
    assert_eq!(first.csr_pem, again.csr_pem, "a lost answer is asked for again with the same request");
    assert_eq!(mode(&dir.path().join(KEY)), 0o600);
    let other = Request::ensure(dir.path(), "h2").expect("other");
    assert_ne!(first.csr_pem, other.csr_pem);
    assert_eq!(first.key_pem, other.key_pem);
}

#[test]
fn what_was_signed_is_kept_and_says_who_this_is() {
    let dir = tempfile::tempdir().expect("tempdir");
    let ca = ca("plane");
    let request = Request::ensure(dir.path(), "h1").expect("request");
    assert!(!Identity::exists(dir.path()));
    let identity = Identity::store(dir.path(), &sign(&ca, &request.csr_pem), &ca.pem()).expect("store");
    assert_eq!(identity.host_id, "h1");
    assert_eq!(Identity::load(dir.path()).expect("load").certificate_pem, identity.certificate_pem);
    assert_eq!(mode(&dir.path().join(CERTIFICATE)), 0o600);
}

#[test]
fn a_certificate_for_another_key_or_from_another_plane_is_refused_and_not_kept() {
    let (dir, elsewhere) = (tempfile::tempdir().expect("tempdir"), tempfile::tempdir().expect("tempdir"));
    let (ours, theirs) = (ca("plane"), ca("another plane"));
    let request = Request::ensure(dir.path(), "h1").expect("request");
    let other = Request::ensure(elsewhere.path(), "h1").expect("other");
    Identity::store(dir.path(), &sign(&ours, &request.csr_pem), &ours.pem()).expect("good");

    let foreign_key = Identity::store(dir.path(), &sign(&ours, &other.csr_pem), &ours.pem());
    assert!(matches!(foreign_key, Err(Error::ForeignKey { .. })), "{foreign_key:?}");
    let foreign_ca = Identity::store(dir.path(), &sign(&theirs, &request.csr_pem), &ours.pem());
    assert!(matches!(foreign_ca, Err(Error::ForeignCa { .. })), "{foreign_ca:?}");
    assert!(foreign_ca.expect_err("refused").to_string().contains("croft-hostagent enrol"));
    Identity::load(dir.path()).expect("the good one is still there");
}

#[test]
fn renewal_is_due_at_two_thirds_whatever_the_clock_does() {
    let day = 24 * 3600 * 1_000_000;
    let validity = Validity { from: Wall(0), until: Wall(30 * day) };
    assert!(!validity.is_due(Wall(-day)), "a clock that is behind");
    assert!(!validity.is_due(Wall(19 * day)));
    assert!(validity.is_due(Wall(20 * day)));
    assert!(validity.is_due(Wall(40 * day)), "a clock that jumped ahead: the plane decides by its own");
}

#[test]
fn host_ids_follow_the_rule() {
    for good in ["h1", "gpu-07.rack3.example", &"a".repeat(63)] {
        check_host_id(good).expect(good);
    }
    for bad in ["", "H1", "a b", "a/b", &"a".repeat(64)] {
        assert!(check_host_id(bad).is_err(), "{bad}");
    }
}
