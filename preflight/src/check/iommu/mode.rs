//! Do the host's own devices go around the IOMMU (identity), or through its tables?

use std::collections::BTreeMap;

use super::super::{Check, Found};
use super::on::isolating_groups;
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "iommu-mode",
    looks_at: "the type of each IOMMU group: identity, DMA, DMA-FQ",
    why: "where the host's own devices are translated, its network and disks are slower; guests are isolated either way",
    worst: Level::Info,
    role: Some("kernel"),
    look,
};

fn look(facts: &Facts) -> Found {
    let mut types: BTreeMap<String, usize> = BTreeMap::new();
    for group in isolating_groups(facts)? {
        let kind = facts.attribute(&format!("/sys/kernel/iommu_groups/{group}/type"))?;
        *types.entry(kind.unwrap_or_else(|| "unknown".to_owned())).or_default() += 1;
    }
    if types.is_empty() {
        return Ok(Vec::new());
    }
    let total: usize = types.values().sum();
    let told: Vec<_> = types.iter().map(|(kind, number)| format!("{kind} ({number} of {total})")).collect();
    let found = told.join(", ");
    Ok(vec![match types.contains_key("identity") {
        true => Finding::ok("host", found),
        false => Finding::info("host", found, "boot with iommu=pt").by("kernel"),
    }])
}
