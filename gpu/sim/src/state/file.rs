//! The state in its file. Changed only under an exclusive `flock`, and replaced by a rename: a reader needs no lock and never
//! sees half a change.

use std::fs::{self, File};
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::Nvidia;

/// Where a simulated host keeps what is no file of a real one.
#[must_use]
pub fn directory(root: &Path) -> PathBuf {
    root.join("run/croft-sim")
}

impl Nvidia {
    /// Writes the first state of a host below `root`.
    pub fn create(root: &Path, state: Nvidia) -> io::Result<Locked> {
        fs::create_dir_all(directory(root))?;
        let mut locked = Locked { root: root.to_owned(), _lock: lock(root)?, state };
        locked.state.gpus.sort_by_key(|gpu| gpu.address);
        locked.save()?;
        Ok(locked)
    }

    /// The state, and nobody else changes it (or any other file of the host) until the lock is dropped. Blocks.
    pub fn open(root: &Path) -> io::Result<Locked> {
        let lock = lock(root)?;
        Ok(Locked { root: root.to_owned(), _lock: lock, state: Nvidia::read(root)? })
    }

    /// The state as it is between two changes, without waiting for anybody.
    pub fn read(root: &Path) -> io::Result<Nvidia> {
        Nvidia::parse(&Nvidia::text(root)?)
    }

    /// The same as it is written: for those who read often, and can tell by the text that nothing has changed.
    pub fn text(root: &Path) -> io::Result<Vec<u8>> {
        fs::read(directory(root).join("nvidia.json"))
    }

    pub fn parse(text: &[u8]) -> io::Result<Nvidia> {
        serde_json::from_slice(text).map_err(|error| io::Error::other(format!("nvidia.json: {error}")))
    }
}

/// The state of one host under its lock. What is not saved is forgotten.
#[derive(Debug)]
pub struct Locked {
    root: PathBuf,
    /// Released when it is closed.
    _lock: File,
    state: Nvidia,
}

impl Locked {
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the changes so far what every process sees.
    pub fn save(&mut self) -> io::Result<()> {
        self.state.generation += 1;
        let mut text = serde_json::to_vec_pretty(&self.state)?;
        text.push(b'\n');
        let directory = directory(&self.root);
        // One writer at a time holds the lock, so one name for the unfinished file is enough.
        let unfinished = directory.join("nvidia.json.new");
        fs::write(&unfinished, text)?;
        fs::rename(unfinished, directory.join("nvidia.json"))?;
        // The kernel's files that show something of it.
        crate::kernel::follow(&self.root, &self.state)
    }
}

impl Deref for Locked {
    type Target = Nvidia;

    fn deref(&self) -> &Nvidia {
        &self.state
    }
}

impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut Nvidia {
        &mut self.state
    }
}

fn lock(root: &Path) -> io::Result<File> {
    let path = directory(root).join("lock");
    let file = File::options().create(true).append(true).open(path)?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boards::H100_SXM_80GB;
    use crate::state::{Flavour, GpuState};

    #[test]
    fn what_is_saved_is_read_and_what_is_not_is_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let mut state = Nvidia::new(Flavour::Datacenter);
        state.gpus.push(GpuState::new(&H100_SXM_80GB, "0000:41:00.0".parse().unwrap(), 1));
        state.gpus.push(GpuState::new(&H100_SXM_80GB, "0000:04:00.0".parse().unwrap(), 0));
        drop(Nvidia::create(root.path(), state).unwrap());

        let mut locked = Nvidia::open(root.path()).unwrap();
        assert_eq!(locked.gpus[0].address.to_string(), "0000:04:00.0", "NVML's index follows the address");
        assert_ne!(locked.gpus[0].uuid, locked.gpus[1].uuid);
        locked.gpus[0].persistence = true;
        locked.save().unwrap();
        locked.gpus[1].persistence = true;
        drop(locked);

        let read = Nvidia::read(root.path()).unwrap();
        assert_eq!((read.generation, read.gpus[0].persistence, read.gpus[1].persistence), (2, true, false));
    }

    #[test]
    fn one_at_a_time_changes_the_state() {
        let root = tempfile::tempdir().unwrap();
        drop(Nvidia::create(root.path(), Nvidia::new(Flavour::Datacenter)).unwrap());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let mut locked = Nvidia::open(root.path()).unwrap();
                        let parts = locked.driver.version.len();
                        locked.driver.version.push('x');
                        assert_eq!(locked.driver.version.len(), parts + 1);
                        locked.save().unwrap();
                    }
                });
            }
        });
        let read = Nvidia::read(root.path()).unwrap();
        assert_eq!(read.generation, 201);
        assert!(read.driver.version.ends_with(&"x".repeat(200)), "a change was lost");
    }
}
