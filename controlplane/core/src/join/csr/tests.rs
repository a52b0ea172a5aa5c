//! Each attack beside the honest request that it was made from.

use super::*;

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn record(standing: Standing) -> Record {
    Record { node: "train-1-deadbeef".to_owned(), addresses: [ip("10.201.0.7")].into(), standing }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn subject() -> Subject {
    Subject {
        common_names: vec!["system:node:train-1-deadbeef".to_owned()],
        organizations: vec!["system:nodes".to_owned()],
        ..Subject::default()
    }
}

fn first() -> Request {
    Request {
        signer: CLIENT_SIGNER.to_owned(),
        username: "system:bootstrap:abcdef".to_owned(),
        groups: set(&["system:bootstrappers", BOOTSTRAP_GROUP, "system:authenticated"]),
        usages: set(&["digital signature", "client auth"]),
        subject: Some(subject()),
    }
}

fn renewal() -> Request {
    Request {
        username: "system:node:train-1-deadbeef".to_owned(),
        groups: set(&["system:nodes", "system:authenticated"]),
        ..first()
    }
}

fn serving() -> Request {
    let subject = Subject { dns: set(&["train-1-deadbeef"]), ips: [ip("10.201.0.7")].into(), ..subject() };
    Request {
        signer: SERVING_SIGNER.to_owned(),
        usages: set(&["digital signature", "server auth"]),
        subject: Some(subject),
        ..renewal()
    }
}

fn with(mut request: Request, change: impl FnOnce(&mut Request)) -> Request {
    change(&mut request);
    request
}

fn asking(request: Request, change: impl FnOnce(&mut Subject)) -> Request {
    with(request, |request| change(request.subject.as_mut().unwrap()))
}

#[test]
fn what_a_kubelet_asks_in_its_life_is_granted() {
    assert_eq!(judge(&first(), &record(Standing::Booting)), Ok(()));
    // Power was lost before it stored its certificate: the same again, with a new key.
    assert_eq!(judge(&first(), &record(Standing::Booting)), Ok(()));
    for standing in [Standing::Booting, Standing::Joined] {
        assert_eq!(judge(&renewal(), &record(standing)), Ok(()));
        assert_eq!(judge(&serving(), &record(standing)), Ok(()));
    }
    let rsa = with(serving(), |request| _ = request.usages.insert("key encipherment".to_owned()));
    assert_eq!(judge(&rsa, &record(Standing::Joined)), Ok(()));
}

#[test]
fn every_attack_is_denied_by_its_own_word() {
    use Standing::{Booting, Gone, Joined};
    let other = "system:node:other-0badcafe".to_owned();
    let attacks = [
        (
            "a second name on the same token",
            asking(first(), |s| s.common_names = vec![other.clone()]),
            Booting,
            "WrongName",
        ),
        ("two names", asking(first(), |s| s.common_names.push(other.clone())), Booting, "WrongName"),
        ("no name", asking(first(), |s| s.common_names.clear()), Booting, "WrongName"),
        ("a token used after the join", first(), Joined, "AlreadyJoined"),
        ("a serving certificate by token", with(serving(), |r| r.username = first().username), Booting, "WrongSigner"),
        (
            "another group of bootstrappers",
            with(first(), |r| r.groups = set(&["system:bootstrappers"])),
            Booting,
            "WrongGroup",
        ),
        (
            "a user named like a node",
            with(renewal(), |r| r.groups = set(&["system:authenticated"])),
            Joined,
            "WrongGroup",
        ),
        ("another node asks for this one", with(renewal(), |r| r.username = other.clone()), Joined, "WrongName"),
        ("masters", asking(first(), |s| s.organizations = vec!["system:masters".into()]), Booting, "WrongOrganization"),
        (
            "masters too",
            asking(first(), |s| s.organizations.push("system:masters".into())),
            Booting,
            "WrongOrganization",
        ),
        (
            "something else in the subject",
            asking(first(), |s| s.others.push("OU=x".into())),
            Booting,
            "SubjectNotAllowed",
        ),
        (
            "a client that may serve",
            with(first(), |r| _ = r.usages.insert("server auth".into())),
            Booting,
            "WrongUsage",
        ),
        ("a CA", with(first(), |r| _ = r.usages.insert("cert sign".into())), Booting, "WrongUsage"),
        ("no use", with(first(), |r| r.usages = set(&["digital signature"])), Booting, "WrongUsage"),
        ("a client with a name to serve", asking(first(), |s| s.dns = set(&["kubernetes"])), Booting, "WrongSan"),
        (
            "the API server's name",
            asking(serving(), |s| _ = s.dns.insert("kubernetes.default.svc".into())),
            Joined,
            "WrongSan",
        ),
        ("the API server's address", asking(serving(), |s| _ = s.ips.insert(ip("10.96.0.1"))), Joined, "WrongSan"),
        ("a URI", asking(serving(), |s| s.other_names.push("spiffe://x".into())), Joined, "WrongSan"),
        ("nothing to serve", asking(serving(), |s| (s.dns, s.ips) = Default::default()), Joined, "WrongSan"),
        (
            "another signer",
            with(first(), |r| r.signer = "kubernetes.io/kube-apiserver-client".into()),
            Booting,
            "WrongSigner",
        ),
        ("an extension", asking(first(), |s| s.extensions.push("2.5.29.19".into())), Booting, "ExtensionNotAllowed"),
        ("garbage", with(first(), |r| r.subject = None), Booting, "Unreadable"),
        ("a machine that is gone", renewal(), Gone, "InstanceGone"),
        ("its token", first(), Gone, "InstanceGone"),
    ];
    for (attack, request, standing, reason) in attacks {
        let denial = judge(&request, &record(standing)).expect_err(attack);
        assert_eq!(denial.reason(), reason, "{attack}: {denial}");
    }
}

#[test]
fn who_asks_is_told_by_the_username_alone() {
    assert_eq!(first().asker(), Asker::Token("abcdef"));
    assert_eq!(serving().asker(), Asker::Node("train-1-deadbeef"));
    assert_eq!(with(first(), |request| request.username = "admin".to_owned()).asker(), Asker::Other);
}
