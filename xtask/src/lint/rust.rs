//! rustfmt and clippy, as the workspace's own settings have them.

use anyhow::Result;

use super::Findings;
use crate::workspace::cargo;

pub(super) fn format() -> Result<Findings> {
    let mut findings = Findings::default();
    let ended = cargo().args(["fmt", "--all", "--", "--check", "-l"]).ended()?;
    if ended.success {
        return Ok(findings);
    }
    if ended.stdout.trim().is_empty() {
        // Not a difference: rustfmt is missing, or a file does not parse.
        findings.faults.push(ended.stderr.trim().to_owned());
    }
    findings.faults.extend(ended.stdout.lines().map(|file| format!("{file} is not formatted: run cargo fmt")));
    Ok(findings)
}

pub(super) fn clippy() -> Result<Findings> {
    let mut findings = Findings::default();
    let clippy = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    if !cargo().args(clippy).show_status()? {
        findings.faults.push("see above; without clippy: rustup component add clippy".to_owned());
    }
    Ok(findings)
}
