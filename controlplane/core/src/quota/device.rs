//! What devices are counted as, and the rule that they are denied unless somebody granted them.
//!
//! | resource | counts |
//! |---|---|
//! | `gpus`, `gpus/{model}` | whole GPUs |
//! | `gpu_slices/{model}/{profile}` | slices: MIG profile or time-sliced vGPU type |
//! | `gpu_memory_mib` | memory of whole GPUs and, nominally, of slices |
//! | `devices/{pool}` | what was taken of a pool |
//!
//! A device needs at least one limit on the tenant *itself* among those that it is charged to. Every limit that is set, there
//! and above, binds.

use std::collections::BTreeSet;

use super::{Charges, Quota, admit};
use crate::device::{Assignment, POOL_ID_MAX, Wanted};
use crate::error::{Error, Reason, Result};
use crate::id::TenantId;
use crate::validate::is_slug;

pub const GPUS: &str = "gpus";
pub const GPU_MEMORY_MIB: &str = "gpu_memory_mib";

/// A well-formed device resource. Whether such a model or pool exists is another question: a limit may come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    Gpus { model: Option<String> },
    GpuSlices { model: String, profile: String },
    GpuMemoryMib,
    Devices { pool: String },
}

impl Resource {
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        Some(match parts[..] {
            ["gpus"] => Self::Gpus { model: None },
            ["gpus", model] if is_model(model) => Self::Gpus { model: Some(model.to_owned()) },
            ["gpu_slices", model, profile] if is_model(model) && is_profile(profile) => {
                Self::GpuSlices { model: model.to_owned(), profile: profile.to_owned() }
            }
            ["gpu_memory_mib"] => Self::GpuMemoryMib,
            ["devices", pool] if is_slug(pool, POOL_ID_MAX) => Self::Devices { pool: pool.to_owned() },
            _ => return None,
        })
    }
}

/// `h100_sxm_80gb`
#[must_use]
pub fn is_model(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// `2g.20gb`, `1g.10gb+me`, `H100XM-20C`
#[must_use]
pub fn is_profile(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".+-_".contains(&b))
}

/// What one piece is charged to.
#[must_use]
pub fn charges(assignment: &Assignment) -> Charges {
    let mut charges = Charges::new();
    let mut charge = |resource: String, amount: i64| {
        if amount > 0 {
            charges.insert(resource, amount);
        }
    };
    let slice = if assignment.mig_profile.is_empty() { &assignment.vgpu_type } else { &assignment.mig_profile };
    match &assignment.pool {
        Some(pool) => charge(format!("devices/{pool}"), 1),
        None if slice.is_empty() => {
            charge(GPUS.to_owned(), 1);
            charge(format!("{GPUS}/{}", assignment.model), 1);
            charge(GPU_MEMORY_MIB.to_owned(), assignment.charged_memory_mib);
        }
        None => {
            charge(format!("gpu_slices/{}/{slice}", assignment.model), 1);
            charge(GPU_MEMORY_MIB.to_owned(), assignment.charged_memory_mib);
        }
    }
    charges
}

/// Of several pieces together.
#[must_use]
pub fn total(assignments: &[Assignment]) -> Charges {
    let mut total = Charges::new();
    for (resource, amount) in assignments.iter().flat_map(charges) {
        *total.entry(resource).or_default() += amount;
    }
    total
}

/// Denied by default: each piece needs a limit of `tenant` itself that covers it.
pub fn granted(rows: &[Quota], tenant: &TenantId, assignments: &[Assignment]) -> Result<()> {
    for assignment in assignments {
        let charges = charges(assignment);
        if !charges.keys().any(|resource| limited(rows, tenant, resource)) {
            let resource = charges.keys().max_by_key(|resource| resource.len()).cloned().unwrap_or_default();
            return Err(not_granted(tenant, &resource));
        }
    }
    Ok(())
}

fn limited(rows: &[Quota], tenant: &TenantId, resource: &str) -> bool {
    rows.iter().any(|row| row.tenant == *tenant && row.resource == resource && row.limit.is_some())
}

