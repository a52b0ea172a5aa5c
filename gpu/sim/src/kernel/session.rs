//! One change of a simulated host: everything under the lock, and all of it or none.
//!
//! ```text
//!  open: lock ─► kernel.json, nvidia.json ─► a rule changes them in memory ─► commit: redo.json ─► both files, the tree ─► no redo.json
//!                                          └► refused, or must wait: dropped, and nothing has happened
//! ```
//! A process that is killed while it commits leaves `redo.json`, and whoever comes next finishes what it says.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use croft_gpu::pci::PciAddress;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::{processes, tree, view};
use crate::clients;
use crate::driver::Errno;
use crate::state::{GpuState, Locked, Nvidia, directory};

/// Why a write has no effect now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Errno(Errno),
    /// The kernel waits: for a file to be closed that somebody has open.
    Waits,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Stop {
        Stop::Errno(errno)
    }
}

pub(crate) type Outcome<T = ()> = Result<T, Stop>;

pub(crate) struct Session {
    nvidia: Locked,
    nvidia_before: Nvidia,
    pub machine: Machine,
    machine_before: Machine,
}

#[derive(Serialize, Deserialize)]
struct Redo {
    machine: Machine,
    nvidia: Nvidia,
}

impl Session {
    /// Waits for the lock.
    pub fn open(root: &Path) -> io::Result<Session> {
        let mut nvidia = Nvidia::open(root)?;
        finish(root, &mut nvidia)?;
        follow(root, &nvidia)?;
        let machine: Machine = read_json(&kernel(root))?;
        Ok(Session { nvidia_before: nvidia.clone(), machine_before: machine.clone(), machine, nvidia })
    }

    pub fn root(&self) -> &Path {
        self.nvidia.root()
    }

    pub fn nvidia(&mut self) -> &mut Nvidia {
        &mut self.nvidia
    }

    pub fn is_gpu(&self, address: PciAddress) -> bool {
        self.nvidia.gpu(address).is_some()
    }

    /// The NVIDIA driver's state of a GPU.
    pub fn gpu(&mut self, address: PciAddress) -> Option<&mut GpuState> {
        self.nvidia.gpu_mut(address)
    }

    /// Has anybody one of these files open? Who cannot be asked may have.
    pub fn is_open(&self, files: &[String]) -> bool {
        processes::holders(self.root(), files).map_or(true, |holders| !holders.is_empty())
    }

    /// Has anybody this function open, as what its driver makes of it?
    pub fn is_used(&self, address: PciAddress) -> bool {
        // An NVML session opens every GPU, and leaves no link in the simulated `/proc`.
        let minor = self.machine.gpus.get(&address).map(|gpu| gpu.minor);
        let by_driver =
            minor.is_some_and(|minor| clients::of(self.root(), minor).map_or(true, |pids| !pids.is_empty()));
        by_driver || self.is_open(&self.machine.files(address))
    }

    /// Makes it all true.
    pub fn commit(mut self) -> io::Result<()> {
        view::look(&mut self.machine, &self.nvidia);
        if self.machine == self.machine_before && *self.nvidia == self.nvidia_before {
            return Ok(());
        }
        let root = self.root().to_owned();
        let redo = Redo { machine: self.machine, nvidia: self.nvidia.clone() };
        write_json(&directory(&root).join("redo.json"), &redo)?;
        write_json(&kernel(&root), &redo.machine)?;
        tree::change(&root, &self.machine_before, &redo.machine)?;
        if redo.nvidia != self.nvidia_before {
            self.nvidia.save()?;
        }
        fs::remove_file(directory(&root).join("redo.json"))
    }
}

/// Finishes a commit that somebody was killed in.
fn finish(root: &Path, nvidia: &mut Locked) -> io::Result<()> {
    let path = directory(root).join("redo.json");
    let redo: Redo = match read_json(&path) {
        Ok(redo) => redo,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    write_json(&kernel(root), &redo.machine)?;
    tree::make(root, &redo.machine)?;
    **nvidia = redo.nvidia;
    nvidia.save()?;
    fs::remove_file(path)
}

/// Called after NVIDIA's driver changed its state through another door than the kernel's files. The caller has the lock.
pub(crate) fn follow(root: &Path, nvidia: &Nvidia) -> io::Result<()> {
    let before: Machine = match read_json(&kernel(root)) {
        Ok(machine) => machine,
        // A state of NVIDIA's driver alone, without a machine around it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut machine = before.clone();
    view::look(&mut machine, nvidia);
    if machine == before {
        return Ok(());
    }
    // In this order a process that is killed in between leaves files that are behind, and the next look brings them on.
    tree::change(root, &before, &machine)?;
    write_json(&kernel(root), &machine)
}

pub(crate) fn kernel(root: &Path) -> PathBuf {
    directory(root).join("kernel.json")
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let text = fs::read(path)?;
    serde_json::from_slice(&text).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}

/// By rename: a reader never sees half of it.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, serde_json::to_vec(value)?)?;
    fs::rename(unfinished, path)
}
