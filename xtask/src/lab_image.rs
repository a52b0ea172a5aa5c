//! What the lab boots: made once per content of its recipe (`tests/lab`) and of its options, then found in the cache.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::recipe;
use crate::run::{Run, user_id};
use crate::workspace::{cache_dir, root};

/// What the recipe consists of, below `tests/lab`.
const RECIPE: [&str; 3] = ["build.sh", "guest", "host"];

/// What build.sh reads from the environment.
const OPTIONS: [&str; 2] = ["SUITE", "MIRROR"];

/// The directory with kernel, disk, guests and emulator, made if it is not there. Needs root (or sudo) only to make it.
pub(crate) fn ensure() -> Result<PathBuf> {
    let recipe = root().join("tests/lab");
    let options: Vec<(&str, String)> =
        OPTIONS.iter().filter_map(|name| Some((*name, env::var(format!("CROFT_LAB_{name}")).ok()?))).collect();
    let cache = cache_dir("lab")?;
    let dir = cache.join(recipe::key(&recipe, &RECIPE, &options)?);
    if dir.is_dir() {
        return Ok(dir);
    }
    println!("--> making the lab's host (kernel, disk, guests, emulator): minutes, and only this once");
    forget_old_ones(&cache)?;
    let mut build = Run::new(recipe.join("build.sh")).arg(&dir).with_root();
    for (name, value) in &options {
        build = build.env(name, value);
    }
    build.logged(&cache.join("build.log")).context("cannot make the lab's host")?;
    if user_id() != 0 {
        // It lies in the user's own cache.
        Run::new("chown").arg("-R").arg(user_id().to_string()).arg(&dir).with_root().stdout()?;
    }
    Ok(dir)
}

/// A gigabyte each, and none of another recipe is asked for again.
fn forget_old_ones(cache: &Path) -> Result<()> {
    let entries = fs::read_dir(cache).with_context(|| format!("cannot list {}", cache.display()))?;
    let is_made = |path: &PathBuf| path.join("facts").is_file();
    for old in entries.flatten().map(|entry| entry.path()).filter(is_made) {
        Run::new("rm").args(["-rf", "--one-file-system", "--"]).arg(&old).with_root().stdout()?;
    }
    Ok(())
}
