//! The acts of one instance, until there is nothing to do but to wait.

use croft_core::instance::Instance;
use croft_core::join::cluster::{Change, Eviction, Fault, Node};
use croft_core::join::machine::told::{self, Told};
use croft_core::join::machine::{Act, Drain, Guest, Node as Record, Way, next};
use croft_core::join::node::{DEFAULT_RECIPE, provider_id};
use croft_core::{Error, Timestamp};
use croft_store::NodeStep;

use super::look::{Look, look};
use super::pass::{On, is_of_one};
use super::task::{Outcome, Task};
use super::{Problem, dress, record, token};

/// A machine whose every act is followed by another one at once is not waited for for ever.
const ROUNDS: usize = 12;
/// Budgets that a drain waits for, by name.
const BUDGETS_NAMED: usize = 5;

/// What an act came to.
pub(super) enum Did {
    /// The store has this now.
    Step(Box<Instance>),
    /// The cluster did it.
    Cluster,
    /// Nothing more can be done now; because of this.
    Waits(Option<Told>),
    /// Somebody else was here: the next pass looks again.
    Stale,
}

impl Task {
    pub(super) async fn advance(
        &mut self,
        on: &On,
        mut instance: Instance,
        mut there: Option<Node>,
        trouble: Option<&Fault>,
    ) -> Result<Outcome, Problem> {
        for _ in 0..ROUNDS {
            let node = record(&instance)?.clone();
            let look = look(on.handle.as_ref(), &instance, &node, there, self.seen_at()).await?;
            let whose = provider_id(&instance.tenant, instance.uid);
            let acts = next(&node, Guest::of(&instance), &whose, &look.seen, self.now());
            let (mut moved, mut waits) = (false, None);
            for act in &acts {
                match self.act(on, &instance, &look, act).await? {
                    Did::Step(new) => (instance, moved) = (*new, true),
                    Did::Cluster => moved = true,
                    Did::Waits(told) => waits = told,
                    Did::Stale => return Ok(Outcome::Moving),
                }
            }
            if !moved {
                return self.tell(on, &instance, &look, waits, trouble).await;
            }
            there = on.handle.node(&node.name).await?;
        }
        Ok(Outcome::Moving)
    }

    async fn act(&mut self, on: &On, instance: &Instance, look: &Look, act: &Act) -> Result<Did, Problem> {
        match act {
            Act::Token(until) => self.token(on, instance, *until).await,
            Act::Forget => self.forget(on, instance).await,
            Act::Dress => match look.there.as_ref().and_then(|there| dress::lacking(instance, there)) {
                Some(change) => changed(on, look, &change).await,
                None => Ok(Did::Waits(None)),
            },
            Act::Cordon => changed(on, look, &Change::cordon()).await,
            Act::Uncordon => changed(on, look, &Change::uncordon()).await,
            Act::OutOfService(true) => changed(on, look, &Change::out_of_service()).await,
            Act::OutOfService(false) => changed(on, look, &Change::back_in_service()).await,
            Act::Evict => Ok(Did::Waits(Some(evict(on, look).await?))),
            Act::Drains(way) => self.did(drains(instance, record(instance)?, *way, self.now())).await,
            Act::DeleteNode => self.delete_node(on, instance, look).await,
            Act::Enter(phase, why) => self.enter(on, instance, *phase, why).await,
        }
    }

    /// In the store, in the seed's secret and by its id, before it is in the cluster.
    async fn token(&mut self, on: &On, instance: &Instance, until: Timestamp) -> Result<Did, Problem> {
        let node = record(instance)?;
        let lost = || Error::internal(format!("{} has a node and wishes none", instance.name()));
        let wish = instance.spec.node.as_ref().ok_or_else(lost)?;
        let Some(recipe) = self.ports.recipes.get(&wish.recipe) else {
            let message = format!(
                "this plane has no join recipe `{}`; give it to the plane again, or make the instance with `{DEFAULT_RECIPE}`",
                wish.recipe
            );
            return Ok(Did::Waits(Some(Told::new(told::RECIPE_MISSING, message))));
        };
        let Some(mut seed) = self.ports.store.instance_seed(instance).await? else {
            let message = "its cloud-init seed cannot be opened, so no token can be put into it; delete the instance and create \
                           it again";
            return Ok(Did::Waits(Some(Told::new(told::SEED_UNREADABLE, message))));
        };
        let made = token::into_seed(&mut seed, instance, node, wish, (&on.row, on.handle.as_ref()), recipe, until)?;
        let mut after = node.clone();
        after.token = Some(token::record_of(&made));
        let step = NodeStep { uid: instance.uid, before: node.clone(), after, seed: Some(seed), news: None };
        let Some(instance) = self.step(step).await? else { return Ok(Did::Stale) };
        on.handle.token_ensure(&made).await?;
        Ok(Did::Step(Box::new(instance)))
    }

