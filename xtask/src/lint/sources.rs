//! What no compiler looks at: shell scripts, files that grew too long, work that was left for later.

use std::fs;

use anyhow::{Context, Result, bail};

use super::Findings;
use crate::run::Run;
use crate::workspace::{files, root};

/// A file is one idea; past this it probably holds two.
const MAX_LINES: usize = 450;

/// Put together here, so that this file does not find itself.
const LEFT_FOR_LATER: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimplemented", "!(")];

/// shellcheck on every script, whatever its name ends in.
pub(super) fn shell() -> Result<Findings> {
    let mut scripts = Vec::new();
    for file in files()? {
        let start = fs::read(root().join(&file)).with_context(|| format!("cannot read {file}"))?;
        let first = start.split(|b| *b == b'\n').next().unwrap_or_default();
        let shebang =
            ["#!/bin/sh", "#!/bin/bash", "#!/usr/bin/env bash"].iter().any(|s| first.starts_with(s.as_bytes()));
        if shebang || file.ends_with(".sh") {
            scripts.push(file);
        }
    }
    if scripts.is_empty() {
        bail!("found no script");
    }
    let ended =
        Run::new("shellcheck").dir(root()).args(["--format=gcc", "--external-sources"]).args(&scripts).ended()?;
    let mut faults: Vec<String> = ended.stdout.lines().map(str::to_owned).collect();
    if !ended.success && faults.is_empty() {
        faults.push(ended.stderr);
    }
    Ok(Findings { faults, warnings: Vec::new() })
}

pub(super) fn check() -> Result<Findings> {
    let mut findings = Findings::default();
    for file in files()? {
        if !["rs", "proto", "sql", "sh", "toml"].iter().any(|end| file.ends_with(&format!(".{end}"))) {
            continue;
        }
        let text = fs::read_to_string(root().join(&file)).with_context(|| format!("cannot read {file}"))?;
        look(&file, &text, &mut findings);
    }
    Ok(findings)
}

fn look(file: &str, text: &str, findings: &mut Findings) {
    let lines = text.lines().count();
    if lines > MAX_LINES {
        findings.warnings.push(format!("{file} has {lines} lines, more than {MAX_LINES}: is it one idea?"));
    }
    for (index, line) in text.lines().enumerate() {
        for word in LEFT_FOR_LATER.iter().filter(|w| line.contains(**w)) {
            findings.faults.push(format!("{file}:{}: {word} is work left for later", index + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_left_for_later_is_a_fault_and_length_a_warning() {
        let mut findings = Findings::default();
        let text = format!("fn a() {{\n    {}\n}}\n{}", LEFT_FOR_LATER[2], "\n".repeat(MAX_LINES));
        look("a.rs", &text, &mut findings);
        assert_eq!(findings.faults.len(), 1);
        assert!(findings.faults[0].starts_with("a.rs:2:"), "{:?}", findings.faults);
        assert_eq!(findings.warnings.len(), 1);
    }
}
