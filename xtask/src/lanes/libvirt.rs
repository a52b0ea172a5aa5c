//! *libvirt*: the real libvirtd and QEMU, in namespaces of their own (tests/with-libvirtd.sh), so that neither the
//! machine's network nor a libvirtd that it already runs is touched.
//!
//! The test programs are built outside, by whoever runs us, and only run in there: no network, and perhaps another user.

use std::env;
use std::time::Duration;

use anyhow::Result;

use super::cargo_tests::{build_binaries, counted, programs, with_environment};
use super::{Lane, Name, Options, Ran, story, timed};
use crate::closing::Tally;
use crate::packages;
use crate::run::{Run, is_root};
use crate::workspace::{Metadata, root};

/// (package, test target): left out of the other lanes.
pub(super) const TARGETS: &[(&str, &str)] = &[("croft-hostagent", "libvirt_backend"), (story::PACKAGE, "libvirt")];

pub(super) const LANE: Lane = Lane {
    name: Name::Libvirt,
    what: "the real libvirtd and QEMU in namespaces of their own",
    budget: Duration::from_secs(600),
    packages: &[packages::BUILD, packages::HOST, packages::IMAGE],
    obstacle,
    run: lane,
};

pub(crate) fn obstacle() -> Option<String> {
    if env::consts::ARCH != "x86_64" {
        return Some(format!("its guests are x86_64 and this machine is {}", env::consts::ARCH));
    }
    let sudo = || Run::new("sudo").args(["-n", "true"]).ended().is_ok_and(|ended| ended.success);
    (!is_root() && !sudo()).then(|| "needs root, or sudo without a password, for namespaces and bridges".to_owned())
}

fn lane(options: &Options) -> Result<Ran> {
    let (programs, build) = timed(|| {
        build_binaries()?;
        fetch_guest()?;
        let mut selection = Vec::new();
        for (package, target) in TARGETS {
            selection.extend(["-p", package, "--test", target].map(str::to_owned));
        }
        programs(&selection)
    })?;
    let target_dir = Metadata::load()?.target_dir()?;
    let (tally, tests) = timed(|| {
        let mut tally = Tally::default();
        for program in &programs {
            println!("--> {}", program.name);
            let run = Run::new(root().join("tests/with-libvirtd.sh"))
                .arg(&program.file)
                .dir(&program.package_dir)
                .env("CARGO_MANIFEST_DIR", &program.package_dir)
                .env("CARGO_TARGET_DIR", &target_dir)
                .env("PATH", env::var_os("PATH").unwrap_or_default())
                .with_root();
            tally += counted(&with_environment(run, options)?)?;
        }
        Ok(tally)
    })?;
    Ok(Ran { tally, build, tests })
}

/// There is no network in the namespaces: what the small guest is made of must be in the cache before.
pub(crate) fn fetch_guest() -> Result<()> {
    let scratch = Metadata::load()?.target_dir()?.join("tmp/tiny-guest");
    Run::new(root().join("tests/tiny-guest.sh")).arg(scratch).with_root().stdout().map(|_| ())
}
