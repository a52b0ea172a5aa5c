//! What the lab boots: made once per content of its recipe (`tests/lab`) and of its options, then found in the cache.
//!
//! What the Debian archive serves is not part of the key: remove the directory to get today's packages.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::guest_image::{sha256, sha256_text};
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
    let dir = cache.join(key(&recipe, &options)?);
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

fn key(recipe: &Path, options: &[(&str, String)]) -> Result<String> {
    let mut files = Vec::new();
    for part in RECIPE {
        list(&recipe.join(part), &mut files)?;
    }
    files.sort();
    let mut digest = String::new();
    for file in &files {
        let name = file.strip_prefix(recipe).unwrap_or(file).display().to_string();
        digest = sha256_text(&format!("{digest} {name} {}", sha256(file)?))?;
    }
    for (name, value) in options {
        digest = sha256_text(&format!("{digest} {name}={value}"))?;
    }
    Ok(digest.chars().take(16).collect())
}

fn list(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))? {
        list(&entry.with_context(|| format!("cannot list {}", path.display()))?.path(), files)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_of_every_file_of_the_recipe_and_of_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("host/etc")).unwrap();
        fs::create_dir_all(dir.path().join("guest")).unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        for name in ["build.sh", "guest/init", "host/etc/one"] {
            write(name, name);
        }
        let key = |options: &[(&str, String)]| super::key(dir.path(), options).unwrap();
        let first = key(&[]);
        write("in-namespace.sh", "no part of it");
        assert_eq!(key(&[]), first);
        assert_ne!(key(&[("SUITE", "forky".to_owned())]), first);
        write("host/etc/one", "changed");
        assert_ne!(key(&[]), first);
    }
}
