//! *story*: whole fleets in one process (real gRPC, real SQLite, simulated hosts), kills of real processes, and a real
//! Prometheus over a fleet.

use std::time::Duration;

use anyhow::Result;

use super::cargo_tests::{build_binaries, programs, run};
use super::{Lane, Name, Options, Ran, kubernetes, lab, libvirt, timed};
use crate::packages;
use crate::workspace::Metadata;

/// Where the stories live.
pub(super) const PACKAGE: &str = "croft-tests";

pub(super) const LANE: Lane = Lane {
    name: Name::Story,
    what: "fleets of simulated hosts: real gRPC, real SQLite, kills at every step; monitoring/ by a real Prometheus",
    budget: Duration::from_secs(150),
    packages: &[packages::BUILD, packages::MONITORING],
    obstacle: || None,
    run: lane,
};

fn lane(options: &Options) -> Result<Ran> {
    let mut selection = ["-p", PACKAGE, "--lib"].map(str::to_owned).to_vec();
    for target in Metadata::load()?.targets(PACKAGE, "test")? {
        if [libvirt::TARGETS, lab::TARGETS, kubernetes::TARGETS]
            .iter()
            .all(|theirs| !theirs.contains(&(PACKAGE, target.as_str())))
        {
            selection.extend(["--test".to_owned(), target]);
        }
    }
    let (programs, build) = timed(|| {
        build_binaries()?;
        programs(&selection)
    })?;
    let (tally, tests) = timed(|| run(&programs, None, options))?;
    Ok(Ran { tally, build, tests })
}
