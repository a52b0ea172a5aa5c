//! cargo-deny: licences, bans and sources of the whole graph (deny.toml), and advisories when their database can be had.
//!
//! cargo-deny is installed from its crate into the cache, once; a version of it that is already on PATH is used instead.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Findings;
use crate::run::Run;
use crate::workspace::{cache_dir, cargo, root};

pub(super) fn check() -> Result<Findings> {
    let deny = cargo_deny()?;
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

fn cargo_deny() -> Result<PathBuf> {
    if Run::new("cargo-deny").arg("--version").ended().is_ok_and(|ended| ended.success) {
        return Ok(PathBuf::from("cargo-deny"));
    }
    let tools = cache_dir("tools")?;
    let program = tools.join("bin/cargo-deny");
    if !program.is_file() {
        println!("licences: installing cargo-deny from its crate into {}", tools.display());
        cargo()
            // Unoptimised: it runs for seconds, and builds in a third of the time.
            .args(["install", "cargo-deny", "--locked", "--debug", "--quiet", "--root"])
            .arg(&tools)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_TARGET_DIR", tools.join("target"))
            .show()
            .context("cannot install cargo-deny")?;
        std::fs::remove_dir_all(tools.join("target")).context("cannot remove what cargo-deny was built in")?;
    }
    Ok(program)
}
