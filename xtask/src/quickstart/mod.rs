//! `cargo xtask quickstart`: from nothing to a tenant's running VM on this machine, and back with `--down`.
//!
//! Every step may be repeated: a second run finds what the first one made and goes on where it stopped. Nothing is made
//! outside the site's directory and the cache but system packages, and what libvirt keeps of a running VM.

mod croft;
mod daemon;
mod down;
mod guest;
mod hypervisor;
mod leftovers;
mod metrics;
mod plane;
mod shared;
mod site;
mod steps;
mod summary;
mod up;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::run::{have, is_root};
use site::Site;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Boot this qcow2 image (UEFI, with cloud-init) instead of building a Debian one.
    #[arg(long, value_name = "FILE", conflicts_with = "down")]
    image: Option<PathBuf>,
    /// Take it all away again, and prove that nothing is left.
    #[arg(long)]
    down: bool,
    /// Where everything is kept; must be readable by the user that runs QEMU.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/croft-quickstart")]
    dir: PathBuf,
    /// Install no system packages: stop and name those that are missing.
    #[arg(long, conflicts_with = "down")]
    keep_packages: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if !is_root() {
        if !have("sudo") {
            bail!("quickstart needs root or sudo: it runs libvirt, QEMU and the host agent");
        }
        println!("not root: packages, daemons and everything below {} go through sudo", options.dir.display());
    }
    let site = Site::at(&options.dir)?;
    if options.down { down::run(&site) } else { up::run(&site, options) }
}
