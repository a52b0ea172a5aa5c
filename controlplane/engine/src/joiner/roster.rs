//! The list of nodes that may register, each with whose machine it is, as the cluster's admission policy reads it.

use std::collections::BTreeMap;
use std::time::Duration;

use croft_core::instance::Instance;
use croft_core::join::cluster::Fault;
use croft_core::join::machine::gates;
use croft_core::join::node::provider_id;
use croft_core::join::ports::Cluster;
use tokio::time::Instant;

/// Somebody may delete it, and until it is there again no node of anybody's can register.
const AGAIN: Duration = Duration::from_secs(60);

/// As it was last published by this task.
#[derive(Debug, Default)]
pub(super) struct Roster(Option<(BTreeMap<String, String>, Instant)>);

impl Roster {
    pub async fn publish(&mut self, cluster: &dyn Cluster, names: BTreeMap<String, String>) -> Result<(), Fault> {
        if self.0.as_ref().is_some_and(|(there, at)| *there == names && at.elapsed() < AGAIN) {
            return Ok(());
        }
        // Whether it came through is not known when it fails.
        self.0 = None;
        cluster.roster_publish(&names).await?;
        self.0 = Some((names, Instant::now()));
        Ok(())
    }
}

/// The providerID of each, by its name.
pub(super) fn names(instances: &[Instance]) -> BTreeMap<String, String> {
    let open = |instance: &Instance| {
        let node = instance.node.as_ref().filter(|node| gates(node.phase).register)?;
        Some((node.name.clone(), provider_id(&instance.tenant, instance.uid)))
    };
    instances.iter().filter_map(open).collect()
}
