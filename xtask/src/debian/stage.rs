//! The tree that cargo-deb packs: stripped programs, the manual that each writes of itself, and a changelog.
//!
//! ```text
//!  STAGE/release/croft-hostagent
//!                manual/croft-hostagent/man/*.8, bash/, zsh/, fish/
//!                changelog.gz
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run::Run;
use crate::workspace::root;

/// Below `stage`, which is made anew.
pub(super) fn lay_out(programs: &[(&str, PathBuf)], version: &str, stage: &Path) -> Result<()> {
    let release = stage.join("release");
    match fs::remove_dir_all(&release) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", release.display()));
        }
        _ => {}
    }
    fs::create_dir_all(&release).with_context(|| format!("cannot make {}", release.display()))?;
    for (name, program) in programs {
        // As debhelper does.
        let sections = ["--remove-section=.comment", "--remove-section=.note", "-o"];
        Run::new("strip").args(sections).arg(release.join(name)).arg(program).stdout()?;
        let manual = release.join("manual").join(name);
        Run::new(release.join(name)).without_settings().arg("manual").arg(&manual).stdout()?;
        let pages = fs::read_dir(manual.join("man")).with_context(|| format!("{name} wrote no manual"))?;
        compress(pages.flatten().map(|page| page.path()))?;
    }
    changelog(version, &release.join("changelog"))
}

/// When what is packed was committed: the same commit makes the same packages.
pub(super) fn committed_at() -> Result<String> {
    Ok(git(&["log", "-1", "--format=%ct"])?.trim().to_owned())
}

/// What changed is told by the project's own history; Debian wants to know version and time.
fn changelog(version: &str, file: &Path) -> Result<()> {
    let [commit, date] = [git(&["log", "-1", "--format=%h"])?, git(&["log", "-1", "--format=%cD"])?];
    let text = format!(
        "croft ({version}) unstable; urgency=medium\n\n  * Built of commit {}.\n\n -- Croft maintainers <maintainers@croft.dev>  {}\n",
        commit.trim(),
        date.trim()
    );
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    compress([file.to_owned()])
}

/// As Debian wants it: the same bytes for the same text.
fn compress(files: impl IntoIterator<Item = PathBuf>) -> Result<()> {
    Run::new("gzip").args(["--best", "--no-name"]).args(files).stdout()?;
    Ok(())
}

fn git(args: &[&str]) -> Result<String> {
    Run::new("git").dir(root()).args(args).stdout().context("a package says of which commit it was built")
}
