//! A lock per device, held by the helper that works on it and by every tool that it started.
//!
//! An agent that was killed may have left a helper asleep in the kernel. The next agent does not know of it; the lock does.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, FdFlags, fcntl_setfd};

use super::words;
use crate::plan::Step;

/// A helper dies with its agent. One that is still there after this long does not die.
const DYING: Duration = Duration::from_secs(3);

/// Held until it is dropped, and until every process that inherited it has ended.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

#[derive(Debug)]
pub enum Locked {
    Mine(Lock),
    By { pid: u32 },
}

pub fn lock(directory: &Path, step: &Step) -> io::Result<Locked> {
    fs::create_dir_all(directory)?;
    let name = words::device(step).unwrap_or_else(|| "fabric".to_owned());
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(directory.join(name))?;
    let deadline = Instant::now() + DYING;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) if Instant::now() >= deadline => {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                return Ok(Locked::By { pid: text.trim().parse().unwrap_or(0) });
            }
            Err(Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(50)),
            Err(errno) => return Err(errno.into()),
        }
    }
    // Tools inherit it: one that hangs keeps the device locked although its helper could be killed.
    fcntl_setfd(&file, FdFlags::empty())?;
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(Locked::Mine(Lock { _file: file }))
}
