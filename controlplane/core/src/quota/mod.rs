//! Limit and use per (tenant, resource).
//!
//! Plain resources are named here, device resources in [`device`]. A charge counts against the tenant and every ancestor. Plain resources without a limit are unlimited; every limit
//! that is set, on the tenant and on each ancestor, binds.

pub mod device;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, QuotaViolation, Result};
use crate::id::TenantId;
use crate::meta::{Labels, check_etag};

pub const VCPUS: &str = "vcpus";
pub const MEMORY_MIB: &str = "memory_mib";
pub const DISK_GIB: &str = "disk_gib";
pub const INSTANCES: &str = "instances";

/// The resources that need no device, in the order in which they are shown.
pub const PLAIN: [&str; 4] = [VCPUS, MEMORY_MIB, DISK_GIB, INSTANCES];

pub const LIMIT_MAX: i64 = 1 << 52;

/// What one holder takes: resource to amount, amounts above 0.
pub type Charges = BTreeMap<String, i64>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    pub tenant: TenantId,
    pub resource: String,
    /// `None`: unlimited at this tenant.
    pub limit: Option<i64>,
    /// By this tenant and everything below it.
    pub used: i64,
    pub generation: i64,
}

impl Quota {
    /// What this row alone would refuse of one more `amount`.
    #[must_use]
    pub fn violation(&self, amount: i64) -> Option<QuotaViolation> {
        let limit = self.limit?;
        (amount > 0 && self.used.saturating_add(amount) > limit).then(|| QuotaViolation {
            tenant: self.tenant.clone(),
            resource: self.resource.clone(),
            limit,
            used: self.used,
            requested: amount,
        })
    }

    #[must_use]
    pub fn name(&self) -> String {
        format!("tenants/{}/quotas/{}", self.tenant, self.resource)
    }

    #[must_use]
    pub fn etag(&self) -> String {
        format!("q{:x}", self.generation)
    }

    /// An empty etag matches everything.
    pub fn check_etag(&self, sent: &str) -> Result<()> {
        check_etag(sent, &self.etag(), &self.name())
    }
}

/// A quota as it is shown and set. Admission reads bare [`Quota`]s, which stay small whatever is written on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labelled {
    pub quota: Quota,
    pub labels: Labels,
    pub annotations: Labels,
}

/// Whether `charges` fit into every row (the tenant's and its ancestors'); all that do not are named.
pub fn admit(rows: &[Quota], charges: &Charges) -> Result<()> {
    let violations: Vec<_> = charges
        .iter()
        .flat_map(|(resource, amount)| {
            rows.iter().filter(move |row| row.resource == *resource).filter_map(|row| row.violation(*amount))
        })
        .collect();
    if violations.is_empty() { Ok(()) } else { Err(Error::QuotaExceeded(violations)) }
}

/// Whether Croft counts such a resource (design 1.1).
#[must_use]
pub fn is_resource(resource: &str) -> bool {
    PLAIN.contains(&resource) || device::Resource::parse(resource).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tenant: &str, limit: Option<i64>, used: i64) -> Quota {
        Quota { tenant: tenant.into(), resource: VCPUS.into(), limit, used, generation: 1 }
    }

    #[test]
    fn every_limit_on_the_way_to_the_root_binds_and_is_named() {
        let rows = [row("child", Some(10), 8), row("middle", None, 100), row("root", Some(12), 11)];
        assert_eq!(admit(&rows, &Charges::from([(VCPUS.into(), 1)])), Ok(()));
        let Err(Error::QuotaExceeded(violations)) = admit(&rows, &Charges::from([(VCPUS.into(), 3)])) else {
            panic!("11 + 3 > 12 and 8 + 3 > 10")
        };
        let tenants: Vec<_> = violations.iter().map(|v| v.tenant.as_str()).collect();
        assert_eq!(tenants, ["child", "root"]);
    }
}
