//! What people read of an instance for which nothing can be done now.

use std::time::Duration;

use croft_core::Result;
use croft_core::event::Severity;
use croft_core::instance::Instance;
use croft_core::join::cluster::{Fault, Node as Live, Ready};
use croft_core::join::keep::HeldBack;
use croft_core::join::machine::told::{self, Told};
use croft_core::join::machine::{Guest, JOIN_DEADLINE, Node, Phase, Step};
use croft_store::event::reason;
use croft_store::{NodeNews, NodeStep};

use super::enter::ours;
use super::look::Look;
use super::pass::On;
use super::task::{Outcome, Task};
use super::{Problem, dress, record};

/// A kubelet asks for the certificate that it serves with when it has registered, and `kubectl logs` waits for it.
const SERVES_WITHIN: Duration = Duration::from_secs(120);

impl Task {
    pub(super) async fn tell(
        &mut self,
        on: &On,
        instance: &Instance,
        look: &Look,
        waits: Option<Told>,
        trouble: Option<&Fault>,
    ) -> Result<Outcome, Problem> {
        let node = record(instance)?;
        let guest = Guest::of(instance);
        let there = look.there.as_ref().filter(|there| ours(instance, there));
        let ready = node.phase == Phase::Joined && there.is_some_and(|there| there.ready == Ready::Yes);
        let mut after = node.clone();
        after.is_ready(ready, self.now());
        after.held_back = self.watch.held_back(instance.uid).filter(|_| !ready);
        after.tiding = self.tidings(on.handle.as_ref(), instance, there).await?;
        let told = waits.or_else(|| self.stands(instance, &after, guest, there, trouble));
        let outcome = moves(&after, guest, look, self.now().since(after.phase_time));
        if node.phase != Phase::Missed {
            (after.reason, after.message) = said(told);
        }
        self.write(instance, after).await?;
        Ok(outcome)
    }

    /// The same, where there was no look at the cluster.
    pub(super) async fn say(&self, instance: &Instance, told: &Told) -> Result<()> {
        let mut after = record(instance)?.clone();
        (after.reason, after.message) = said(Some(told.clone()));
        self.write(instance, after).await
    }

    async fn write(&self, instance: &Instance, after: Node) -> Result<()> {
        let node = record(instance)?;
        if after == *node {
            return Ok(());
        }
        let news = news(node, &after);
        // Where somebody else was here, the next pass tells.
        self.step(NodeStep { uid: instance.uid, before: node.clone(), after, seed: None, news }).await.map(drop)
    }

    /// What stands in the way of a node for which the machine has nothing to do.
    fn stands(
        &self,
        instance: &Instance,
        node: &Node,
        guest: Guest,
        there: Option<&Live>,
        trouble: Option<&Fault>,
    ) -> Option<Told> {
        match (node.phase, there) {
            (Phase::Booting, _) => match (&node.step, trouble) {
                (Step::Denied(why), _) => Some(Told::new(told::CERTIFICATE_DENIED, why.clone())),
                (_, Some(fault)) => Some(told::fault(fault)),
                _ => None,
            },
            (Phase::Joined, None) => Some(Told::new(
                told::NODE_MISSING,
                format!(
                    "somebody deleted node {} in the cluster; stop and start the instance to join again",
                    node.name
                ),
            )),
            (Phase::Joined, Some(_)) if guest.off => Some(Told::new(
                told::MACHINE_OFF,
                "its machine is off: the node is out of service, and its pods go elsewhere",
            )),
            (Phase::Joined, Some(there)) => match told::not_ready(&there.ready) {
                Some(told) => Some(self.never(node, told)),
                None => dress::uninitialised(instance, there),
            },
            (Phase::Waiting | Phase::Missed | Phase::Leaving | Phase::Left, _) => None,
        }
    }

    /// One that was not Ready once in all the time that a join may take.
    fn never(&self, node: &Node, told: Told) -> Told {
        let was_ready = node.ready_time > node.phase_time;
        if was_ready || self.now().since(node.phase_time) <= JOIN_DEADLINE {
            return told;
        }
        Told::new(
            told::NODE_NEVER_READY,
            format!("not Ready {} min after it registered: {}", JOIN_DEADLINE.as_secs() / 60, told.message),
        )
    }
}

/// Whether the next pass should be soon.
fn moves(node: &Node, guest: Guest, look: &Look, spent: Duration) -> Outcome {
    let dressed = look.seen.node.as_ref().is_none_or(|there| there.dressed);
    let moving = match node.phase {
        Phase::Waiting | Phase::Booting | Phase::Leaving => true,
        Phase::Joined => !guest.wanted || !dressed || spent < SERVES_WITHIN || !node.ready && spent < JOIN_DEADLINE,
        Phase::Missed => !guest.wanted,
        Phase::Left => guest.wanted,
    };
    if moving { Outcome::Moving } else { Outcome::Quiet }
}

fn said(told: Option<Told>) -> (String, String) {
    told.map(|told| (told.reason.to_owned(), told.message)).unwrap_or_default()
}

/// What is worth an event: once, not each time that it shows.
fn news(before: &Node, after: &Node) -> Option<NodeNews> {
    let warning = |reason| Some(NodeNews { reason, message: after.message.clone(), severity: Severity::Warning });
    let first = before.ready_time <= before.phase_time;
    if after.ready && !before.ready && first {
        let message = format!("node {} is Ready", after.name);
        return Some(NodeNews { reason: reason::NODE_READY, message, severity: Severity::Info });
    }
    // That others have their turn first is told in the condition only.
    if let Some(why) = after.held_back.filter(|why| before.held_back != Some(*why) && *why != HeldBack::Turn) {
        let message = format!("node {} is not well ({}), and {}", after.name, after.reason, why.words());
        return Some(NodeNews { reason: reason::NODE_REPAIR_HELD_BACK, message, severity: Severity::Warning });
    }
    if before.reason == after.reason {
        return None;
    }
    match after.reason.as_str() {
        told::DRAIN_BLOCKED => warning(reason::NODE_DRAIN_BLOCKED),
        told::NODE_NAME_TAKEN => warning(reason::NODE_NAME_TAKEN),
        told::NODE_NEVER_READY => warning(reason::NODE_MISSED),
        _ => None,
    }
}
