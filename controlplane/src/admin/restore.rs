//! From a backup to a data directory. What the restored plane knows is older than what its hosts live in, so it holds
//! agents off until an operator says otherwise.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::backup::verified;
use crate::datadir::DataDir;
use crate::files;

/// Never over something: the directory must be empty or not there yet.
pub fn restore(data_dir: &Path, from: &Path) -> Result<()> {
    let (names, time) = verified(from)?;
    let failed = || format!("the data directory {} cannot be made", data_dir.display());
    if data_dir.exists() {
        let mut entries = fs::read_dir(data_dir).with_context(failed)?;
        ensure!(
            entries.next().is_none(),
            "{} is not empty; move it away first (it may be all there is of a newer state)",
            data_dir.display()
        );
    } else {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).with_context(failed)?;
    }
    let directory = DataDir::make(data_dir)?;
    let _lock = directory.lock()?;
    // Before the database: a restore that dies halfway must not leave a plane that lets agents in.
    let note = json!({ "from": from.display().to_string(), "backup_time_us": time.0 });
    files::write(&directory.restored(), format!("{note}\n").as_bytes(), files::SECRET)?;
    for name in names {
        copy(&from.join(&name), &directory.path().join(&name), mode(&name))?;
    }
    fs::File::open(directory.path()).and_then(|file| file.sync_all()).with_context(failed)
}

pub fn release_agents(directory: &DataDir) -> Result<()> {
    let path = directory.restored();
    match fs::remove_file(&path) {
        Ok(()) => println!("agents are let in (by a running plane within a second)"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => println!("agents were not held off"),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be removed", path.display())),
    }
    Ok(())
}

fn mode(name: &str) -> u32 {
    if name == "ca.pem" { files::PUBLIC } else { files::SECRET }
}

/// A database may be large: not by way of memory.
fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let failed = || format!("{} cannot be copied to {}", from.display(), to.display());
    let mut source = fs::File::open(from).with_context(failed)?;
    let mut target = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(to).with_context(failed)?;
    std::io::copy(&mut source, &mut target).with_context(failed)?;
    target.sync_all().with_context(failed)
}
