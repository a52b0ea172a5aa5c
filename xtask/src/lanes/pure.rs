//! *pure*: unit and property tests of every crate, and their documentation tests. No daemon, no root, no network.

use std::time::Duration;

use anyhow::Result;

use super::cargo_tests::{programs, run};
use super::{Lane, Name, Options, Ran, kubernetes, libvirt, timed};
use crate::packages;
use crate::workspace::Metadata;

pub(super) const LANE: Lane = Lane {
    name: Name::Pure,
    what: "unit, snapshot and property tests of every crate",
    budget: Duration::from_secs(150),
    packages: &[packages::BUILD],
    obstacle: || None,
    run: lane,
};

fn lane(options: &Options) -> Result<Ran> {
    let everywhere = ["--workspace", "--exclude", super::story::PACKAGE].map(str::to_owned).to_vec();
    let mut selection = everywhere.clone();
    selection.extend(["--lib", "--bins"].map(str::to_owned));
    for name in test_targets(&Metadata::load()?)? {
        selection.extend(["--test".to_owned(), name]);
    }
    let (programs, build) = timed(|| programs(&selection))?;
    let (tally, tests) = timed(|| run(&programs, Some(&everywhere), options))?;
    Ok(Ran { tally, build, tests })
}

/// The integration tests of every crate but those that another lane runs.
fn test_targets(metadata: &Metadata) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for package in metadata.packages()? {
        let package = package["name"].as_str().unwrap_or_default();
        if package == super::story::PACKAGE {
            continue;
        }
        let targets = metadata.targets(package, "test")?;
        let elsewhere = [libvirt::TARGETS, kubernetes::TARGETS].concat();
        names.extend(targets.into_iter().filter(|t| !elsewhere.contains(&(package, t.as_str()))));
    }
    Ok(names)
}
