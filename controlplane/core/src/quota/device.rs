//! What devices are counted as, and the rule that they are denied unless somebody granted them.
//!
//! | resource | counts |
//! |---|---|
//! | `gpus`, `gpus/{model}` | whole GPUs |
//! | `gpu_slices/{model}/{profile}` | slices: MIG profile or time-sliced vGPU type |
//! | `gpu_memory_mib` | memory of whole GPUs and, nominally, of slices |
//! | `devices/{pool}` | what was taken of a pool; a whole GPU out of one counts above, too |
//!
//! A device needs at least one limit on the tenant *itself* among those that it is charged to; out of a pool, the pool's. Every limit that is set, there
//! and above, binds.

use std::collections::{BTreeMap, BTreeSet};

use super::{Charges, Quota, admit};
use crate::device::{Assignment, Kind, POOL_ID_MAX, Request, Wanted};
use crate::error::{Error, QuotaViolation, Reason, Result};
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
    if let Some(pool) = &assignment.pool {
        charge(format!("devices/{pool}"), 1);
    }
    // Also out of a pool: whoever limits GPUs limits all of them.
    if assignment.kind == Kind::Gpu {
        if slice.is_empty() {
            charge(GPUS.to_owned(), 1);
            charge(format!("{GPUS}/{}", assignment.model), 1);
        } else {
            charge(format!("gpu_slices/{}/{slice}", assignment.model), 1);
        }
        charge(GPU_MEMORY_MIB.to_owned(), assignment.charged_memory_mib);
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
        let grants: Vec<String> = match &assignment.pool {
            Some(pool) => vec![format!("devices/{pool}")],
            None => charges(assignment).into_keys().collect(),
        };
        if !grants.iter().any(|resource| limited(rows, tenant, resource)) {
            let resource = grants.into_iter().max_by_key(String::len).unwrap_or_default();
            return Err(not_granted(tenant, &resource));
        }
    }
    Ok(())
}

fn limited(rows: &[Quota], tenant: &TenantId, resource: &str) -> bool {
    rows.iter().any(|row| row.tenant == *tenant && row.resource == resource && row.limit.is_some())
}

/// What a request may turn out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub model: String,
    /// MIG profile or time-sliced type; `None`: all of the GPU.
    pub slice: Option<String>,
    pub memory_mib: i64,
}

impl Candidate {
    #[must_use]
    pub fn charges(&self) -> Charges {
        let model = &self.model;
        let pieces = match &self.slice {
            None => vec![(GPUS.to_owned(), 1), (format!("{GPUS}/{model}"), 1)],
            Some(slice) => vec![(format!("gpu_slices/{model}/{slice}"), 1)],
        };
        let memory = (GPU_MEMORY_MIB.to_owned(), self.memory_mib);
        pieces.into_iter().chain([memory]).filter(|(_, amount)| *amount > 0).collect()
    }
}

/// By request, the models that quota leaves room for; or what it refuses, whatever is chosen. `candidates`: of a request that
/// is for a GPU. Early, so that nobody hears of room that he may not have; the claim decides, by the exact pieces.
pub fn allowed(
    rows: &[Quota],
    tenant: &TenantId,
    requests: &[Request],
    candidates: impl Fn(&Wanted) -> Vec<Candidate>,
) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let (mut sure, mut allowed) = (Charges::new(), BTreeMap::new());
    for request in requests {
        if let Wanted::Pool { pool } = &request.wanted {
            let resource = format!("devices/{pool}");
            if !limited(rows, tenant, &resource) {
                return Err(not_granted(tenant, &resource));
            }
            *sure.entry(resource).or_default() += 1;
            continue;
        }
        let candidates = candidates(&request.wanted);
        for (resource, amount) in common(&candidates) {
            *sure.entry(resource).or_default() += amount;
        }
        allowed.insert(request.id.clone(), models(rows, tenant, &candidates)?);
    }
    admit(rows, &sure)?;
    Ok(allowed)
}

/// What every candidate charges, at the least.
fn common(candidates: &[Candidate]) -> Charges {
    let mut charges = candidates.iter().map(Candidate::charges);
    let first = charges.next().unwrap_or_default();
    charges.fold(first, |common, other| {
        let least = |(resource, amount): (String, i64)| other.get(&resource).map(|own| (resource, amount.min(*own)));
        common.into_iter().filter_map(least).collect()
    })
}

/// Those of `candidates` that are granted and that there is room for.
fn models(rows: &[Quota], tenant: &TenantId, candidates: &[Candidate]) -> Result<BTreeSet<String>> {
    let (mut fitting, mut first) = (BTreeSet::new(), None);
    for candidate in candidates {
        let charges = candidate.charges();
        if !charges.keys().any(|resource| limited(rows, tenant, resource)) {
            let specific = charges.keys().max_by_key(|resource| resource.len()).cloned().unwrap_or_default();
            first = first.or_else(|| Some(not_granted(tenant, &specific)));
            continue;
        }
        match admit(rows, &charges) {
            Ok(()) => drop(fitting.insert(candidate.model.clone())),
            // A limit that is reached is the better reason than one that is missing.
            Err(error) => first = Some(error),
        }
    }
    match (fitting.is_empty(), first) {
        (true, Some(error)) => Err(error),
        _ => Ok(fitting),
    }
}

