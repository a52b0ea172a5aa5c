//! What packages install: units that are hardened as far as the documentation says, and a schema number that is the schema's.
//!
//! systemd-analyze scores a unit by what it may do: 0 is nothing, 10 everything. A unit that may do more than before fails here,
//! and docs/packages.md says the figure.

use std::fs;

use anyhow::{Context, Result, bail};

use super::Findings;
use crate::run::Run;
use crate::workspace::root;

/// In tenths: what each unit may have at most.
const UNITS: [(&str, u32); 2] =
    [("packaging/controlplane/croft-controlplane.service", 11), ("packaging/hostagent/croft-hostagent.service", 41)];

const PREINST: &str = "packaging/controlplane/preinst";
const MIGRATIONS: &str = "migrations/sqlite";
const PAGE: &str = "docs/packages.md";

pub(super) fn check() -> Result<Findings> {
    let mut findings = Findings::default();
    let page = read(PAGE)?;
    for (unit, most) in UNITS {
        let score = score(unit)?;
        if score > most {
            findings.faults.push(format!("{unit}: exposure {}, more than {}", tenths(score), tenths(most)));
        }
        let name = unit.rsplit('/').next().unwrap_or(unit);
        if !page.contains(&format!("| `{name}` | {} |", tenths(score))) {
            findings.faults.push(format!("{PAGE} does not say that {name} has an exposure of {}", tenths(score)));
        }
    }
    let (said, newest) = (said_schema(&read(PREINST)?)?, newest_migration()?);
    if said != newest {
        findings.faults.push(format!("{PREINST} says schema={said}, and the newest of {MIGRATIONS} is {newest}"));
    }
    Ok(findings)
}

fn read(file: &str) -> Result<String> {
    fs::read_to_string(root().join(file)).with_context(|| format!("cannot read {file}"))
}

fn tenths(score: u32) -> String {
    format!("{}.{}", score / 10, score % 10)
}

fn score(unit: &str) -> Result<u32> {
    // 0: any score is success; the judgement is ours.
    let run = Run::new("systemd-analyze").dir(root()).args(["security", "--offline=true", "--no-pager", unit]);
    exposure(&run.stdout()?).with_context(|| format!("systemd-analyze security {unit} gives no exposure level"))
}

/// `→ Overall exposure level for croft-hostagent.service: 3.9 OK`, in tenths.
fn exposure(told: &str) -> Option<u32> {
    let (_, after) = told.lines().find(|line| line.contains("Overall exposure level"))?.rsplit_once(": ")?;
    let (whole, rest) = after.split_once('.')?;
    Some(whole.parse::<u32>().ok()? * 10 + rest.get(..1)?.parse::<u32>().ok()?)
}

fn said_schema(script: &str) -> Result<u32> {
    let number = script.lines().find_map(|line| line.strip_prefix("schema="));
    number.and_then(|n| n.parse().ok()).with_context(|| format!("{PREINST} has no line schema=NUMBER"))
}

fn newest_migration() -> Result<u32> {
    let dir = root().join(MIGRATIONS);
    let mut newest = None;
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let name = entry.with_context(|| format!("cannot list {}", dir.display()))?.file_name();
        let number = name.to_str().and_then(|name| name.split('_').next()).and_then(|n| n.parse::<u32>().ok());
        newest = newest.max(number);
    }
    match newest {
        Some(number) => Ok(number),
        None => bail!("{MIGRATIONS} has no migration"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposure_is_read_in_tenths() {
        let told = "  NAME ...\n\n\u{2192} Overall exposure level for croft-hostagent.service: 3.9 OK \u{1f642}\n";
        assert_eq!(exposure(told), Some(39));
        assert_eq!(exposure("x: 10.0 DANGEROUS\nOverall exposure level for x: 10.0 DANGEROUS"), Some(100));
        assert_eq!(exposure("Failed to read"), None);
    }

    #[test]
    fn the_schema_is_a_line_of_the_script() {
        assert_eq!(said_schema("#!/bin/sh\nschema=12\n").unwrap(), 12);
        said_schema("#!/bin/sh\n# schema=12\n").unwrap_err();
    }
}
