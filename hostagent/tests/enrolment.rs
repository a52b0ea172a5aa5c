//! From a one-time token to a session over mutual TLS, and what an operator reads when it goes wrong.

mod fake;

use std::path::Path;
use std::sync::Arc;

use croft_hostagent::clock::Clock;
use croft_hostagent::enrol::{Error, Invitation, enrol};
use croft_hostagent::host_report::Source;
use croft_hostagent::hypervisor::simulated::{Capacity, Simulated};
use croft_hostagent::identity::{self, Identity};
use croft_hostagent::link::{Connect as _, ConnectError, MutualTls};
use croft_hostagent::{Agent, Config};
use fake::eventually;
use fake::plane::Plane;
use fake::tls::Ca;

fn crypto() {
    // A second test in this process finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn invitation(directory: &Path, ca: &Ca, server: &str) -> Invitation {
    let ca_file = directory.join("plane-ca.pem");
    std::fs::write(&ca_file, ca.pem()).expect("ca file");
    Invitation { server: server.to_owned(), ca_file, token: "once".to_owned(), host_id: "h1".to_owned() }
}

#[tokio::test]
async fn a_token_is_spent_once_and_a_lost_answer_is_asked_for_again() {
    crypto();
    let (dir, other) = (tempfile::tempdir().expect("tempdir"), tempfile::tempdir().expect("tempdir"));
    let ca = Ca::new("the plane's CA");
    let server = ca.serve(&Plane::new(), "h1", "once").await.to_string();
    let invitation = invitation(dir.path(), &ca, &server);
    let state = dir.path().join("state");
    let first = enrol(&invitation, &state).await.expect("enrolled");
    assert_eq!(first.host_id, "h1");
    // The answer was lost on the way: the key and the request are still there.
    std::fs::remove_file(state.join("agent.pem")).expect("lost");
    let again = enrol(&invitation, &state).await.expect("enrolled again");
    assert_eq!(again.key_pem, first.key_pem);

    let error = enrol(&invitation, &other.path().join("state")).await.expect_err("replayed");
    assert!(matches!(error, Error::Token { .. }), "{error}");
    assert!(error.to_string().contains("was used"), "{error}");
}

#[tokio::test]
async fn a_plane_of_another_ca_is_not_told_the_token() {
    crypto();
    let dir = tempfile::tempdir().expect("tempdir");
    let (ours, theirs) = (Ca::new("the plane's CA"), Ca::new("another CA"));
    let server = theirs.serve(&Plane::new(), "h1", "once").await.to_string();
    let error = enrol(&invitation(dir.path(), &ours, &server), &dir.path().join("state")).await.expect_err("refused");
    assert!(error.to_string().contains("not from the CA"), "{error}");
}

#[tokio::test]
async fn a_session_over_mutual_tls_renews_the_certificate_and_uses_it() {
    crypto();
    let dir = tempfile::tempdir().expect("tempdir");
    let (plane, ca) = (Plane::new(), Ca::new("the plane's CA"));
    let server = ca.serve(&plane, "h1", "once").await.to_string();
    let state = dir.path().join("state");
    let old = enrol(&invitation(dir.path(), &ca, &server), &state).await.expect("enrolled");

    let capacity = Capacity::default();
    let simulated = Simulated::open(dir.path().join("simulated"), capacity.clone()).expect("simulated");
    let connect = Arc::new(MutualTls { server, state_dir: state.clone() });
    let mut config = Config::new(&state, connect, Source::Fixed(Box::new(capacity.observation())));
    config.renew = Some(state.clone());
    // The certificate is past two thirds of its life by the wall clock of this machine; timers stand still otherwise.
    config.clock = Clock::manual(Clock::system().wall().0);
    let clock = config.clock.clone();
    let agent = Agent::spawn(config, simulated).await.expect("agent");
    let renewed = eventually("renewed", async || {
        clock.advance(std::time::Duration::from_secs(1));
        let now = Identity::load(&state).expect("identity");
        if now.validity.until > old.validity.until { Ok(now) } else { Err("not yet".to_owned()) }
    })
    .await;
    assert_eq!((renewed.host_id, renewed.key_pem), (old.host_id, old.key_pem));
    plane.cut();
    eventually("another session", async || {
        clock.advance(std::time::Duration::from_secs(1));
        match plane.lock().hellos.len() {
            2.. => Ok(()),
            count => Err(count.to_string()),
        }
    })
    .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_foreign_or_expired_certificate_is_explained() {
    crypto();
    let dir = tempfile::tempdir().expect("tempdir");
    let (ours, theirs) = (Ca::new("the plane's CA"), Ca::new("another CA"));
    let server = theirs.serve(&Plane::new(), "h1", "once").await.to_string();
    let state = dir.path().join("state");
    let request = identity::Request::ensure(&state, "h1").expect("request");
    Identity::store(&state, &ours.sign(&request.csr_pem, 2020, 2021), &ours.pem()).expect("stored");
    let dial = || MutualTls { server: server.clone(), state_dir: state.clone() };
    match dial().connect().await {
        Err(ConnectError::Refused(why)) => assert!(why.contains("not from the CA"), "{why}"),
        other => panic!("{other:?}"),
    }

    let expired = Identity::load(&state).expect("identity").check(Clock::system().wall()).expect_err("expired");
    assert!(expired.to_string().contains("croft-hostagent enrol"), "{expired}");
    std::fs::remove_file(state.join("agent.key")).expect("remove");
    match dial().connect().await {
        Err(ConnectError::Refused(why)) => assert!(why.contains("agent.key"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_that_the_plane_does_not_take_is_explained() {
    crypto();
    let dir = tempfile::tempdir().expect("tempdir");
    let (plane, theirs, ours) = (Plane::new(), Ca::new("the plane's CA"), Ca::new("another CA"));
    let server = theirs.serve(&plane, "h1", "once").await.to_string();
    let state = dir.path().join("state");
    let request = identity::Request::ensure(&state, "h1").expect("request");
    Identity::store(&state, &ours.sign(&request.csr_pem, 2020, 2090), &ours.pem()).expect("stored");
    // It trusts the plane, and the plane does not trust it.
    std::fs::write(state.join("ca.pem"), [ours.pem(), theirs.pem()].concat()).expect("both");

    let capacity = Capacity::default();
    let simulated = Simulated::open(dir.path().join("simulated"), capacity.clone()).expect("simulated");
    let connect = Arc::new(MutualTls { server, state_dir: state.clone() });
    let config = Config::new(&state, connect, Source::Fixed(Box::new(capacity.observation())));
    let mut agent = Agent::spawn(config, simulated).await.expect("agent");
    let why = tokio::time::timeout(std::time::Duration::from_secs(30), agent.refused()).await.expect("refused");
    assert!(why.contains("another control plane") || why.contains("refused"), "{why}");
}
