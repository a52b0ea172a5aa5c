//! One pass over the nodes of a cluster: who may register, who gets a certificate, and then each instance.

use std::collections::BTreeMap;
use std::sync::Arc;

use croft_core::Result;
use croft_core::cluster::Cluster as Row;
use croft_core::id::InstanceUid;
use croft_core::instance::Instance;
use croft_core::join::cluster::{Fault, Node};
use croft_core::join::machine::told::{self, Told};
use croft_core::join::ports::Cluster;

use super::roster::names;
use super::task::{Outcome, Task};
use super::{Problem, record};

/// A cluster that is spoken to.
pub(super) struct On {
    pub row: Row,
    pub handle: Arc<dyn Cluster>,
    /// As they were at the beginning of the pass.
    pub nodes: BTreeMap<String, Node>,
}

impl Task {
    pub(super) async fn pass(&mut self, row: &Row) -> Result<Outcome> {
        let instances = self.ports.store.instance_nodes(&self.uid).await?;
        self.note(&instances);
        let handle = match self.ports.handles.open(&self.ports.store, row).await {
            Ok(handle) => handle,
            Err(unusable) => {
                let told = Told::new(unusable.reason.as_str(), format!("{}: {}", row.name(), unusable.message));
                self.away(&instances, &told).await?;
                return Ok(Outcome::Fault);
            }
        };
        match self.over(row, handle, instances.clone()).await {
            Ok(outcome) => {
                self.watch.answered(self.now());
                Ok(outcome)
            }
            Err(Problem::Store(error)) => Err(error),
            Err(Problem::Cluster(fault)) => {
                tracing::warn!(cluster = row.name(), %fault, "the nodes of a cluster are not looked after now");
                // As they are by now: some of them may have moved before it failed.
                let instances = self.ports.store.instance_nodes(&self.uid).await?;
                self.away(&instances, &told::fault(&fault)).await?;
                Ok(Outcome::Fault)
            }
        }
    }

    async fn over(
        &mut self,
        row: &Row,
        handle: Arc<dyn Cluster>,
        instances: Vec<Instance>,
    ) -> Result<Outcome, Problem> {
        self.roster.publish(handle.as_ref(), names(&instances)).await?;
        let nodes: BTreeMap<String, Node> =
            handle.nodes().await?.into_iter().map(|node| (node.name.clone(), node)).collect();
        let on = On { row: row.clone(), handle, nodes };
        // A right that lacks here must not keep others from leaving.
        let mut trouble = match self.answer_requests(&on, &instances).await {
            Ok(()) => None,
            Err(Problem::Cluster(fault)) if is_of_one(&fault) => Some(fault),
            Err(problem) => return Err(problem),
        };
        let mut outcome = Outcome::Quiet;
        for uid in instances.iter().map(|instance| instance.uid) {
            let done = self.one(&on, uid, trouble.as_ref()).await;
            self.sees(uid, done.is_ok());
            match done {
                Ok(Outcome::Quiet) => {}
                Ok(moves) => outcome = moves,
                // One that the cluster refuses something for holds up none of the others.
                Err(Problem::Cluster(fault)) if is_of_one(&fault) => {
                    self.refused(uid, &fault).await?;
                    trouble.get_or_insert(fault);
                }
                Err(problem) => return Err(problem),
            }
        }
        self.keep(&instances).await?;
        match trouble {
            Some(fault) => {
                tracing::warn!(cluster = row.name(), %fault, "a cluster did not do what a node needs");
                Ok(Outcome::Fault)
            }
            None => Ok(outcome),
        }
    }

    async fn one(&mut self, on: &On, uid: InstanceUid, trouble: Option<&Fault>) -> Result<Outcome, Problem> {
        // As it is now: this pass may be a long one.
        let Some(instance) = self.ports.store.instance_by_uid(uid).await? else { return Ok(Outcome::Quiet) };
        let there = on.nodes.get(&record(&instance)?.name).cloned();
        self.advance(on, instance, there, trouble).await
    }
}

/// Whether the server is well, and it was this one thing that it did not do.
pub(super) fn is_of_one(fault: &Fault) -> bool {
    match fault {
        Fault::Forbidden { .. } | Fault::Conflict { .. } | Fault::NotFound { .. } | Fault::Refused { .. } => true,
        Fault::Unreachable { .. }
        | Fault::Certificate { .. }
        | Fault::Unauthorized { .. }
        | Fault::Timeout { .. }
        | Fault::Busy { .. } => false,
    }
}
