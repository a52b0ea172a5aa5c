//! Networks.

use croft_core::network::Network;
use croft_proto::v1;

use super::meta;

#[must_use]
pub fn out(network: &Network) -> v1::Network {
    v1::Network {
        name: network.name(),
        metadata: Some(meta::out(&network.meta)),
        description: network.description.clone(),
        bridge: network.bridge.clone(),
        vlan: network.vlan,
        granted_tenants: network.granted_tenants.iter().map(|tenant| format!("tenants/{tenant}")).collect(),
    }
}
