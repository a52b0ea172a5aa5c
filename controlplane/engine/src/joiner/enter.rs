//! From phase to phase: the step in the store, and what people are told of it.

use croft_core::event::Severity;
use croft_core::instance::Instance;
use croft_core::join::machine::told::{self, Told};
use croft_core::join::machine::{Guest, Node, Phase, Why};
use croft_store::event::reason;
use croft_store::{NodeNews, NodeStep};

use super::act::Did;
use super::pass::On;
use super::task::Task;
use super::{Problem, record};

impl Task {
    pub(super) async fn enter(
        &mut self,
        on: &On,
        instance: &Instance,
        phase: Phase,
        why: &Why,
    ) -> Result<Did, Problem> {
        let node = record(instance)?;
        if node.phase == phase {
            return Ok(Did::Waits(stays(node, why)));
        }
        if phase == Phase::Left {
            // Whoever registers from here on is refused; one who did just before is taken out first.
            self.close_roster(on, &node.name).await?;
            if on.handle.node(&node.name).await?.is_some_and(|there| ours(instance, &there)) {
                return Ok(Did::Cluster);
            }
        }
        let mut step = stepped(instance, node, phase, why, self.now());
        if phase == Phase::Missed {
            match self.quotes.of(instance, &self.ports.hooks.console).await {
                Some(said) => quote(&mut step, &said),
                None => return Ok(Did::Waits(None)),
            }
        }
        let Some(instance) = self.step(step).await? else { return Ok(Did::Stale) };
        if phase == Phase::Booting {
            // Its kubelet may come any moment.
            let names = super::roster::names(&self.ports.store.instance_nodes(&self.uid).await?);
            self.roster.publish(on.handle.as_ref(), names).await?;
        }
        Ok(Did::Step(Box::new(instance)))
    }
}

fn quote(step: &mut NodeStep, said: &str) {
    if said.is_empty() {
        return;
    }
    let said = format!("; the guest said last: {said}");
    step.after.message.push_str(&said);
    if let Some(news) = &mut step.news {
        news.message.push_str(&said);
    }
}

/// It says so itself.
pub(super) fn ours(instance: &Instance, there: &croft_core::join::cluster::Node) -> bool {
    let whose = croft_core::join::node::provider_id(&instance.tenant, instance.uid);
    there.provider_id.as_deref() == Some(&whose)
}

fn stays(node: &Node, why: &Why) -> Option<Told> {
    match why {
        Why::NameTaken(whose) => Some(name_taken(node, whose)),
        Why::AsWanted | Why::TooLate => None,
    }
}

fn name_taken(node: &Node, whose: &str) -> Told {
    let whose = if whose.is_empty() { "nobody's machine" } else { whose };
    let message = format!(
        "node {} is in the cluster already, and says that it is {whose}; delete it there if it should not be",
        node.name
    );
    Told::new(told::NODE_NAME_TAKEN, message)
}

pub(super) fn stepped(
    instance: &Instance,
    node: &Node,
    phase: Phase,
    why: &Why,
    now: croft_core::Timestamp,
) -> NodeStep {
    let mut after = node.clone();
    after.enter(phase, now);
    let told = match (phase, why) {
        (_, Why::NameTaken(whose)) => Some(name_taken(node, whose)),
        (Phase::Missed, _) => Some(told::missed(node, Guest::of(instance).start_time.is_some())),
        _ => None,
    };
    let news = news(instance, node, phase, told.as_ref());
    let told = told.unwrap_or(Told::new("", ""));
    (after.reason, after.message) = (told.reason.to_owned(), told.message);
    NodeStep { uid: instance.uid, before: node.clone(), after, seed: None, news }
}

fn news(instance: &Instance, node: &Node, phase: Phase, told: Option<&Told>) -> Option<NodeNews> {
    let cluster = instance.spec.node.as_ref().map_or("its cluster", |wish| wish.cluster.as_str());
    let name = &node.name;
    let info = |reason, message| Some(NodeNews { reason, message, severity: Severity::Info });
    match phase {
        Phase::Waiting => told.map(|told| NodeNews {
            reason: reason::NODE_NAME_TAKEN,
            message: told.message.clone(),
            severity: Severity::Warning,
        }),
        Phase::Booting => info(reason::NODE_JOINING, format!("may start; its seed has a token for {cluster}")),
        Phase::Joined if node.phase == Phase::Leaving => {
            info(reason::NODE_JOINED, format!("is wanted again; node {name} stays in {cluster}"))
        }
        Phase::Joined => info(reason::NODE_JOINED, format!("node {name} has registered in {cluster}")),
        Phase::Missed => Some(NodeNews {
            reason: reason::NODE_MISSED,
            message: told.map(|told| format!("{}: {}", told.reason, told.message)).unwrap_or_default(),
            severity: Severity::Warning,
        }),
        Phase::Leaving => info(reason::NODE_LEAVING, format!("node {name} is drained, then leaves {cluster}")),
        Phase::Left => info(reason::NODE_LEFT, format!("nothing of node {name} is left in {cluster}")),
    }
}
