//! `cargo xtask provision`: bare machines become hosts by the Ansible collection, are upgraded, and stop being hosts
//! (docs/provision.md).
//!
//! ```text
//!  outside, where the network is:  disk of a bare host, archive of packages, Ansible, packages of two versions   prepare.rs
//!  in a namespace of its own:      ansible-playbook, croft, packages by HTTP                                     story.rs
//!                                     10.77.0.1 ─┬─ tap ─ [ h1: plane and host ]                                 network.rs
//!                                                └─ tap ─ [ h2: host ]                                           machine.rs
//! ```
//! What runs inside is this program again (`provision-inside`), as root, below tests/lab/in-namespace.sh: whatever it starts ends
//! with it. It builds nothing and sees no other network.

mod croft;
mod guests;
mod machine;
mod network;
mod playbook;
mod prepare;
mod repository;
mod secrets;
mod seed;
mod story;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

pub(crate) use prepare::{PACKAGES, obstacle, prepare};

use crate::run::Run;
use crate::trial::Trial;
use crate::workspace::root;

/// All that was made outside.
#[derive(Debug, Args)]
pub(crate) struct Provided {
    /// The disk of a bare host
    #[arg(long)]
    disk: PathBuf,
    /// Debian's packages that it will need
    #[arg(long)]
    archive: PathBuf,
    /// What `cargo xtask lab` boots: the emulator and the guests' kernel are of there
    #[arg(long)]
    lab: PathBuf,
    /// The directory of Ansible's programs
    #[arg(long)]
    ansible: PathBuf,
    /// Our packages
    #[arg(long)]
    packages: PathBuf,
    /// Our packages as a later version
    #[arg(long)]
    later: PathBuf,
    /// Which version that is
    #[arg(long)]
    later_version: String,
    /// The long form
    #[arg(long)]
    full: bool,
}

impl Provided {
    /// The run of all of it.
    pub(crate) fn run(&self) -> Result<Run> {
        let program = env::current_exe().context("cannot tell where this program lies")?;
        let mut run = Run::new(root().join("tests/lab/in-namespace.sh")).arg(program).arg("provision-inside");
        let paths = [
            ("--disk", &self.disk),
            ("--archive", &self.archive),
            ("--lab", &self.lab),
            ("--ansible", &self.ansible),
            ("--packages", &self.packages),
            ("--later", &self.later),
        ];
        for (option, path) in paths {
            run = run.arg(option).arg(path);
        }
        run = run.args(["--later-version", &self.later_version]);
        if self.full {
            run = run.arg("--full");
        }
        if let Some(keep) = env::var_os("CROFT_LAB_KEEP") {
            run = run.env("CROFT_LAB_KEEP", keep);
        }
        // By which this program finds the repository (workspace.rs); sudo drops what is not named.
        Ok(run
            .env("CARGO_MANIFEST_DIR", root().join("xtask"))
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .with_root())
    }
}

/// `cargo xtask provision`: the lane alone, with its times.
pub(crate) fn command(full: bool) -> Result<ExitCode> {
    if let Some(obstacle) = obstacle() {
        anyhow::bail!("this machine cannot do it: {obstacle}");
    }
    crate::packages::ensure(PACKAGES)?;
    let passed = prepare(full)?.run()?.show_status()?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `provision-inside`: in the namespace, as root.
pub(crate) fn inside(provided: &Provided) -> Result<ExitCode> {
    let work = env::var_os("CROFT_LAB_WORK");
    let work =
        PathBuf::from(work.context("this is started by tests/lab/in-namespace.sh; use `cargo xtask provision`")?);
    let mut trial = Trial::default();
    story::tell(&mut trial, provided, &work);
    println!("{}", trial.closing());
    Ok(if trial.tally.count.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
