//! What people read of a node: the condition `Joined`, and why it is not True. Each word has a page in
//! docs/errors.

use super::{Node, Phase, Step};
use crate::condition::{Condition, ConditionStatus};
use crate::error::Reason;
use crate::join::cluster::{Fault, Ready};
use crate::join::keep::HeldBack;

pub const JOINED: &str = "Joined";

pub const NODE_READY: &str = "NodeReady";
pub const TOKEN_PENDING: &str = "TokenPending";
pub const BOOTING: &str = "Booting";
pub const NODE_NOT_READY: &str = "NodeNotReady";
pub const NODE_NEVER_READY: &str = "NodeNeverReady";
pub const NODE_SILENT: &str = "NodeSilent";
pub const NODE_MISSING: &str = "NodeMissing";
pub const NODE_NAME_TAKEN: &str = "NodeNameTaken";
pub const GUEST_NOT_STARTED: &str = "GuestNotStarted";
pub const NO_CERTIFICATE_REQUEST: &str = "NoCertificateRequest";
pub const CERTIFICATE_DENIED: &str = "CertificateDenied";
pub const NODE_NOT_REGISTERED: &str = "NodeNotRegistered";
pub const MACHINE_OFF: &str = "MachineOff";
pub const DRAINING: &str = "Draining";
pub const DRAIN_BLOCKED: &str = "DrainBlocked";
pub const NODE_LEFT: &str = "NodeLeft";
pub const CLUSTER_REFUSED: &str = "ClusterRefused";
pub const RECIPE_MISSING: &str = "RecipeMissing";
pub const SEED_UNREADABLE: &str = "SeedUnreadable";
pub const GPU_RESOURCE_MISSING: &str = "GpuResourceMissing";

pub const ALL: &[&str] = &[
    NODE_READY,
    TOKEN_PENDING,
    BOOTING,
    NODE_NOT_READY,
    NODE_NEVER_READY,
    NODE_SILENT,
    NODE_MISSING,
    NODE_NAME_TAKEN,
    GUEST_NOT_STARTED,
    NO_CERTIFICATE_REQUEST,
    CERTIFICATE_DENIED,
    NODE_NOT_REGISTERED,
    MACHINE_OFF,
    DRAINING,
    DRAIN_BLOCKED,
    NODE_LEFT,
    CLUSTER_REFUSED,
    RECIPE_MISSING,
    SEED_UNREADABLE,
    GPU_RESOURCE_MISSING,
];

/// One word and one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub reason: &'static str,
    pub message: String,
}

impl Told {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

#[must_use]
pub fn condition(node: &Node) -> Condition {
    let silent = node.reason == NODE_SILENT || node.reason == Reason::ClusterUnreachable.as_str();
    let status = match (node.ready, node.phase) {
        (true, Phase::Joined) => ConditionStatus::True,
        (_, Phase::Joined) if silent => ConditionStatus::Unknown,
        _ => ConditionStatus::False,
    };
    let reason = if node.reason.is_empty() { usual(node) } else { &node.reason };
    Condition {
        kind: JOINED.to_owned(),
        status,
        reason: reason.to_owned(),
        message: message(node),
        last_transition_time: node.ready_time,
    }
}

/// What stands in the way, and why nothing is done about it.
#[must_use]
pub fn message(node: &Node) -> String {
    let held_back = node.held_back.map(HeldBack::words);
    [Some(node.message.clone()).filter(|said| !said.is_empty()), held_back]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("; ")
}

/// In a phase where nothing stands in the way.
fn usual(node: &Node) -> &'static str {
    match node.phase {
        Phase::Waiting => TOKEN_PENDING,
        Phase::Booting => BOOTING,
        Phase::Missed => missed(node, true).reason,
        Phase::Joined if node.ready => NODE_READY,
        Phase::Joined => NODE_NOT_READY,
        Phase::Leaving => DRAINING,
        Phase::Left => NODE_LEFT,
    }
}

/// The step at which a join that took too long stood.
#[must_use]
pub fn missed(node: &Node, started: bool) -> Told {
    let name = &node.name;
    let again = "stop and start the instance to try again";
    match &node.step {
        _ if !started => Told::new(GUEST_NOT_STARTED, format!("its host did not start it in time; {again}")),
        Step::Nothing => Told::new(
            NO_CERTIFICATE_REQUEST,
            format!("its kubelet never asked the cluster for a certificate: the guest's console log says why; {again}"),
        ),
        Step::Denied(why) => Told::new(CERTIFICATE_DENIED, format!("its kubelet's request was denied: {why}; {again}")),
        Step::Granted => Told::new(
            NODE_NOT_REGISTERED,
            format!(
                "its kubelet has a certificate, and made no Node {name}: the guest's console log says why; {again}"
            ),
        ),
    }
}

/// Of a Node that is there.
#[must_use]
pub fn not_ready(ready: &Ready) -> Option<Told> {
    match ready {
        Ready::Yes => None,
        Ready::No(words) if words.is_empty() => {
            Some(Told::new(NODE_NOT_READY, "its kubelet has not reported its state yet"))
        }
        Ready::No(words) => Some(Told::new(NODE_NOT_READY, format!("its kubelet says: {words}"))),
        Ready::Silent => Some(Told::new(NODE_SILENT, "the cluster does not hear from its kubelet")),
    }
}

#[must_use]
pub fn fault(fault: &Fault) -> Told {
    let reason = match fault {
        Fault::Refused { .. } | Fault::Conflict { .. } | Fault::NotFound { .. } => CLUSTER_REFUSED,
        Fault::Unreachable { .. }
        | Fault::Certificate { .. }
        | Fault::Unauthorized { .. }
        | Fault::Forbidden { .. }
        | Fault::Timeout { .. }
        | Fault::Busy { .. } => fault.reason().as_str(),
    };
    Told::new(reason, fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    #[test]
    fn joined_is_true_of_a_ready_node_alone() {
        let mut node = Node::new("n".into(), Phase::Waiting, Timestamp(1));
        assert_eq!(condition(&node).reason, TOKEN_PENDING);
        node.enter(Phase::Joined, Timestamp(2));
        assert_eq!(condition(&node).status, ConditionStatus::False);
        node.is_ready(true, Timestamp(3));
        let joined = condition(&node);
        assert_eq!((joined.status, joined.reason.as_str()), (ConditionStatus::True, NODE_READY));
        assert_eq!(joined.last_transition_time, Timestamp(3));
        node.is_ready(false, Timestamp(4));
        node.reason = NODE_SILENT.into();
        assert_eq!(condition(&node).status, ConditionStatus::Unknown);
        node.is_ready(true, Timestamp(5));
        node.enter(Phase::Leaving, Timestamp(6));
        assert_eq!((node.ready, condition(&node).status), (false, ConditionStatus::False));
    }

    #[test]
    fn a_missed_join_names_the_step_at_which_it_stood() {
        let mut node = Node::new("n".into(), Phase::Missed, Timestamp(1));
        assert_eq!(missed(&node, false).reason, GUEST_NOT_STARTED);
        assert_eq!(missed(&node, true).reason, NO_CERTIFICATE_REQUEST);
        node.step = Step::Denied("it names other".into());
        assert!(missed(&node, true).message.contains("it names other"));
        node.step = Step::Granted;
        assert_eq!(missed(&node, true).reason, NODE_NOT_REGISTERED);
    }
}
