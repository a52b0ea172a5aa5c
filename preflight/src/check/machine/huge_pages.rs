//! Pages of 2 MiB and 1 GiB that were set apart.

use super::super::{Check, Found};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "huge-pages",
    looks_at: "the pools in /sys/kernel/mm/hugepages",
    why: "instances that ask for huge pages are placed only where some are set apart; large guests with devices start faster on them",
    worst: Level::Info,
    role: Some("kernel"),
    look,
};

const POOLS: &str = "/sys/kernel/mm/hugepages";

fn look(facts: &Facts) -> Found {
    let mut told = Vec::new();
    for pool in facts.names(POOLS)? {
        let Some(kib) = pool.strip_prefix("hugepages-").and_then(|rest| rest.strip_suffix("kB")) else { continue };
        let size = kib.parse::<u64>().unwrap_or_default();
        let total =
            facts.fs.parse(&format!("{POOLS}/{pool}/nr_hugepages"), "a number of pages", |text| text.parse().ok());
        let free =
            facts.fs.parse(&format!("{POOLS}/{pool}/free_hugepages"), "a number of pages", |text| text.parse().ok());
        let (total, free): (u64, u64) = (total?, free?);
        if total > 0 {
            told.push(format!("{total} of {} MiB ({free} free)", size / 1024));
        }
    }
    Ok(vec![match told[..] {
        [] => Finding::info(
            "host",
            "none set apart",
            "if instances shall have them: default_hugepagesz=1G hugepagesz=1G hugepages=N in the kernel arguments",
        )
        .by("kernel"),
        _ => Finding::ok("host", told.join(", ")),
    }])
}
