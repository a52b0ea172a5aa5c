use super::*;
use crate::id::InstanceUid;
use crate::instance::CloudInit;
use crate::time::Timestamp;

fn ticket() -> Ticket {
    let token = BootstrapToken {
        id: "abc123".to_owned(),
        secret: "0123456789abcdef".to_owned(),
        expires: Timestamp(0),
        description: String::new(),
    };
    Ticket {
        token,
        anchor: Anchor {
            server: "https://10.0.0.1:6443".to_owned(),
            ca: "-----BEGIN CERTIFICATE-----".to_owned(),
            ca_pins: vec!["sha256:00".to_owned()],
        },
        node_server: String::new(),
        cluster_dns: vec!["10.96.0.10".parse().unwrap(), "fd00::a".parse().unwrap()],
        node: "train-1-deadbeef".to_owned(),
        provider_id: "croft://acme/1".to_owned(),
        labels: [("zone".to_owned(), "b".to_owned()), ("empty".to_owned(), String::new())].into(),
        taints: vec![Taint { key: "gpu".to_owned(), value: "yes".to_owned(), effect: Effect::NoExecute }],
    }
}

fn seed() -> Seed {
    let uid = InstanceUid::parse("01890000-0000-7000-8000-000000000001").unwrap();
    Seed::compose(uid, "train-1", &CloudInit::default(), "#cloud-config\nruncmd: []\n")
}

#[test]
fn the_token_goes_in_and_comes_out_again_and_leaves_nothing() {
    let (mut seed, recipes) = (seed(), Recipes::built_in());
    let recipe = recipes.get("kubelet").unwrap();
    assert_eq!(token_of(&seed), None);
    equip(&mut seed, &ticket(), recipe);
    let equipped = seed.clone();
    assert_eq!(token_of(&seed), Some(("abc123".to_owned(), "0123456789abcdef".to_owned())));
    equip(&mut seed, &ticket(), recipe);
    assert_eq!(seed, equipped, "twice is once");
    strip(&mut seed);
    let left = String::from_utf8(seed.encode().0).unwrap();
    assert!(token_of(&seed).is_none() && !left.contains("0123456789abcdef") && !left.contains("abc123"), "{left}");
    assert_eq!(seed.meta_data, equipped.meta_data, "the guest is the same as before: its instance-id stays");
    assert_eq!(seed.files.get(PROGRAM), equipped.files.get(PROGRAM));
    equip(&mut seed, &ticket(), recipe);
    assert_eq!(seed, equipped);
}

#[test]
fn the_program_that_cloud_init_keeps_holds_no_secret() {
    let mut seed = seed();
    let recipes = Recipes::built_in();
    for recipe in recipes.names().filter_map(|name| recipes.get(name)) {
        equip(&mut seed, &ticket(), recipe);
        let program = &seed.files[PROGRAM];
        assert!(program.starts_with("#cloud-boothook\n#!/bin/sh\n"), "{program}");
        assert!(program.contains(recipe.text()) && !program.contains('@'), "{program}");
        assert!(!program.contains("0123456789abcdef") && !program.contains("abc123"));
        assert_eq!(seed.user_data, "#cloud-config\nruncmd: []\n", "the user's own is the user's");
    }
}

#[test]
fn a_ticket_is_what_a_shell_reads() {
    let text = ticket().shell();
    for line in [
        "CROFT_NODE_NAME='train-1-deadbeef'",
        "CROFT_SERVER='https://10.0.0.1:6443'",
        "CROFT_TOKEN='abc123.0123456789abcdef'",
        "CROFT_LABELS='empty=,zone=b'",
        "CROFT_TAINTS='croft.dev/uninitialised:NoSchedule,gpu=yes:NoExecute'",
        "CROFT_CLUSTER_DNS='10.96.0.10,fd00::a'",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    let elsewhere = Ticket { node_server: "https://api.example".to_owned(), ..ticket() };
    assert!(elsewhere.shell().contains("CROFT_SERVER='https://api.example'\n"));
    let hostile = Ticket { node: "a'; rm -rf /; '".to_owned(), ..ticket() };
    assert!(hostile.shell().contains(r"CROFT_NODE_NAME='a'\''; rm -rf /; '\'''"), "{}", hostile.shell());
}

#[test]
fn nobody_sees_the_token_by_accident() {
    assert!(!format!("{:?}", ticket()).contains("0123456789abcdef"));
}
