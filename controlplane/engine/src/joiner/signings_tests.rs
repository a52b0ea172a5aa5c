use croft_core::Timestamp;
use croft_core::instance::{Address, Observed, Phase as GuestPhase};
use croft_core::join::machine::Token;

use super::*;
use crate::bed::joining;

fn seen(addresses: &[(&str, bool)]) -> Observed {
    let address = |(ip, leased): &(&str, bool)| Address {
        ip: (*ip).to_owned(),
        mac: "02:00:00:00:00:01".to_owned(),
        source: "guest-agent".to_owned(),
        leased: *leased,
    };
    Observed {
        generation: 1,
        phase: GuestPhase::Running,
        reason: String::new(),
        message: String::new(),
        conditions: Vec::new(),
        addresses: addresses.iter().map(address).collect(),
        exit: None,
        start_time: None,
        restart_count: 0,
        power_generation: 1,
        reboot_generation: 0,
        reset_generation: 0,
        disk_generation: 0,
        attached_devices: Vec::new(),
        released_devices: Vec::new(),
    }
}

fn at(phase: Phase) -> Instance {
    let mut instance = joining("web");
    let node = instance.node.as_mut().unwrap();
    node.enter(phase, Timestamp(5));
    instance
}

#[test]
fn only_addresses_that_the_host_gave_are_a_record() {
    let mut instance = at(Phase::Joined);
    instance.status.observed = Some(seen(&[("10.201.0.7", true), ("10.96.0.1", false)]));
    let record = record_of(Some(&instance));
    assert_eq!(record.addresses, [IpAddr::from([10, 201, 0, 7])].into());
    assert_eq!(record.node, instance.node.unwrap().name);
}

#[test]
fn who_is_about_to_go_is_granted_nothing() {
    for (phase, standing) in [
        (Phase::Waiting, Standing::Gone),
        (Phase::Booting, Standing::Booting),
        (Phase::Missed, Standing::Joined),
        (Phase::Joined, Standing::Joined),
        (Phase::Leaving, Standing::Gone),
        (Phase::Left, Standing::Gone),
    ] {
        assert_eq!(record_of(Some(&at(phase))).standing, standing, "{phase:?}");
    }
    assert_eq!(record_of(None).standing, Standing::Gone);
}

#[test]
fn a_request_belongs_to_the_machine_of_its_token_or_name_and_to_nobody_else() {
    let mut instance = at(Phase::Booting);
    let node = instance.node.as_mut().unwrap();
    node.token = Some(Token { id: "abcdef".into(), expire_time: Timestamp(9) });
    let name = node.name.clone();
    let instances = [instance];
    let whose = |username: &str, groups: &[&str], there: &[&str]| {
        let request = croft_core::join::csr::Request {
            signer: String::new(),
            username: username.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            usages: BTreeSet::new(),
            subject: None,
        };
        let there: BTreeSet<String> = there.iter().map(|name| (*name).to_owned()).collect();
        match owner(&there, &instances, &request) {
            Owner::Of(_) => "his",
            Owner::Nobody => "nobody's",
            Owner::Foreign => "foreign",
        }
    };
    assert_eq!(whose("system:bootstrap:abcdef", &[BOOTSTRAP_GROUP], &[]), "his");
    assert_eq!(whose(&format!("system:node:{name}"), &[], &[&name]), "his");
    assert_eq!(whose("system:bootstrap:zzzzzz", &[BOOTSTRAP_GROUP], &[]), "nobody's", "the group is Croft's");
    assert_eq!(whose("system:bootstrap:zzzzzz", &["system:bootstrappers:kubeadm"], &[]), "foreign");
    assert_eq!(whose("system:node:web-0badcafe", &[], &[]), "nobody's", "its machine was deleted");
    assert_eq!(whose("system:node:web-0badcafe", &[], &["web-0badcafe"]), "foreign", "such a node is there");
    assert_eq!(whose("system:node:worker-1", &[], &[]), "foreign");
    assert_eq!(whose("admin", &[BOOTSTRAP_GROUP], &[]), "foreign");
}

#[test]
fn what_a_tenant_writes_stays_on_one_line() {
    assert_eq!(clip("a\nb\u{1b}[31m"), "a b [31m");
    assert_eq!(clip(&"x".repeat(1000)).len(), WORDS);
}
