//! *packages*: our packages in clean Debian systems, from the first installation to the purge, and Debian's own judgement of
//! them (docs/packages.md).
//!
//! Nothing runs as a service there: what needs systemd as process 1 is tried on machines that boot (docs/lab.md).

mod life;
mod policy;

use std::time::Duration;

use anyhow::Result;

use super::{Lane, Name, Options, Ran, libvirt, timed};
use crate::debian::{self, Made, Profile, roots};
use crate::packages;
use crate::trial::Trial;
use crate::workspace::Metadata;

/// Debian 12 and 13.
const SUITES: [&str; 2] = ["bookworm", "trixie"];

pub(super) const LANE: Lane = Lane {
    name: Name::Packages,
    what: "Debian packages: install, upgrade, downgrade and purge in clean systems",
    budget: Duration::from_secs(5 * 60),
    packages: &[packages::BUILD, packages::PACKAGE, packages::CLEAN_ROOTS],
    obstacle: libvirt::obstacle,
    run: lane,
};

fn lane(options: &Options) -> Result<Ran> {
    let profile = if options.full { Profile::Release } else { Profile::Dev };
    let ((old, new), build) = timed(|| made(profile))?;
    let mut trial = Trial::default();
    let ((), tests) = timed(|| {
        policy::judged(&mut trial, &old);
        for suite in SUITES {
            life::of_packages(&mut trial, suite, &old, &new);
        }
        Ok(())
    })?;
    Ok(Ran { tally: trial.tally, build, tests })
}

/// Two versions of one compilation, and what the clean systems are unpacked from. The workspace's own comes last, so that the programs that other lanes find are those.
fn made(profile: Profile) -> Result<(Made, Made)> {
    for suite in SUITES {
        roots::bootstrapped(suite)?;
    }
    let own = debian::own_version(&Metadata::load()?)?;
    let new = debian::make(Some(&format!("{own}+next")), profile, None)?;
    Ok((debian::make(None, profile, None)?, new))
}
