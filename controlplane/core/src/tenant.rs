//! Tenants: the boundary of isolation and quota. A tree whose edges never change.

use serde::{Deserialize, Serialize};

use crate::id::TenantId;
use crate::meta::Meta;

pub const ID_MAX: usize = 40;
/// How deep the tree may be: each level is one more limit to check in every placement.
pub const DEPTH_MAX: usize = 8;
pub const DISPLAY_NAME_MAX: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    pub id: TenantId,
    pub meta: Meta,
    pub parent: Option<TenantId>,
    pub display_name: String,
}

impl Tenant {
    #[must_use]
    pub fn name(&self) -> String {
        format!("tenants/{}", self.id)
    }
}
