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

/// How each line of the program begins that the seed brings.
const JOIN_LINE: &str = "croft-join:";
const LINES: usize = 5;
const LINES_LENGTH: usize = 1000;

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
            self.quote(instance, &mut step).await;
        }
        let Some(instance) = self.ports.step(step).await? else { return Ok(Did::Stale) };
        if phase == Phase::Booting {
            // Its kubelet may come any moment.
            let names = super::roster::names(&self.ports.store.instance_nodes(&self.uid).await?);
            self.roster.publish(on.handle.as_ref(), names).await?;
        }
        Ok(Did::Step(Box::new(instance)))
    }
}

impl Task {
    /// What the guest's own join said last. No other line of its console: that is for those who may read it.
    async fn quote(&self, instance: &Instance, step: &mut NodeStep) {
        let said = join_lines(&(self.ports.hooks.console)(instance.clone()).await);
        if said.is_empty() {
            return;
        }
        let said = format!("; the guest said last: {said}");
        step.after.message.push_str(&said);
        if let Some(news) = &mut step.news {
            news.message.push_str(&said);
        }
    }
}

/// The last few lines of the program that joins.
fn join_lines(console: &str) -> String {
    let of_join = |line: &str| line.find(JOIN_LINE).map(|at| line[at + JOIN_LINE.len()..].trim().to_owned());
    let lines: Vec<String> = console.lines().filter_map(of_join).collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    last.join(" | ").chars().map(plain).take(LINES_LENGTH).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_console_only_the_last_lines_of_the_join_are_told() {
        let console = "login: root\r\npassword: hunter2\r\n[  12.0] croft-join: begins\r\ncroft-join: cannot reach \u{1b}[1mit\r\n";
        assert_eq!(join_lines(console), "begins | cannot reach  [1mit");
        let many: String = (0..20).map(|n| format!("croft-join: {n}\n")).collect();
        assert_eq!(join_lines(&many), "15 | 16 | 17 | 18 | 19");
        assert_eq!(join_lines("nothing of it"), "");
    }
}
