//! The Debian guest image: built once per content of its script and options, then found in the cache.
//!
//! The key is a digest of `guest-image/build.sh` and of the options, so a changed script makes a new image. What the
//! Debian archive serves is not part of it: remove the file to get today's packages.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::packages;
use crate::recipe;
use crate::run::{Run, user_id};
use crate::workspace::{cache_dir, root};

/// What build.sh reads from the environment.
const OPTIONS: [&str; 5] = ["SUITE", "MIRROR", "KERNEL", "PACKAGES", "SIZE"];

/// An image in the cache.
#[derive(Debug)]
pub(crate) struct GuestImage {
    pub(crate) path: PathBuf,
    pub(crate) origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Cache,
    Built,
}

/// `cargo xtask image`.
pub(crate) fn command(out: Option<&Path>) -> Result<()> {
    packages::ensure(&[packages::IMAGE])?;
    let image = ensure(&cache_dir("images")?.join("build.log"))?;
    if let Some(out) = out {
        fs::copy(&image.path, out).with_context(|| format!("cannot copy the image to {}", out.display()))?;
    }
    println!("{}", out.unwrap_or(&image.path).display());
    Ok(())
}

/// The image, made if it is not there. Needs root (or sudo) only to make it. The packages must be there.
pub(crate) fn ensure(log: &Path) -> Result<GuestImage> {
    ensure_with(&[], log)
}

/// The same with settings of build.sh that a person's `CROFT_IMAGE_…` does not change: another image, for another use.
pub(crate) fn ensure_with(settings: &[(&'static str, String)], log: &Path) -> Result<GuestImage> {
    let script = root().join("xtask/guest-image/build.sh");
    let wished = OPTIONS.iter().filter(|name| settings.iter().all(|(set, _)| set != *name));
    let mut options: Vec<(&str, String)> =
        wished.filter_map(|name| Some((*name, env::var(format!("CROFT_IMAGE_{name}")).ok()?))).collect();
    options.extend_from_slice(settings);
    let images = cache_dir("images")?;
    let path = images.join(format!("debian-{}.qcow2", key(&script, &options)?));
    let _one_at_a_time = recipe::lock(&images)?;
    if path.is_file() {
        return Ok(GuestImage { path, origin: Origin::Cache });
    }
    let mut build = Run::new(&script).arg(&path).with_root();
    for (name, value) in &options {
        build = build.env(name, value);
    }
    build.logged(log).context("cannot build the image")?;
    if user_id() != 0 {
        // It lies in the user's own cache.
        Run::new("chown").arg(user_id().to_string()).arg(&path).with_root().stdout()?;
    }
    Ok(GuestImage { path, origin: Origin::Built })
}

fn key(script: &Path, options: &[(&str, String)]) -> Result<String> {
    let mut digest = sha256(script)?;
    for (name, value) in options {
        digest = sha256_text(&format!("{digest} {name}={value}"))?;
    }
    Ok(digest.chars().take(16).collect())
}

/// The SHA-256 of a file, 64 lower-case hex digits.
pub(crate) fn sha256(file: &Path) -> Result<String> {
    let line = Run::new("sha256sum").arg("--").arg(file).stdout()?;
    let digest = line.split_whitespace().next().unwrap_or_default();
    Ok(digest.trim_start_matches('\\').to_owned())
}

/// The same of a text.
pub(crate) fn sha256_text(text: &str) -> Result<String> {
    let line = Run::new("sh").args(["-c", "printf %s \"$1\" | sha256sum", "sh", text]).stdout()?;
    Ok(line.chars().take(64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_digest() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_text("abc").unwrap(), expected);
    }

    #[test]
    fn the_key_changes_with_script_and_options() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("build.sh");
        fs::write(&script, "one").unwrap();
        let plain = key(&script, &[]).unwrap();
        let sized = key(&script, &[("SIZE", "4G".to_owned())]).unwrap();
        fs::write(&script, "two").unwrap();
        let changed = key(&script, &[]).unwrap();
        assert_eq!(plain.len(), 16);
        assert!(plain != sized && plain != changed && sized != changed, "{plain} {sized} {changed}");
    }
}
