//! `cargo xtask kubernetes`: what the kubernetes lane needs that is not ours: Kubernetes' own programs, and a guest image
//! with one of them in it.
//!
//! Programs that the machine has are taken (found.rs), the others are built (programs.rs), the guest is made (guest.rs).
//! Both lie in the cache under a digest of what they were made of and how; they appear there whole or not at all.

mod found;
mod guest;
mod programs;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::packages;
use crate::run::Run;
use crate::workspace::{cache_dir, root};

/// Built where the machine has none, unless CROFT_KUBERNETES_VERSION says otherwise.
const VERSION: &str = "v1.36.3";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The programs alone: neither root nor a guest image is needed for a control plane.
    #[arg(long)]
    programs: bool,
}

/// Where everything lies.
#[derive(Debug)]
pub(crate) struct Kubernetes {
    /// A directory with etcd and the five programs of one version of Kubernetes.
    pub(crate) programs: PathBuf,
    /// A directory with the disk, kernel and initramfs of a guest that can become a node.
    pub(crate) guest: PathBuf,
}

pub(crate) fn command(options: &Options) -> Result<()> {
    if options.programs {
        return told(&programs::ensure()?);
    }
    packages::ensure(&[packages::NODE])?;
    let kubernetes = ensure()?;
    told(&kubernetes.programs)?;
    told(&kubernetes.guest)
}

/// Everything, made if it is not there: minutes, once. The packages must be there.
pub(crate) fn ensure() -> Result<Kubernetes> {
    let programs = programs::ensure()?;
    let guest = guest::ensure(&programs.join("kubelet"))?;
    Ok(Kubernetes { programs, guest })
}

/// Why this machine cannot have it, packages apart.
pub(crate) fn obstacle() -> Option<String> {
    programs::obstacle().unwrap_or_else(|error| Some(format!("{error:#}")))
}

/// The directory, and what its makers wrote down: versions, sizes, seconds.
fn told(dir: &Path) -> Result<()> {
    println!("{}", dir.display());
    let facts = dir.join("facts");
    let text = fs::read_to_string(&facts).with_context(|| format!("cannot read {}", facts.display()))?;
    text.lines().for_each(|line| println!("    {line}"));
    Ok(())
}

fn recipe() -> PathBuf {
    root().join("tests/kubernetes")
}

fn cache() -> Result<PathBuf> {
    cache_dir("kubernetes")
}

/// Removes what the cache holds under names that begin so: the guest's is root's, so with root where there is need.
/// Under the lock, so that it is nobody's unfinished work.
fn forget(cache: &Path, prefix: &str, as_root: bool) -> Result<()> {
    let entries = fs::read_dir(cache).with_context(|| format!("cannot list {}", cache.display()))?;
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)) {
        let remove = Run::new("rm").args(["-rf", "--one-file-system", "--"]).arg(entry.path());
        if as_root { remove.with_root() } else { remove }.stdout()?;
    }
    Ok(())
}
