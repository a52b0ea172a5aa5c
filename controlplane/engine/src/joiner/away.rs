//! A cluster that cannot be spoken to, or that refuses what a node needs: those who wait for it are told why, and nobody waits for
//! ever. What can go on without it is [`without`]'s to say.

use croft_core::event::Severity;
use croft_core::id::InstanceUid;
use croft_core::instance::Instance;
use croft_core::join::cluster::Fault;
use croft_core::join::machine::told::{self, Told};
use croft_core::join::machine::without::{self, Without};
use croft_core::join::machine::{DRAIN_DEADLINE, Guest, Node, Phase, TOKEN_LIFE, Why};
use croft_core::{Result, Timestamp};
use croft_store::event::reason;
use croft_store::{NodeNews, NodeStep};

use super::act::drains;
use super::enter::stepped;
use super::record;
use super::task::Task;

impl Task {
    /// Nobody can speak to it.
    pub(super) async fn away(&mut self, instances: &[Instance], told: &Told) -> Result<()> {
        let since = self.watch.blind(self.now());
        for instance in instances {
            let (node, guest) = (record(instance)?, Guest::of(instance));
            if waits(node, guest) {
                let step = without::away(node, guest, since, self.now());
                self.goes_on(instance, step, told).await?;
            }
        }
        Ok(())
    }

    /// It answers, and did not do what this one needs.
    pub(super) async fn refused(&self, uid: InstanceUid, fault: &Fault) -> Result<()> {
        let Some(instance) = self.ports.store.instance_by_uid(uid).await? else { return Ok(()) };
        // What passes by itself is tried again before anything is given up.
        let step = match fault.passes() {
            true => None,
            false => without::refused(record(&instance)?, Guest::of(&instance), self.now()),
        };
        self.goes_on(&instance, step, &told::fault(fault)).await
    }

    async fn goes_on(&self, instance: &Instance, step: Option<Without>, told: &Told) -> Result<()> {
        let (node, now) = (record(instance)?, self.now());
        let step = match step {
            None => return self.say(instance, told).await,
            Some(Without::Enter(phase)) => stepped(instance, node, phase, &Why::AsWanted, now),
            Some(Without::Drains(way)) => because(drains(instance, node, way, now), told),
            Some(Without::Release) => release(instance, node, told),
            Some(Without::Abandon) => self.abandon(instance, node, told, now).await?,
        };
        self.step(step).await.map(drop)
    }

    /// Its user would rather have it gone than know what is left of it.
    async fn abandon(&self, instance: &Instance, node: &Node, told: &Told, now: Timestamp) -> Result<NodeStep> {
        let mut after = node.clone();
        after.enter(Phase::Left, now);
        let token = match &node.token {
            Some(token) => format!(
                "; so may its bootstrap token {}, which is good for {} min at most and then ends by itself",
                token.id,
                TOKEN_LIFE.as_secs() / 60
            ),
            None => String::new(),
        };
        let message = format!(
            "deleted with force while its cluster did not do what it was asked ({}): node {} may still be there, delete it with \
             kubectl{token}",
            told.message, node.name
        );
        let news = NodeNews { reason: reason::NODE_LEFT_BEHIND, message, severity: Severity::Warning };
        Ok(NodeStep { news: Some(news), ..because(self.without_token(instance, after).await?, told) })
    }
}

fn release(instance: &Instance, node: &Node, told: &Told) -> NodeStep {
    let mut after = node.clone();
    after.released = true;
    let message = format!(
        "its cluster did not do what it was asked for {} min ({}): it is stopped with what runs on it; node {} is deleted when \
         the cluster lets Croft",
        DRAIN_DEADLINE.as_secs() / 60,
        told.message,
        node.name
    );
    let news = Some(NodeNews { reason: reason::NODE_LEFT_BEHIND, message, severity: Severity::Warning });
    because(NodeStep { uid: instance.uid, before: node.clone(), after, seed: None, news }, told)
}

fn because(mut step: NodeStep, told: &Told) -> NodeStep {
    (step.after.reason, step.after.message) = (told.reason.to_owned(), told.message.clone());
    step
}

/// Whether something is to become of it that needs its cluster.
fn waits(node: &Node, guest: Guest) -> bool {
    match node.phase {
        Phase::Waiting | Phase::Booting | Phase::Leaving => true,
        Phase::Joined | Phase::Missed => !guest.wanted,
        Phase::Left => guest.wanted || node.token.is_some(),
    }
}
