//! *lab*: the device paths against a real kernel: a GPU host in one QEMU process, without hardware (docs/lab.md).
//!
//! The test program is built outside and only runs in a network namespace with a loopback of its own.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use super::cargo_tests::{Program, build_binaries, counted, programs, with_environment};
use super::{Lane, Name, Options, Ran, libvirt, story, timed};
use crate::run::Run;
use crate::workspace::{Metadata, cargo, root};
use crate::{lab_image, packages};

/// (package, test target): left out of the other lanes.
pub(super) const TARGETS: &[(&str, &str)] = &[(story::PACKAGE, "lab")];

pub(super) const LANE: Lane = Lane {
    name: Name::Lab,
    what: "device paths on a real kernel: an emulated GPU host, its agent, nested KVM guests",
    budget: Duration::from_secs(14 * 60),
    packages: &[packages::BUILD, packages::LAB],
    obstacle: libvirt::obstacle,
    run: lane,
};

fn lane(options: &Options) -> Result<Ran> {
    let (prepared, build) = timed(prepare)?;
    let (tally, tests) = timed(|| counted(&with_environment(prepared.run()?, options)?))?;
    Ok(Ran { tally, build, tests })
}

/// `cargo xtask lab`: the same, and nothing else; its table is the last thing told.
pub(crate) fn command(full: bool) -> Result<ExitCode> {
    packages::ensure(LANE.packages)?;
    let options = Options { full, lane: Vec::new() };
    let passed = with_environment(prepare()?.run()?, &options)?.show_status()?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Debug)]
struct Prepared {
    image: PathBuf,
    program: Program,
    target_dir: PathBuf,
}

fn prepare() -> Result<Prepared> {
    let image = lab_image::ensure()?;
    build_binaries()?;
    // The tool by which the test speaks to the device library inside the lab, without an agent.
    cargo().args(["build", "--quiet", "-p", "croft-gpu", "--examples"]).show()?;
    let (package, target) = TARGETS[0];
    let program = programs(&["-p", package, "--test", target].map(str::to_owned))?.remove(0);
    Ok(Prepared { image, program, target_dir: Metadata::load()?.target_dir()? })
}

impl Prepared {
    fn run(&self) -> Result<Run> {
        /// What a person sets, and sudo would drop.
        const WISHES: [&str; 2] = ["CROFT_LAB_KEEP", "CROFT_LAB_ROWS"];
        let run = Run::new(root().join("tests/lab/in-namespace.sh"))
            .arg(&self.program.file)
            .args(["--nocapture", "--test-threads", "1"])
            .dir(&self.program.package_dir)
            .env("CARGO_MANIFEST_DIR", &self.program.package_dir)
            .env("CARGO_TARGET_DIR", &self.target_dir)
            .env("CROFT_LAB_IMAGE", &self.image)
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .with_root();
        let wishes = WISHES.iter().filter_map(|name| Some((*name, env::var_os(name)?)));
        Ok(wishes.fold(run, |run, (name, value)| run.env(name, value)))
    }
}
