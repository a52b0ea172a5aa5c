//! `--simulate h100x8`: a whole machine with devices in a directory, for trying Croft without any.

use std::path::{Path, PathBuf};

use croft_gpu_sim::kernel::{PRESETS, SimHost};

/// The library that stands in for NVML, as it is built.
const LIBRARY: &str = "libcroft_nvml_sim.so";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no simulated machine {0:?}; there are {all}", all = PRESETS.join(", "))]
    NoPreset(String),
    #[error("{}: the simulated machine can not be made: {source}", root.display())]
    Build { root: PathBuf, source: std::io::Error },
    #[error("{LIBRARY} is not beside {}; build it with `cargo build -p croft-nvml-sim`, or name it with --nvml-library", program.display())]
    NoLibrary { program: PathBuf },
    #[error("the place of this program can not be told: {0}")]
    NoProgram(#[source] std::io::Error),
}

/// The machine of that name below `root`: made and booted, unless it is there from before.
pub fn ensure(preset: &str, root: &Path) -> Result<SimHost, Error> {
    let hardware = SimHost::preset(preset).ok_or_else(|| Error::NoPreset(preset.to_owned()))?;
    if let Ok(host) = SimHost::at(root) {
        return Ok(host);
    }
    SimHost::create(root, hardware).map_err(|source| Error::Build { root: root.to_owned(), source })
}

/// Beside the agent's binary, where cargo and packages put it; or one directory below, where cargo keeps it for tests.
pub fn library() -> Result<PathBuf, Error> {
    let program = std::env::current_exe().map_err(Error::NoProgram)?;
    let beside = program.with_file_name(LIBRARY);
    let below = program.with_file_name("deps").join(LIBRARY);
    [beside, below].into_iter().find(|path| path.exists()).ok_or(Error::NoLibrary { program })
}
