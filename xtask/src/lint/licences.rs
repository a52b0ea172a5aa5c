//! cargo-deny: licences, bans and sources of the whole graph (deny.toml), and advisories when their database can be had.

use anyhow::Result;

use super::Findings;
use crate::run::Run;
use crate::tools;
use crate::workspace::root;

pub(super) fn check() -> Result<Findings> {
    let deny = tools::ensure("cargo-deny")?;
    let mut findings = Findings::default();
    // The graph as Cargo.lock has it: this part needs no network.
    let run = |what: &[&str]| {
        Run::new(&deny)
            .dir(root())
            .args(["--workspace", "--all-features", "--locked", "check", "--hide-inclusion-graph"])
            .args(what)
    };
    let ended = run(&["bans", "licenses", "sources"]).ended()?;
    if !ended.success {
        findings.faults.push(format!("cargo deny check bans licenses sources:\n{}", ended.stderr.trim()));
    }
    let ended = run(&["advisories"]).ended()?;
    if !ended.success {
        let unreachable =
            ["failed to fetch advisory database", "unable to fetch", "failed to clone", "error trying to connect"];
        if unreachable.iter().any(|text| ended.stderr.contains(text)) {
            findings.warnings.push(
                "security advisories were NOT checked: their database is a git repository that cannot be reached from here"
                    .to_owned(),
            );
        } else {
            findings.faults.push(format!("cargo deny check advisories:\n{}", ended.stderr.trim()));
        }
    }
    Ok(findings)
}
