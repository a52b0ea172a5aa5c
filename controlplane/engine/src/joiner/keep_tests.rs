//! What is told of a machine to those who look at its Node.

use croft_core::Timestamp;
use croft_core::id::HostId;
use croft_core::instance::State;
use croft_core::join::machine::Phase;
use croft_core::join::tidings::{self, Tiding};
use croft_core::placement::Placement;

use super::*;
use crate::bed::joining;

const NOW: Timestamp = Timestamp(1_800_000_100_000_000);

fn joined() -> Instance {
    let mut instance = joining("web");
    instance.placement =
        Some(Placement { host: HostId("h1".to_owned()), pins: Vec::new(), devices: Vec::new(), parked: None });
    instance.status.state = State::Running;
    let node = instance.node.as_mut().unwrap();
    node.enter(Phase::Joined, NOW);
    instance
}

fn told(instance: &Instance) -> Option<(&'static str, String)> {
    tidings::of(instance, NOW).map(|Tiding { reason, message, .. }| (reason, message))
}

fn fails(state: State, reason: &str, message: &str) -> Instance {
    let mut instance = joined();
    let status = &mut instance.status;
    (status.state, status.reason, status.message) = (state, reason.to_owned(), message.to_owned());
    instance
}

#[test]
fn a_fault_of_the_machine_is_told_in_the_words_of_its_instance() {
    let said = |state, reason, message| told(&fails(state, reason, message));
    let name = "tenants/acme/instances/web";
    let failed = said(State::Failed, "DevicesFaulty", "gpu-0 fell off the bus");
    assert_eq!(failed, Some(("VmFailed", format!("{name}: DevicesFaulty: gpu-0 fell off the bus"))));
    assert_eq!(said(State::Unknown, "HOST_UNREACHABLE", "hosts/h1").unwrap().0, "VmUnknown");
    assert_eq!(said(State::Placing, "NO_CAPACITY", "no host has 2 vCPUs").unwrap().0, "VmNotPlaced");
    assert_eq!(said(State::Running, "OutOfSpace", "").unwrap(), ("VmTroubled", format!("{name}: OutOfSpace")));
    assert_eq!(said(State::Stopped, "GuestPoweredOff", "").unwrap().0, "VmOff");
    for (state, reason) in [
        (State::Running, ""),
        (State::Running, "RebootRequested"),
        (State::Placing, ""),
        (State::Stopping, "Draining"),
        (State::Deleting, "HOST_UNREACHABLE"),
    ] {
        assert_eq!(said(state, reason, ""), None, "{state:?} {reason}");
    }
}

#[test]
fn the_same_fault_with_other_numbers_is_told_once_and_another_one_anew() {
    let key = |reason, message| tidings::of(&fails(State::Starting, reason, message), NOW).unwrap().key;
    assert_eq!(key("RestartBackOff", "ended 2 times"), key("RestartBackOff", "ended 3 times"));
    assert_ne!(key("RestartBackOff", ""), key("StartFailed", ""));
}

#[test]
fn a_cluster_answers_or_is_away_without_a_gap() {
    let (mut watch, at) = (Watch::default(), |seconds| NOW.plus(std::time::Duration::from_secs(seconds)));
    assert_eq!(watch.answers_since(at(0)), at(0), "nobody has seen it yet");
    watch.answered(at(1));
    watch.answered(at(2));
    assert_eq!(watch.answers_since(at(3)), at(1));
    assert_eq!((watch.blind(at(4)), watch.blind(at(5))), (at(4), at(4)));
    assert_eq!(watch.answers_since(at(6)), at(6));
    watch.answered(at(7));
    assert_eq!(watch.blind(at(8)), at(8));
}

#[test]
fn a_fenced_host_and_a_restart_are_told_while_they_matter() {
    let mut instance = joined();
    instance.node.as_mut().unwrap().lose(NOW);
    assert_eq!(told(&instance).unwrap().0, "VmLost");
    let mut instance = joined();
    instance.node.as_mut().unwrap().repairs = vec![NOW];
    assert_eq!(told(&instance).unwrap().0, "VmRestarted");
    instance.node.as_mut().unwrap().is_ready(true, NOW);
    assert_eq!(told(&instance), None);
}
