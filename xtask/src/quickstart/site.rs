//! The directory of one quickstart: where what lies, and the few facts that a later run must know.
//!
//! ```text
//! bin/      copies of the three programs, so that a later build does not pull them from under a running daemon
//! plane/    the control plane's data directory          agent/   the host agent's state directory
//! images/   what the agent may read by file://          logs/    what everything printed
//! user/     the caller's own: CLI config, token, ssh key, facts.json
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::run::{Run, user_id};

#[derive(Debug)]
pub(super) struct Site {
    dir: PathBuf,
}

impl Site {
    pub(super) fn at(dir: &Path) -> Result<Site> {
        if !dir.is_absolute() || dir.parent().is_none() || dir.components().any(|c| c.as_os_str() == "..") {
            bail!("--dir must be an absolute path other than /, without ..: {}", dir.display());
        }
        Ok(Site { dir: dir.components().collect() })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn exists(&self) -> bool {
        self.dir.exists()
    }

    /// Whether the directory is one of ours: only such a one is ever removed.
    pub(super) fn is_ours(&self) -> bool {
        self.user("facts.json").is_file()
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    pub(super) fn plane(&self) -> PathBuf {
        self.dir.join("plane")
    }

    pub(super) fn agent(&self) -> PathBuf {
        self.dir.join("agent")
    }

    pub(super) fn images(&self) -> PathBuf {
        self.dir.join("images")
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    pub(super) fn user(&self, name: &str) -> PathBuf {
        self.dir.join("user").join(name)
    }

    /// Makes the directories. Safe to repeat; refuses a directory with strange things in it.
    pub(super) fn ensure(&self) -> Result<()> {
        let is_empty = || fs::read_dir(&self.dir).is_ok_and(|mut entries| entries.next().is_none());
        if self.exists() && !self.is_ours() && !is_empty() {
            bail!("{} holds something else already: choose another --dir", self.dir.display());
        }
        let owner = user_id().to_string();
        // QEMU's own user passes through to the guests' disks; only the agent's and the plane's users look inside.
        install_dir("0755", "0", &self.dir)?;
        install_dir("0755", "0", &self.dir.join("bin"))?;
        install_dir("0755", "0", &self.images())?;
        install_dir("0700", "0", &self.plane())?;
        install_dir("0711", "0", &self.agent())?;
        install_dir("0755", &owner, &self.dir.join("logs"))?;
        install_dir("0700", &owner, &self.dir.join("user"))?;
        if !self.is_ours() {
            self.write_facts(&json!({}))?;
        }
        Ok(())
    }

    pub(super) fn fact(&self, name: &str) -> Result<Option<Value>> {
        Ok(self.facts()?.get(name).cloned())
    }

    /// Remembers a fact for later runs.
    pub(super) fn remember(&self, name: &str, value: Value) -> Result<()> {
        let mut facts = self.facts()?;
        facts[name] = value;
        self.write_facts(&facts)
    }

    fn facts(&self) -> Result<Value> {
        let file = self.user("facts.json");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))
    }

    fn write_facts(&self, facts: &Value) -> Result<()> {
        let file = self.user("facts.json");
        let part = self.user("facts.json.part");
        fs::write(&part, format!("{facts:#}\n"))
            .and_then(|()| fs::rename(&part, &file))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Everything below the directory, and the directory.
    pub(super) fn remove(&self) -> Result<()> {
        if !self.is_ours() {
            bail!("{} has no user/facts.json: it is not a quickstart's, and is left alone", self.dir.display());
        }
        Run::new("rm").args(["-rf", "--one-file-system", "--"]).arg(&self.dir).with_root().stdout()?;
        Ok(())
    }
}

fn install_dir(mode: &str, owner: &str, dir: &Path) -> Result<()> {
    let run = Run::new("install").args(["-d", "-m", mode, "-o", owner, "--"]).arg(dir).with_root();
    run.stdout().map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_ours_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("letter"), "dear").unwrap();
        let site = Site::at(dir.path()).unwrap();
        assert!(site.remove().unwrap_err().to_string().contains("left alone"));
        assert!(site.ensure().unwrap_err().to_string().contains("something else"));
        assert!(dir.path().join("letter").exists());
    }

    #[test]
    fn paths_that_would_be_dangerous_to_remove_are_refused() {
        for dir in ["/", "relative", "/var/lib/../.."] {
            assert!(Site::at(Path::new(dir)).is_err(), "{dir}");
        }
    }
}
