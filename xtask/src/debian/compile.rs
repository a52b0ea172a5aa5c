//! The programs of one version.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{PACKAGES, Profile};
use crate::workspace::{Metadata, cargo};

/// What the programs' `main.rs` looks at when it is compiled. Not set for the workspace's own version, so that the programs are
/// the very ones that every other `cargo build` makes.
const VARIABLE: &str = "CROFT_VERSION";

/// Compiles them, and returns where each package's is.
pub(super) fn programs(
    metadata: &Metadata,
    profile: Profile,
    version: Option<&String>,
) -> Result<Vec<(&'static str, PathBuf)>> {
    // All default members, and not each by itself: what is compiled depends on who is compiled with it.
    let mut build = cargo().without(&[VARIABLE]).args(["build", "--quiet", "--locked"]);
    let folder = match profile {
        Profile::Release => {
            build = build.arg("--release");
            "release"
        }
        Profile::Dev => "debug",
    };
    if let Some(version) = version {
        build = build.env(VARIABLE, version);
    }
    build.show().context("the programs do not compile")?;
    let folder = metadata.target_dir()?.join(folder);
    Ok(PACKAGES.iter().map(|package| (package.name, folder.join(package.name))).collect())
}
