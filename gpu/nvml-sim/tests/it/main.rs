//! The library, loaded as everybody loads it, in processes of its own: it takes its host from the environment.
#![expect(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod agree;
mod captured;
mod carving;
mod python;
mod trouble;
mod vgpu;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::{env, fs};

use croft_gpu_sim::boards::Board;
use croft_gpu_sim::state::{Flavour, GpuState, Nvidia};
use tempfile::TempDir;

/// Says to a process of this test which part it is to play.
const PART: &str = "CROFT_NVML_SIM_TEST";

/// The library that cargo has built beside this test.
fn library() -> PathBuf {
    let test = env::current_exe().unwrap();
    let built = test.ancestors().skip(1).take(2).map(|place| place.join("libcroft_nvml_sim.so"));
    built.into_iter().find(|path| path.exists()).unwrap_or_else(|| panic!("no library near {}", test.display()))
}

/// A directory in which the loader finds it by its real name.
fn library_directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(library(), directory.path().join("libnvidia-ml.so.1")).unwrap();
    directory
}

/// The first GPU is at 0000:00:06.0, each further one a slot on.
fn host(flavour: Flavour, boards: &[&Board], change: impl FnOnce(&mut Nvidia)) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("run/croft-sim")).unwrap();
    let mut state = Nvidia::new(flavour);
    for (minor, board) in (0..).zip(boards) {
        let address = format!("0000:00:{:02x}.0", 6 + minor).parse().unwrap();
        state.gpus.push(GpuState::new(board, address, minor));
    }
    change(&mut state);
    drop(Nvidia::create(root.path(), state).unwrap());
    root
}

/// Runs `part` of the test that calls it, in a process whose host is below `root`.
fn spawn(test: &str, part: impl AsRef<OsStr>, root: &Path) -> Child {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(PART, part).env("CROFT_SIM_ROOT", root);
    // Whoever counts tests by their closing lines would count this process's as well. A panic goes to the other stream.
    child.stdout(std::process::Stdio::null());
    child.spawn().unwrap()
}

fn part() -> Option<String> {
    env::var(PART).ok()
}

/// For tests of one process: `body` in a process whose host is below the root that `root` makes.
fn on_host(test: &str, root: impl FnOnce() -> TempDir, body: impl FnOnce(&Path, &nvml_wrapper::Nvml)) {
    if part().is_some() {
        let root = PathBuf::from(env::var_os("CROFT_SIM_ROOT").unwrap());
        return body(&root, &load());
    }
    let root = root();
    assert!(spawn(test, "alone", root.path()).wait().unwrap().success(), "{test} failed in its process");
}

/// Opens the library as croft-gpu does.
fn load() -> nvml_wrapper::Nvml {
    nvml_wrapper::Nvml::builder().lib_path(library().as_os_str()).init().unwrap()
}
