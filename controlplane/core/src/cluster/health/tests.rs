use std::time::Duration;

use super::*;

fn anchor() -> Anchor {
    Anchor { server: "https://a:6443".to_owned(), ca: String::new(), ca_pins: vec!["sha256:1".to_owned()] }
}

fn probe() -> Probe {
    Probe {
        version: "v1.36.3".to_owned(),
        serving_expires: Some(Timestamp(10)),
        ca_expires: Some(Timestamp(20)),
        credential_expires: None,
        missing: Vec::new(),
        policies: Policies::Installed,
        certificate_life: Some(Duration::from_secs(24 * 3600)),
        identity: None,
    }
}

fn right(verb: &'static str) -> Right {
    Right { verb, group: "", resource: "nodes", namespace: None, name: None }
}

fn seen(before: &Status, result: Result<&Probe, &Fault>, now: i64) -> Status {
    observed(before, &anchor(), result, Timestamp(now))
}

fn told(status: &Status, kind: Kind) -> (ConditionStatus, &str, i64) {
    let condition = status.condition(kind).unwrap();
    (condition.status, condition.reason.as_str(), condition.last_transition_time.0)
}

fn names<'a>(turned: impl Iterator<Item = &'a Condition>) -> Vec<String> {
    turned.map(|condition| condition.kind.clone()).collect()
}

#[test]
fn a_good_cluster_has_every_condition_true_and_in_its_place() {
    let status = seen(&Status::default(), Ok(&probe()), 5);
    let kinds: Vec<_> = status.conditions.iter().map(|condition| condition.kind.as_str()).collect();
    assert_eq!(kinds, Kind::ALL.map(Kind::as_str));
    assert!(status.conditions.iter().all(|condition| condition.status == ConditionStatus::True));
    assert_eq!((status.server.as_str(), status.version.as_str()), ("https://a:6443", "v1.36.3"));
    assert_eq!((status.answer_time, status.ca_expire_time), (Some(Timestamp(5)), Some(Timestamp(20))));
    assert_eq!(names(turned(&Status::default(), &status)), [""; 0]);
}

#[test]
fn what_stays_keeps_its_time_and_what_turns_is_told_once() {
    let good = seen(&Status::default(), Ok(&probe()), 5);
    let away = Fault::Unreachable { server: "https://a:6443".to_owned(), why: "refused".to_owned() };
    let lost = seen(&good, Err(&away), 6);
    assert_eq!(told(&lost, Kind::Reachable), (ConditionStatus::False, "CLUSTER_UNREACHABLE", 6));
    assert_eq!(told(&lost, Kind::RightsSufficient), (ConditionStatus::True, "", 5), "not seen is not gone");
    assert_eq!((lost.answer_time, lost.version.as_str()), (Some(Timestamp(5)), "v1.36.3"));
    assert_eq!(names(turned(&good, &lost)), ["Reachable"]);
    let still = seen(&lost, Err(&away), 7);
    assert_eq!(told(&still, Kind::Reachable).2, 6);
    assert_eq!(names(turned(&lost, &still)), [""; 0]);
    assert_eq!(names(turned(&still, &seen(&still, Ok(&probe()), 8))), ["Reachable"]);
}

#[test]
fn a_refusal_is_an_answer() {
    let good = seen(&Status::default(), Ok(&probe()), 5);
    let server = || "https://a:6443".to_owned();
    let unknown = seen(&good, Err(&Fault::Unauthorized { server: server(), expires: None }), 6);
    assert_eq!(told(&unknown, Kind::Reachable), (ConditionStatus::True, "", 5));
    assert_eq!(told(&unknown, Kind::CredentialValid), (ConditionStatus::False, "CLUSTER_CREDENTIAL_REFUSED", 6));
    let forbidden = seen(&good, Err(&Fault::Forbidden { server: server(), right: right("list") }), 6);
    assert_eq!(told(&forbidden, Kind::RightsSufficient).1, "CLUSTER_RIGHTS_MISSING");
    let other_ca = seen(&good, Err(&Fault::Certificate { server: server(), why: "x".to_owned() }), 6);
    assert_eq!(told(&other_ca, Kind::Reachable).1, "CLUSTER_CERTIFICATE_REFUSED");
    assert_eq!(other_ca.answer_time, Some(Timestamp(5)), "nothing of it can be believed");
}

#[test]
fn what_is_missing_is_named_and_a_long_list_is_cut() {
    let missing: Vec<Right> = ["get", "list", "patch", "delete", "a", "b", "c", "d", "e", "f"].map(right).into();
    let lacking = Policies::Lacking(vec!["ValidatingAdmissionPolicy croft-nodes is missing".to_owned()]);
    let poor = Probe { missing, policies: lacking, ..probe() };
    let status = seen(&Status::default(), Ok(&poor), 5);
    let rights = &status.condition(Kind::RightsSufficient).unwrap().message;
    assert!(rights.contains("get nodes, list nodes") && rights.contains("and 2 more"), "{rights}");
    let policies = status.condition(Kind::PoliciesInstalled).unwrap();
    assert!(policies.message.starts_with("ValidatingAdmissionPolicy croft-nodes is missing"), "{policies:?}");
    assert_eq!(names(turned(&Status::default(), &status)), ["RightsSufficient", "PoliciesInstalled"]);
}

#[test]
fn how_long_certificates_live_is_kept_when_the_cluster_has_forgotten_it() {
    let quiet = Probe { certificate_life: None, ..probe() };
    let unknown = seen(&Status::default(), Ok(&quiet), 5);
    assert_eq!(told(&unknown, Kind::CertificatesShortLived).0, ConditionStatus::Unknown);
    let year = Probe { certificate_life: Some(Duration::from_secs(365 * 86_400)), ..probe() };
    let long = seen(&unknown, Ok(&year), 6);
    assert_eq!(told(&long, Kind::CertificatesShortLived).1, "CLUSTER_CERTIFICATES_LONG_LIVED");
    assert!(long.condition(Kind::CertificatesShortLived).unwrap().message.contains("8760 h"));
    assert_eq!(seen(&long, Ok(&quiet), 7).conditions, long.conditions);
}

#[test]
fn a_first_look_that_fails_says_nothing_of_the_rest() {
    let fault = Fault::Timeout { server: "s".to_owned(), doing: "x".to_owned(), after: Duration::from_secs(8) };
    let status = seen(&Status::default(), Err(&fault), 5);
    assert_eq!(told(&status, Kind::PoliciesInstalled), (ConditionStatus::Unknown, "", 5));
    assert_eq!(names(turned(&Status::default(), &status)), ["Reachable"]);
}
