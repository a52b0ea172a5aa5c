//! *provision*: two bare machines that boot by UEFI and GRUB, and the Ansible collection that makes hosts of them, upgrades
//! them and takes one out again (docs/provision.md).

use std::time::Duration;

use anyhow::Result;

use super::cargo_tests::{counted, with_environment};
use super::{Lane, Name, Options, Ran, timed};
use crate::provision;

pub(super) const LANE: Lane = Lane {
    name: Name::Provision,
    what: "bare machines to hosts by Ansible: a reboot, a tenant's VM, an upgrade beside a running one, a removal",
    budget: Duration::from_secs(15 * 60),
    packages: provision::PACKAGES,
    obstacle: provision::obstacle,
    run: lane,
};

fn lane(options: &Options) -> Result<Ran> {
    let (provided, build) = timed(|| provision::prepare(options.full))?;
    let (tally, tests) = timed(|| counted(&with_environment(provided.run()?, options)?))?;
    Ok(Ran { tally, build, tests })
}
