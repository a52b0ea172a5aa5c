//! `cargo xtask bench`: the benchmark program of croft-tests, optimised. Its two halves run one after the other: the plane
//! against its disk, right here; the agent against `virsh`, beside a libvirtd of its own (`tests/with-libvirtd.sh`).

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::lanes::libvirt;
use crate::packages;
use crate::run::Run;
use crate::workspace::{Metadata, cargo, root};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only this half.
    #[arg(long, value_enum)]
    only: Option<Half>,
    /// Passed on to the benchmark; `-- --help` lists them.
    #[arg(last = true)]
    args: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Half {
    Creates,
    Virsh,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    packages::ensure(&[packages::BUILD, packages::HOST])?;
    // The virsh half starts the plane and the agent as processes.
    let packages = ["--package", "croft-tests", "--package", "croft-controlplane", "--package", "croft-hostagent"];
    cargo().args(["build", "--quiet", "--release", "--bins"]).args(packages).show()?;
    let bench = Metadata::load()?.target_dir()?.join("release/croft-bench");
    let part = |half: &str| Run::new(&bench).args(["--only", half]).args(&options.args);
    let mut success = true;
    if options.only != Some(Half::Virsh) {
        success &= part("creates").show_status()?;
    }
    if options.only != Some(Half::Creates) {
        success &= match libvirt::obstacle() {
            Some(obstacle) => {
                println!("agent define+start beside virsh: not run, {obstacle}");
                true
            }
            None => {
                libvirt::fetch_guest()?;
                let bubble = Run::new(root().join("tests/with-libvirtd.sh")).arg(&bench).args(["--only", "virsh"]);
                bubble.args(&options.args).with_root().show_status()?
            }
        };
    }
    Ok(if success { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
