//! *kubernetes*: a real control plane, and guests that become nodes of it, beside the libvirtd of tests/with-libvirtd.sh.
//!
//! The programs and the guest are found or made before (xtask/src/kubernetes): there is no network in the namespaces.

use std::env;
use std::time::Duration;

use anyhow::Result;

use super::cargo_tests::{build_binaries, counted, programs, with_environment};
use super::{Lane, Name, Options, Ran, libvirt, timed};
use crate::closing::Tally;
use crate::run::Run;
use crate::workspace::{Metadata, root};
use crate::{kubernetes, packages};

/// (package, test target): left out of the other lanes.
pub(super) const TARGETS: &[(&str, &str)] = &[
    ("croft-test-cluster", "control_plane"),
    ("croft-kube", "real"),
    ("croft-controlplane", "clusters"),
    ("croft-tests", "nodes_real"),
    ("croft-test-cluster", "node"),
];

pub(super) const LANE: Lane = Lane {
    name: Name::Kubernetes,
    what: "a real Kubernetes control plane, and guests that join it as nodes",
    budget: Duration::from_secs(15 * 60),
    packages: &[packages::BUILD, packages::HOST, packages::NODE],
    obstacle: || libvirt::obstacle().or_else(kubernetes::obstacle),
    run: lane,
};

fn lane(options: &Options) -> Result<Ran> {
    let (prepared, build) = timed(|| {
        let provided = kubernetes::ensure()?;
        build_binaries()?;
        let mut selection = Vec::new();
        for (package, target) in TARGETS {
            selection.extend(["-p", package, "--test", target].map(str::to_owned));
        }
        Ok((provided, programs(&selection)?))
    })?;
    let (provided, programs) = prepared;
    let target_dir = Metadata::load()?.target_dir()?;
    let (tally, tests) = timed(|| {
        let mut tally = Tally::default();
        for program in &programs {
            println!("--> {}", program.name);
            let run = Run::new(root().join("tests/with-libvirtd.sh"))
                .arg(&program.file)
                // Their steps' times are of interest, and two guests at once are slower than one after the other.
                .args(["--nocapture", "--test-threads", "1"])
                .dir(&program.package_dir)
                .env("CARGO_MANIFEST_DIR", &program.package_dir)
                .env("CARGO_TARGET_DIR", &target_dir)
                .env("CROFT_KUBERNETES_BIN", &provided.programs)
                .env("CROFT_KUBERNETES_GUEST", &provided.guest)
                .env("PATH", env::var_os("PATH").unwrap_or_default())
                .with_root();
            tally += counted(&with_environment(run, options)?)?;
        }
        Ok(tally)
    })?;
    Ok(Ran { tally, build, tests })
}
