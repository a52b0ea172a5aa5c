//! Programs that come as crates: installed into the cache, once; one that is already on PATH is used instead.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::recipe;
use crate::run::{Run, have};
use crate::workspace::{cache_dir, cargo};

/// The program of this crate.
pub(crate) fn ensure(name: &str) -> Result<PathBuf> {
    if have(name) && Run::new(name).arg("--version").ended().is_ok_and(|ended| ended.success) {
        return Ok(PathBuf::from(name));
    }
    let tools = cache_dir("tools")?;
    let program = tools.join("bin").join(name);
    let _one_at_a_time = recipe::lock(&tools)?;
    if !program.is_file() {
        println!("--> installing {name} from its crate into {}", tools.display());
        let target = tools.join("target");
        cargo()
            // Unoptimised: it runs for seconds, and builds in a third of the time.
            .args(["install", name, "--locked", "--debug", "--quiet", "--root"])
            .arg(&tools)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_TARGET_DIR", &target)
            .show()
            .with_context(|| format!("cannot install {name}"))?;
        fs::remove_dir_all(&target).with_context(|| format!("cannot remove what {name} was built in"))?;
    }
    Ok(program)
}
