//! Nodes that are not well, once a pass has looked at all of them; and what their own events tell of their machines.

use croft_core::id::InstanceUid;
use croft_core::instance::Instance;
use croft_core::join::cluster::{Fault, Node as Live, NodeEvent};
use croft_core::join::keep::{self, HeldBack, Kept, Remedy, Repair, Sight, Verdict};
use croft_core::join::machine::Node;
use croft_core::join::ports::Cluster;
use croft_core::join::tidings;
use croft_core::{Result, Timestamp};

use super::pass::is_of_one;
use super::task::Task;
use super::{Problem, record};

/// What a task remembers of the nodes that it looked at. A plane that starts anew has seen nobody, and waits before it acts.
#[derive(Debug, Default)]
pub(super) struct Watch {
    sight: Sight,
    held_back: std::collections::BTreeMap<InstanceUid, HeldBack>,
    /// Since when, without a gap.
    contact: Option<Contact>,
}

#[derive(Debug, Clone, Copy)]
enum Contact {
    Answers(Timestamp),
    Away(Timestamp),
}

impl Watch {
    /// The cluster did not answer: whatever is known of its nodes is old. Returns since when.
    pub fn blind(&mut self, now: Timestamp) -> Timestamp {
        self.sight.clear();
        if let Some(Contact::Away(since)) = self.contact {
            return since;
        }
        self.contact = Some(Contact::Away(now));
        now
    }

    /// It did, to the end of a pass: one that breaks off in every pass is as good as away.
    pub fn answered(&mut self, now: Timestamp) {
        if !matches!(self.contact, Some(Contact::Answers(_))) {
            self.contact = Some(Contact::Answers(now));
        }
    }

    /// Since when it has answered; in the first pass, since now.
    pub fn answers_since(&self, now: Timestamp) -> Timestamp {
        if let Some(Contact::Answers(since)) = self.contact { since } else { now }
    }

    pub fn held_back(&self, uid: InstanceUid) -> Option<HeldBack> {
        self.held_back.get(&uid).copied()
    }
}

impl Task {
    /// The cluster answered for this one, or did not.
    pub(super) fn sees(&mut self, uid: InstanceUid, seen: bool) {
        let now = self.now();
        if seen {
            self.watch.sight.entry(uid).or_insert(now);
        } else {
            self.watch.sight.remove(&uid);
        }
    }

    /// `before`: as they were at the beginning of the pass.
    pub(super) async fn keep(&mut self, before: &[Instance]) -> Result<()> {
        self.watch.sight.retain(|uid, _| before.iter().any(|one| one.uid == *uid));
        self.watch.held_back.clear();
        if !before.iter().any(may_be_due) {
            return Ok(());
        }
        let fleet = self.ports.store.instance_nodes(&self.uid).await?;
        let kept: Vec<Kept<'_>> = fleet.iter().filter_map(Kept::of).collect();
        for (uid, verdict) in keep::look(&kept, &self.watch.sight, self.now()) {
            match verdict {
                Verdict::HeldBack(why) => drop(self.watch.held_back.insert(uid, why)),
                Verdict::Do(remedy) => {
                    let (sight, most) = (self.watch.sight.clone(), self.within_reach(&fleet, uid, remedy).await);
                    let done = self.ports.store.instance_node_remedy(&self.uid, uid, sight, most).await?;
                    if let Some((instance, remedy)) = done {
                        tracing::warn!(instance = instance.name(), ?remedy, "its node is not well: something is done");
                        self.ports.written(&instance);
                    }
                }
            }
        }
        Ok(())
    }

    /// A machine leaves its host only when another one takes it.
    async fn within_reach(&self, fleet: &[Instance], uid: InstanceUid, remedy: Remedy) -> Remedy {
        let Some(instance) = fleet.iter().find(|one| one.uid == uid).filter(|_| remedy == Remedy::Replace) else {
            return remedy;
        };
        match self.ports.placer.room_elsewhere(instance.clone()).await {
            Ok(()) => remedy,
            Err(error) => {
                tracing::info!(instance = instance.name(), %error, "not rebuilt on another host, but on its own");
                Remedy::Rebuild
            }
        }
    }

    /// The fault of its machine goes to the Node's events, once: said again after a crash between the two, the cluster keeps one.
    /// Returns what is to be kept of it.
    pub(super) async fn tidings(
        &self,
        cluster: &dyn Cluster,
        instance: &Instance,
        there: Option<&Live>,
    ) -> Result<String, Problem> {
        let node: &Node = record(instance)?;
        let Some((tiding, there)) = tidings::of(instance, self.now()).zip(there) else { return Ok(String::new()) };
        if tiding.key == node.tiding {
            return Ok(tiding.key);
        }
        let event = NodeEvent {
            node: there.name.clone(),
            uid: there.uid.clone(),
            severity: tiding.severity,
            reason: tiding.reason.to_owned(),
            message: tiding.message,
            at: self.now(),
        };
        match cluster.node_event(&event).await {
            Ok(()) => Ok(tiding.key),
            // A right that lacks is told by the cluster's conditions; the node must not wait for it.
            Err(fault) if is_of_one(&fault) => Ok(not_told(&fault, node)),
            Err(fault) => Err(fault.into()),
        }
    }
}

fn not_told(fault: &Fault, node: &Node) -> String {
    tracing::debug!(node = node.name, %fault, "an event of a node was not taken");
    node.tiding.clone()
}

/// Whether it is worth while to look at all of them.
fn may_be_due(instance: &Instance) -> bool {
    let repaired = instance.spec.node.as_ref().is_some_and(|wish| wish.repair != Repair::None);
    repaired && instance.node.as_ref().is_some_and(|node| !node.ready)
}

#[cfg(test)]
#[path = "keep_tests.rs"]
mod tests;
