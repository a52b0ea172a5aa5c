//! `cargo xtask lint`: every check runs, also after one has failed; each says what it found and what it could not look at.

mod arrows;
mod licences;
mod packaging;
mod proto_reader;
mod protos;
mod rust;
mod sources;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Args;

use crate::packages;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only these checks.
    #[arg(long, value_name = "CHECK", value_parser = clap::builder::PossibleValuesParser::new(CHECKS.map(|(name, _)| name)))]
    only: Vec<String>,
}

/// What one check found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Each fails the lint.
    pub(crate) faults: Vec<String>,
    /// Worth a look; also what could not be checked.
    pub(crate) warnings: Vec<String>,
}

type Check = fn() -> Result<Findings>;

const CHECKS: [(&str, Check); 8] = [
    ("format", rust::format),
    ("clippy", rust::clippy),
    ("licences", licences::check),
    ("shell", sources::shell),
    ("protos", protos::check),
    ("arrows", arrows::check),
    ("sources", sources::check),
    ("packaging", packaging::check),
];

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    // Clippy compiles virt-sys; the rest needs no more than git and shellcheck.
    if let packages::Ensured::Installed(names) = packages::ensure(&[packages::BUILD, packages::LINT, packages::UNITS])?
    {
        println!("installed: {}", names.join(" "));
    }
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        if !options.only.is_empty() && !options.only.iter().any(|o| o == name) {
            continue;
        }
        let started = Instant::now();
        let findings = check()
            .unwrap_or_else(|e| Findings { faults: vec![format!("could not run: {e:#}")], warnings: Vec::new() });
        for fault in &findings.faults {
            println!("{name}: {fault}");
        }
        for warning in &findings.warnings {
            println!("{name}: warning: {warning}");
        }
        let verdict = if findings.faults.is_empty() { "ok" } else { "FAILED" };
        println!("{name}: {verdict} ({} s)", started.elapsed().as_secs());
        if !findings.faults.is_empty() {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        println!("lint: clean");
        return Ok(ExitCode::SUCCESS);
    }
    println!("lint: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}