/// After quota refused exact pieces: takes the models that it refused from the requests that may be of another one. `false`:
/// there is no other one.
pub fn narrow(
    allowed: &mut BTreeMap<String, BTreeSet<String>>,
    given: &[Assignment],
    violations: &[QuotaViolation],
) -> bool {
    let largest = given.iter().filter(|one| !one.model.is_empty()).max_by_key(|one| one.charged_memory_mib);
    let refused: BTreeSet<&str> = violations
        .iter()
        .filter_map(|violation| match violation.resource.split('/').collect::<Vec<_>>()[..] {
            ["gpus" | "gpu_slices", model, ..] => Some(model),
            [GPU_MEMORY_MIB] => largest.map(|one| one.model.as_str()),
            _ => None,
        })
        .collect();
    let mut narrowed = false;
    for models in allowed.values_mut() {
        for model in &refused {
            narrowed |= models.len() > 1 && models.remove(*model);
        }
    }
    narrowed
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

    fn gpu(model: &str, memory_mib: i64) -> Candidate {
        Candidate { model: model.to_owned(), slice: None, memory_mib }
    }

    fn both(_: &Wanted) -> Vec<Candidate> {
        vec![gpu("h100_sxm_80gb", 81559), gpu("l40s_48gb", 46068)]
    }

    fn any(count: usize) -> Vec<Request> {
        (0..count).map(|at| Request { id: format!("gpu-{at}"), wanted: Wanted::Gpu { model: None } }).collect()
    }

    fn set(models: &[&str]) -> BTreeSet<String> {
        models.iter().map(|model| (*model).to_owned()).collect()
    }

    #[test]
    fn devices_are_denied_without_a_limit_of_the_tenants_own() {
        let models = |rows: &[Quota]| {
            allowed(rows, &"acme".into(), &any(1), both).map(|mut allowed| allowed.remove("gpu-0").unwrap())
        };
        let refused = |rows: &[Quota]| models(rows).unwrap_err().reason();
        assert_eq!(refused(&[]), Reason::DeviceNotGranted);
        assert_eq!(
            refused(&[row("root", "gpus", 5, 0)]),
            Reason::DeviceNotGranted,
            "an ancestor's limit grants nothing"
        );
        assert_eq!(models(&[row("acme", "gpus", 5, 0)]).unwrap(), set(&["h100_sxm_80gb", "l40s_48gb"]));
        let of_one = [row("acme", "gpus/l40s_48gb", 1, 0)];
        assert_eq!(models(&of_one).unwrap(), set(&["l40s_48gb"]));
        let spent = [row("acme", "gpus/l40s_48gb", 1, 1)];
        assert_eq!(refused(&spent), Reason::QuotaExceeded);
        let above = [row("acme", "gpus", 5, 0), row("root", "gpus/l40s_48gb", 0, 0)];
        assert_eq!(models(&above).unwrap(), set(&["h100_sxm_80gb"]), "every limit binds");
        let memory = [row("acme", "gpu_memory_mib", 50_000, 0)];
        assert_eq!(models(&memory).unwrap(), set(&["l40s_48gb"]));
    }

    #[test]
    fn what_every_choice_would_charge_is_refused_before_a_host_is_asked() {
        let rows = [row("acme", "gpus", 2, 1)];
        let Err(Error::QuotaExceeded(violations)) = allowed(&rows, &"acme".into(), &any(2), both) else {
            panic!("one is left")
        };
        assert_eq!((violations[0].resource.as_str(), violations[0].requested), ("gpus", 2));
        let pool = Request { id: "nic".into(), wanted: Wanted::Pool { pool: "nic-vf".into() } };
        let refused = |rows: &[Quota]| {
            allowed(rows, &"acme".into(), std::slice::from_ref(&pool), both).map(drop).unwrap_err().reason()
        };
        assert_eq!(refused(&rows), Reason::DeviceNotGranted);
        assert_eq!(refused(&[row("acme", "devices/nic-vf", 0, 0)]), Reason::QuotaExceeded);
    }

    #[test]
    fn a_model_that_quota_refused_gives_way_to_another_one() {
        let violation = |resource: &str| QuotaViolation {
            tenant: "acme".into(),
            resource: resource.to_owned(),
            limit: 1,
            used: 1,
            requested: 1,
        };
        let both = set(&["h100_sxm_80gb", "l40s_48gb"]);
        let mut allowed = BTreeMap::from([("gpu-0".to_owned(), both), ("mig-0".to_owned(), set(&["h100_sxm_80gb"]))]);
        assert!(!narrow(&mut allowed, &[], &[violation("gpus")]), "any model counts there");
        assert!(narrow(&mut allowed, &[], &[violation("gpus/h100_sxm_80gb")]));
        assert_eq!(allowed["gpu-0"], set(&["l40s_48gb"]));
        assert_eq!(allowed["mig-0"], set(&["h100_sxm_80gb"]), "named: it stays");
        assert!(!narrow(&mut allowed, &[], &[violation("gpus/h100_sxm_80gb")]), "nothing is left to try");
    }
}
