//! What the cluster says of one instance, in the words of the machine.

use croft_core::Timestamp;
use croft_core::instance::Instance;
use croft_core::join::cluster::{Fault, Node, OUT_OF_SERVICE_TAINT, Pod, Ready};
use croft_core::join::machine::{self, Guest, Phase, Seen, SeenNode, drains};
use croft_core::join::ports::Cluster;

use super::dress;

pub(super) struct Look {
    pub seen: Seen,
    pub there: Option<Node>,
    pub pods: Vec<Pod>,
}

/// Asks for no more than the phase goes by. `since` is since when the cluster has answered.
pub(super) async fn look(
    cluster: &dyn Cluster,
    instance: &Instance,
    record: &machine::Node,
    there: Option<Node>,
    (since, now): (Timestamp, Timestamp),
) -> Result<Look, Fault> {
    let token = match &record.token {
        Some(token) if matches!(record.phase, Phase::Waiting | Phase::Booting) => {
            cluster.token_exists(&token.id).await?
        }
        _ => false,
    };
    let pods = if drains(record, Guest::of(instance), now) && there.is_some() {
        cluster.pods(&record.name).await?
    } else {
        Vec::new()
    };
    let node = there.as_ref().map(|node| SeenNode {
        provider_id: node.provider_id.clone().unwrap_or_default(),
        ready: node.ready == Ready::Yes,
        dressed: dress::lacking(instance, node).is_none(),
        cordoned: node.cordoned,
        out_of_service: node.has_taint(OUT_OF_SERVICE_TAINT),
    });
    let seen = Seen { node, token, pods: pods.len(), blocked_by: Vec::new(), since };
    Ok(Look { seen, there, pods })
}
