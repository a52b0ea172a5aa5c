//! Tenants.

use croft_core::tenant::Tenant;
use croft_proto::v1;

use super::meta;

#[must_use]
pub fn out(tenant: &Tenant) -> v1::Tenant {
    v1::Tenant {
        name: tenant.name(),
        metadata: Some(meta::out(&tenant.meta)),
        parent: tenant.parent.as_ref().map(|parent| format!("tenants/{parent}")).unwrap_or_default(),
        display_name: tenant.display_name.clone(),
    }
}
