//! A cluster that cannot be spoken to: those who wait for it are told why, and nobody waits for ever.
//!
//! What can go on without it goes on: what never had a token leaves, what is to stop is stopped after the time that a drain may
//! take (its Node is deleted when the cluster is back), and what is deleted with force leaves its Node behind.

use croft_core::Result;
use croft_core::event::Severity;
use croft_core::instance::Instance;
use croft_core::join::machine::told::Told;
use croft_core::join::machine::{DRAIN_DEADLINE, Guest, Node, Phase, Why, leaves_to_be_rebuilt};
use croft_store::event::reason;
use croft_store::{NodeNews, NodeStep};

use super::enter::stepped;
use super::record;
use super::task::Task;

impl Task {
    pub(super) async fn away(&mut self, instances: &[Instance], told: &Told) -> Result<()> {
        for instance in instances {
            let node = record(instance)?;
            if !waits(node, Guest::of(instance)) {
                continue;
            }
            match self.without(instance, node, told).await? {
                Some(step) => drop(self.ports.step(step).await?),
                None => self.say(instance, told).await?,
            }
        }
        Ok(())
    }

    async fn without(&self, instance: &Instance, node: &Node, told: &Told) -> Result<Option<NodeStep>> {
        let (guest, now) = (Guest::of(instance), self.now());
        if guest.wanted {
            return Ok(None);
        }
        if guest.forced {
            return self.abandon(instance, node, told).await.map(Some);
        }
        let untouched = node.phase == Phase::Waiting && node.token.is_none() && !node.lost;
        if untouched {
            return Ok(Some(stepped(instance, node, Phase::Left, &Why::AsWanted, now)));
        }
        if !matches!(node.phase, Phase::Leaving | Phase::Left) {
            return Ok(Some(stepped(instance, node, Phase::Leaving, &Why::AsWanted, now)));
        }
        // What leaves to be rebuilt is in no hurry: it is stopped when it can be drained.
        let stops = !leaves_to_be_rebuilt(instance);
        if stops && node.phase == Phase::Leaving && !node.released && now.since(node.phase_time) > DRAIN_DEADLINE {
            return Ok(Some(release(instance, node, told)));
        }
        Ok(None)
    }

    /// Its user would rather have it gone than know what is left of it.
    async fn abandon(&self, instance: &Instance, node: &Node, told: &Told) -> Result<NodeStep> {
        let mut after = node.clone();
        after.enter(Phase::Left, self.now());
        let message = format!(
            "deleted with force while its cluster could not be spoken to ({}): node {} may still be there, delete it with kubectl",
            told.message, node.name
        );
        (after.reason, after.message) = (told.reason.to_owned(), told.message.clone());
        let news = NodeNews { reason: reason::NODE_LEFT_BEHIND, message, severity: Severity::Warning };
        Ok(NodeStep { news: Some(news), ..self.without_token(instance, after).await? })
    }
}

fn release(instance: &Instance, node: &Node, told: &Told) -> NodeStep {
    let mut after = node.clone();
    after.released = true;
    (after.reason, after.message) = (told.reason.to_owned(), told.message.clone());
    let message = format!(
        "its cluster could not be spoken to for {} min ({}): it is stopped with what runs on it; node {} is deleted when the \
         cluster is back",
        DRAIN_DEADLINE.as_secs() / 60,
        told.message,
        node.name
    );
    let news = Some(NodeNews { reason: reason::NODE_LEFT_BEHIND, message, severity: Severity::Warning });
    NodeStep { uid: instance.uid, before: node.clone(), after, seed: None, news }
}

/// Whether something is to become of it that needs its cluster.
fn waits(node: &Node, guest: Guest) -> bool {
    match node.phase {
        Phase::Waiting | Phase::Booting | Phase::Leaving => true,
        Phase::Joined | Phase::Missed => !guest.wanted,
        Phase::Left => guest.wanted || node.token.is_some(),
    }
}
