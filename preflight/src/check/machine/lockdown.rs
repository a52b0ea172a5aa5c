//! How far the kernel is locked down against root.

use super::super::{Check, Found};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "lockdown",
    looks_at: "/sys/kernel/security/lockdown",
    why: "integrity keeps unsigned modules out; confidentiality also hides what the agent reads of devices",
    worst: Level::Warn,
    role: None,
    look,
};

fn look(facts: &Facts) -> Found {
    // `none [integrity] confidentiality`
    let Some(text) = facts.attribute("/sys/kernel/security/lockdown")? else {
        return Ok(vec![Finding::ok("host", "none: the kernel has no lockdown, or securityfs is not mounted")]);
    };
    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("unknown", |(word, _)| word);
    Ok(vec![match chosen {
        "none" | "integrity" => Finding::ok("host", chosen),
        other => Finding::warn("host", other, "boot without lockdown=confidentiality"),
    }])
}
