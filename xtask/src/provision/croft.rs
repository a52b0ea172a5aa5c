//! The `croft` command on the controller: the one of our package, with the credentials that the playbook site left there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::network::PLACES;
use crate::run::{Ended, Run};

/// Exit code 3: what was named is not there.
const NOT_FOUND: i32 = 3;

#[derive(Debug)]
pub(super) struct Croft {
    program: PathBuf,
    credentials: PathBuf,
}

/// Unpacks the package of the command line, as on any controller; where the program is.
pub(super) fn unpack(packages: &Path, into: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(packages).with_context(|| format!("cannot list {}", packages.display()))?;
    let is_croft = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("croft_") && name.ends_with(".deb"))
    };
    let package = entries.flatten().map(|entry| entry.path()).find(is_croft);
    let package = package.with_context(|| format!("no package croft in {}", packages.display()))?;
    Run::new("dpkg-deb").arg("--extract").arg(&package).arg(into).stdout()?;
    Ok(into.join("usr/bin/croft"))
}

impl Croft {
    pub(super) fn new(program: &Path, credentials: PathBuf) -> Croft {
        Croft { program: program.to_owned(), credentials }
    }

    /// The first admin's token, as the playbook left it.
    pub(super) fn token(&self) -> Result<String> {
        let file = self.credentials.join("admin.token");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(text.trim().to_owned())
    }

    pub(super) fn ended(&self, words: &[&str]) -> Result<Ended> {
        Run::new(&self.program)
            .args(words)
            .without_settings()
            .env("CROFT_SERVER", format!("{}:7443", PLACES[0].address))
            .env("CROFT_CA_FILE", self.credentials.join("ca.pem"))
            .env("CROFT_TOKEN", self.token()?)
            .ended()
    }

    /// What it printed; a failure is an error.
    pub(super) fn text(&self, words: &[&str]) -> Result<String> {
        let ended = self.ended(words)?;
        if !ended.success {
            bail!("`croft {}` failed: {}", words.join(" "), ended.stderr.trim());
        }
        Ok(ended.stdout)
    }

    pub(super) fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.text(&[words, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("`croft {} -o json` printed no JSON", words.join(" ")))
    }

    /// The resource, or nothing when there is none.
    pub(super) fn find(&self, words: &[&str]) -> Result<Option<Value>> {
        let ended = self.ended(&[words, &["-o", "json"]].concat())?;
        match ended.code {
            Some(0) => serde_json::from_str(&ended.stdout).map(Some).context("croft printed no JSON"),
            Some(NOT_FOUND) => Ok(None),
            _ => bail!("`croft {}` failed: {}", words.join(" "), ended.stderr.trim()),
        }
    }
}