/// Of which models `wanted` may be, by quota, out of those that hosts report. What does not name a model has no say.
/// Early and rough: the claim decides, with the charges of the exact piece.
pub fn models(
    rows: &[Quota],
    tenant: &TenantId,
    wanted: &Wanted,
    known: &BTreeSet<String>,
) -> Result<BTreeSet<String>> {
    let of_model = |model: &String| -> (Vec<String>, Charges) {
        match wanted {
            Wanted::Gpu { .. } => {
                let own = format!("{GPUS}/{model}");
                (vec![GPUS.to_owned(), own.clone(), GPU_MEMORY_MIB.to_owned()], [(GPUS.to_owned(), 1), (own, 1)].into())
            }
            Wanted::Mig { profile, .. } | Wanted::Vgpu { type_name: profile } => {
                let own = format!("gpu_slices/{model}/{profile}");
                (vec![own.clone(), GPU_MEMORY_MIB.to_owned()], [(own, 1)].into())
            }
            Wanted::Pool { .. } => (Vec::new(), Charges::new()),
        }
    };
    let named = match wanted {
        Wanted::Gpu { model } | Wanted::Mig { model, .. } => model.as_ref(),
        Wanted::Vgpu { .. } | Wanted::Pool { .. } => None,
    };
    let candidates: BTreeSet<String> = named.map_or_else(|| known.clone(), |model| [model.clone()].into());
    let (mut granted, mut first) = (BTreeSet::new(), None);
    for model in &candidates {
        let (covering, charges) = of_model(model);
        if !covering.iter().any(|resource| limited(rows, tenant, resource)) {
            let specific = covering.iter().max_by_key(|resource| resource.len()).cloned().unwrap_or_default();
            first = first.or(Some(not_granted(tenant, &specific)));
            continue;
        }
        match admit(rows, &charges) {
            Ok(()) => {
                granted.insert(model.clone());
            }
            // A limit that is reached is the better reason than one that is missing.
            Err(error) => first = Some(error),
        }
    }
    match (granted.is_empty(), first) {
        (true, Some(error)) => Err(error),
        _ => Ok(granted),
    }
}

/// Also of pools, whose request names the resource.
pub fn not_granted(tenant: &TenantId, resource: &str) -> Error {
    let message = format!(
        "tenants/{tenant} has no limit that covers {resource}, and devices are denied without one; an operator grants it: \
         `croft quota set --tenant {tenant} {resource}=1`"
    );
    Error::precondition(Reason::DeviceNotGranted, format!("tenants/{tenant}"), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_has_one_spelling_each() {
        for good in [
            "gpus",
            "gpus/h100_sxm_80gb",
            "gpu_slices/h100_sxm_80gb/1g.10gb+me",
            "gpu_slices/l40s_48gb/L40S-8Q",
            "gpu_memory_mib",
            "devices/nic-vf",
        ] {
            assert!(Resource::parse(good).is_some(), "{good}");
        }
        for bad in
            ["", "gpu", "gpus/", "gpus/H100", "gpu_slices/h100", "gpu_slices/h100/", "devices", "devices/A", "gpus/a/b"]
        {
            assert!(Resource::parse(bad).is_none(), "{bad}");
        }
    }

    fn row(tenant: &str, resource: &str, limit: i64, used: i64) -> Quota {
        Quota { tenant: tenant.into(), resource: resource.into(), limit: Some(limit), used, generation: 1 }
    }

    #[test]
    fn devices_are_denied_without_a_limit_of_the_tenants_own() {
        let known: BTreeSet<String> = ["h100_sxm_80gb", "l40s_48gb"].map(str::to_owned).into();
        let any = Wanted::Gpu { model: None };
        let models = |rows: &[Quota]| models(rows, &"acme".into(), &any, &known);
        let refused = |rows: &[Quota]| models(rows).unwrap_err().reason();
        assert_eq!(refused(&[]), Reason::DeviceNotGranted);
        assert_eq!(
            refused(&[row("root", "gpus", 5, 0)]),
            Reason::DeviceNotGranted,
            "an ancestor's limit grants nothing"
        );
        assert_eq!(models(&[row("acme", "gpus", 5, 0)]).unwrap(), known);
        let of_one = [row("acme", "gpus/l40s_48gb", 1, 0)];
        assert_eq!(models(&of_one).unwrap(), ["l40s_48gb".to_owned()].into());
        let spent = [row("acme", "gpus/l40s_48gb", 1, 1)];
        assert_eq!(refused(&spent), Reason::QuotaExceeded);
        let above = [row("acme", "gpus", 5, 0), row("root", "gpus/l40s_48gb", 0, 0)];
        assert_eq!(models(&above).unwrap(), ["h100_sxm_80gb".to_owned()].into(), "every limit binds");
    }
}