    /// Out of the cluster before the store forgets its id.
    async fn forget(&mut self, on: &On, instance: &Instance) -> Result<Did, Problem> {
        let node = record(instance)?;
        if let Some(token) = &node.token {
            on.handle.token_delete(&token.id).await?;
        }
        let step = self.without_token(instance, node.clone()).await?;
        self.did(step).await
    }

    async fn did(&self, step: NodeStep) -> Result<Did, Problem> {
        Ok(self.step(step).await?.map_or(Did::Stale, |instance| Did::Step(Box::new(instance))))
    }

    /// The step by which the store, and with it the host and the guest, has no token any more. A seed that cannot be opened stays
    /// as it is: its token is good for nothing without the cluster's half of it.
    pub(super) async fn without_token(&self, instance: &Instance, mut after: Record) -> croft_core::Result<NodeStep> {
        after.token = None;
        let mut seed = self.ports.store.instance_seed(instance).await?;
        if let Some(seed) = &mut seed {
            croft_core::join::seed::strip(seed);
        }
        Ok(NodeStep { uid: instance.uid, before: record(instance)?.clone(), after, seed, news: None })
    }

    /// Not before the cluster refuses to let it be made again.
    async fn delete_node(&mut self, on: &On, instance: &Instance, look: &Look) -> Result<Did, Problem> {
        let Some(there) = &look.there else { return Ok(Did::Cluster) };
        self.close_roster(on, &record(instance)?.name).await?;
        let done = unless_another(on.handle.node_delete(&there.name, &there.uid).await)?;
        match on.handle.node(&there.name).await? {
            Some(still) if still.uid == there.uid => Err(kept(on, &still.name).into()),
            _ => Ok(done),
        }
    }

    pub(super) async fn close_roster(&mut self, on: &On, node: &str) -> Result<(), Problem> {
        let mut names = super::roster::names(&self.ports.store.instance_nodes(&self.uid).await?);
        names.remove(node);
        Ok(self.roster.publish(on.handle.as_ref(), names).await?)
    }
}

async fn changed(on: &On, look: &Look, change: &Change) -> Result<Did, Problem> {
    let Some(there) = &look.there else { return Ok(Did::Waits(None)) };
    unless_another(on.handle.node_change(&there.name, &there.uid, change).await)
}

/// It said yes, and did not do it. Whoever is root on a node can put a finalizer on it that nobody ever takes off: that must not
/// keep the machine running.
fn kept(on: &On, node: &str) -> Fault {
    let why = "it said yes, and the node is still there: something keeps it, as a finalizer does".to_owned();
    Fault::Refused { server: on.handle.anchor().server.clone(), doing: format!("delete node {node}"), why }
}

/// A node that was deleted, or is another one by now, is looked at again.
fn unless_another(done: Result<(), Fault>) -> Result<Did, Problem> {
    match done {
        Ok(()) => Ok(Did::Cluster),
        Err(Fault::NotFound { .. } | Fault::Conflict { .. }) => Ok(Did::Waits(None)),
        Err(fault) => Err(fault.into()),
    }
}

/// The drain counts from now on.
pub(super) fn drains(instance: &Instance, node: &Record, way: Way, now: Timestamp) -> NodeStep {
    let mut after = node.clone();
    after.drain = Some(Drain { since: now, way });
    NodeStep { uid: instance.uid, before: node.clone(), after, seed: None, news: None }
}

/// Asks every pod to go that was not told to yet; one for which the cluster refuses it keeps none of the others.
async fn evict(on: &On, look: &Look) -> Result<Told, Fault> {
    let (mut blocked, mut refused) = (Vec::new(), None);
    for pod in look.pods.iter().filter(|pod| !pod.ending) {
        match on.handle.evict(pod).await {
            Ok(Eviction::Evicted | Eviction::Gone) => {}
            Ok(Eviction::Blocked { budget, message }) => blocked.push(match budget.as_str() {
                "" => format!("{}/{} ({message})", pod.namespace, pod.name),
                budget => format!("{}/{budget}", pod.namespace),
            }),
            Err(fault) if is_of_one(&fault) => drop(refused.get_or_insert(fault)),
            Err(fault) => return Err(fault),
        }
    }
    if let Some(fault) = refused {
        return Err(fault);
    }
    let left = look.pods.len();
    if blocked.is_empty() {
        return Ok(Told::new(told::DRAINING, format!("{left} pods are on their way out")));
    }
    blocked.sort_unstable();
    blocked.dedup();
    let more = blocked.len().saturating_sub(BUDGETS_NAMED);
    blocked.truncate(BUDGETS_NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let message = format!(
        "{left} pods are left, and {}{more} let none of theirs go; after {} min the node goes with what is still on it",
        blocked.join(", "),
        croft_core::join::machine::DRAIN_DEADLINE.as_secs() / 60
    );
    Ok(Told::new(told::DRAIN_BLOCKED, message))
}
