//! Where things are: the repository, the cache, cargo and what it built.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::Run;

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| root_by(env::var_os("CARGO_MANIFEST_DIR")));
    &ROOT
}

/// Two clones that share a target directory share this program too: cargo builds it in one of them and finds it fresh in the
/// other. So what `cargo run` says of `<root>/xtask` counts, and what was written down at compile time only without it.
fn root_by(told: Option<OsString>) -> PathBuf {
    let told = told.map(PathBuf::from).filter(|dir| dir.ends_with("xtask"));
    let xtask = told.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    xtask.parent().unwrap_or(Path::new("/")).to_owned()
}

/// `$CROFT_CACHE`, or `~/.cache/croft`: what is slow to make and safe to delete.
pub(crate) fn cache() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("CROFT_CACHE").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir));
    }
    let home = env::var_os("HOME").context("neither CROFT_CACHE nor HOME is set: no place for the cache")?;
    Ok(Path::new(&home).join(".cache/croft"))
}

/// A folder of the cache, made if it is missing.
pub(crate) fn cache_dir(name: &str) -> Result<PathBuf> {
    let dir = cache()?.join(name);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Run {
    let cargo = Run::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"))).dir(root());
    // It told us which package is run. ring's build script looks at that and, with it, everything that speaks TLS would
    // be compiled again each time a person's own `cargo build` comes after ours.
    cargo.without(&["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_"])
}

/// `CI=true`: nothing may be left out.
pub(crate) fn in_ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// What cargo knows of the workspace's own packages.
#[derive(Debug)]
pub(crate) struct Metadata(Value);

impl Metadata {
    pub(crate) fn load() -> Result<Metadata> {
        let text = cargo().args(["metadata", "--no-deps", "--format-version", "1"]).stdout()?;
        Ok(Metadata(serde_json::from_str(&text).context("cargo metadata did not print JSON")?))
    }

    pub(crate) fn target_dir(&self) -> Result<PathBuf> {
        let dir = self.0["target_directory"].as_str().context("cargo metadata names no target_directory")?;
        Ok(PathBuf::from(dir))
    }

    pub(crate) fn packages(&self) -> Result<&Vec<Value>> {
        self.0["packages"].as_array().context("cargo metadata lists no packages")
    }

    /// The names of a package's targets of one kind: `test`, `bin`, `lib`, …
    pub(crate) fn targets(&self, package: &str, kind: &str) -> Result<Vec<String>> {
        let Some(found) = self.packages()?.iter().find(|p| p["name"] == package) else {
            bail!("the workspace has no package {package}");
        };
        let targets = found["targets"].as_array().cloned().unwrap_or_default();
        Ok(targets
            .iter()
            .filter(|t| t["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|k| k == kind)))
            .filter_map(|t| t["name"].as_str().map(str::to_owned))
            .collect())
    }
}

/// Every file that git tracks or would track, relative to the root.
pub(crate) fn files() -> Result<Vec<String>> {
    let listing = Run::new("git")
        .dir(root())
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .stdout()
        .context("lint reads the list of files from git")?;
    let mut files: Vec<String> = listing.lines().map(str::to_owned).filter(|f| root().join(f).is_file()).collect();
    files.sort();
    files.dedup();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_where_cargo_runs_us_and_not_where_we_were_built() {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert_eq!(root_by(Some("/another/clone/xtask".into())), Path::new("/another/clone"));
        assert_eq!(root_by(None), built);
        assert_eq!(root_by(Some("/another/clone/hostagent".into())), built, "run by another package's test");
    }
}
