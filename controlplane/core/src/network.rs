//! Networks that operators define and grant. The tenant's own NAT network is implicit and has no row.

use serde::{Deserialize, Serialize};

use crate::id::{NetworkId, TenantId};
use crate::meta::Meta;

pub const ID_MAX: usize = 63;
/// The tenant's own filtered NAT network.
pub const DEFAULT: &str = "default";
/// IFNAMSIZ less the terminator.
pub const BRIDGE_MAX: usize = 15;
pub const VLAN_MAX: i32 = 4094;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub id: NetworkId,
    pub meta: Meta,
    pub description: String,
    pub bridge: String,
    /// 0: untagged.
    pub vlan: i32,
    pub granted_tenants: Vec<TenantId>,
}

impl Network {
    #[must_use]
    pub fn name(&self) -> String {
        format!("networks/{}", self.id)
    }
}

/// A bridge that an operator may name: an interface name, and never one of Croft's own tenant bridges.
#[must_use]
pub fn is_bridge_name(text: &str) -> bool {
    (1..=BRIDGE_MAX).contains(&text.len())
        && !text.starts_with("cr-")
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        && !matches!(text, "." | "..")
}
