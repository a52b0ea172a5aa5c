//! Room that is kept for the journal on a disk that guests can fill: a file of no use, given up when there is no other.
//!
//! A full disk is healed by deleting instances, and a deletion is journaled before anything of it goes: without room for
//! that, nobody could ever make room. The ballast is taken again as soon as a write goes through without it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::durable::{self, Error};

/// Some hundred records; a record is a few KiB.
const BYTES: u64 = 4 << 20;
/// Its name ends neither as a record's does nor as a file's that is being written.
const NAME: &str = "ballast";

#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    /// Also keeps two writers from giving it up and taking it at once.
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Held,
    GivenUp,
}

impl Ballast {
    /// Takes it, if the disk has room. Blocks.
    pub(super) fn new(directory: &Path) -> Self {
        let path = directory.join(NAME);
        let state = if take(&path).is_ok() { State::Held } else { State::GivenUp };
        Self { path, state: Mutex::new(state) }
    }

    /// Writes; on a full disk once more without the ballast. Blocks.
    pub(super) fn write(&self, write: impl Fn() -> Result<(), Error>) -> Result<(), Error> {
        let written = write();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match (&written, *state) {
            (Err(error), State::Held) if is_full(&error.source) => {
                tracing::warn!(
                    "{error}; the journal goes on in the room that was kept for it: make space on this disk"
                );
                durable::remove(&self.path)?;
                *state = State::GivenUp;
                drop(state);
                write()
            }
            (Ok(()), State::GivenUp) => {
                if take(&self.path).is_ok() {
                    *state = State::Held;
                }
                written
            }
            (Ok(()), State::Held) | (Err(_), State::Held | State::GivenUp) => written,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// With its blocks: a file with a hole would keep no room.
fn take(path: &Path) -> io::Result<()> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    let taken = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, BYTES);
    if taken.is_err() {
        // Half of it would take room and keep none.
        fs::remove_file(path)?;
    }
    Ok(taken?)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_full_disk_still_takes_what_makes_room_on_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join(NAME);
        let ballast = Ballast::new(dir.path());
        assert_eq!(fs::metadata(&path).expect("held").len(), BYTES);

        let tries = Cell::new(0);
        // Full until the ballast is gone.
        let write = || {
            tries.set(tries.get() + 1);
            let full = || Error { path: path.clone(), verb: "write", source: io::ErrorKind::StorageFull.into() };
            if path.exists() { Err(full()) } else { Ok(()) }
        };
        ballast.write(write).expect("in the kept room");
        assert_eq!((tries.get(), path.exists()), (2, false));
        ballast.write(write).expect("room");
        assert!(path.exists(), "kept again for the next time");

        let other = || Err(Error { path: path.clone(), verb: "write", source: io::ErrorKind::PermissionDenied.into() });
        ballast.write(other).expect_err("not for want of room");
        assert!(path.exists());
    }
}
