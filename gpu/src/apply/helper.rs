//! The helper process: one request, one piece of work, and the end.
//!
//! A program that applies plans runs itself again with an argument of its own choosing, and calls [`helper_main`] when it
//! sees that. Nothing else may run in that process, and nothing else may write to its standard output.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::access::{Access, Result, Site};
use super::error::{Deferred, StepError};
use super::lock_holder::Holder;
use super::locks::{self, Lock, Locked};
use super::perform::{perform, still_changed};
use super::work::{Line, Remembered, Request, Work};
use crate::error::chain;

/// From now on this process dies with the one that started it, `parent`. An error where that is dead already.
pub fn die_with(parent: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // One that died before the kernel was told so is not this process's parent any more.
    match getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get().cast_unsigned()) {
        Some(pid) if pid == parent => Ok(()),
        _ => Err(io::Error::other(format!("process {parent}, which started this one, is gone"))),
    }
}

/// `parent`: who started this process, as it says among the arguments. `open` turns the words for a host into the ways to it.
pub fn helper_main(parent: u32, open: impl FnOnce(&Site) -> Result<Access>) -> ExitCode {
    // Without its agent nobody waits for the answer, and the next agent may be at the same device.
    if let Err(error) = die_with(parent) {
        eprintln!("device helper: {error}");
        return ExitCode::FAILURE;
    }
    match serve(open, io::stdin().lock(), io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("device helper: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// One request in, lines out. Fails when it cannot be heard or understood.
pub fn serve(
    open: impl FnOnce(&Site) -> Result<Access>,
    mut input: impl Read,
    mut output: impl Write,
) -> io::Result<()> {
    let mut text = String::new();
    input.read_to_string(&mut text)?;
    if text.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no request: whoever started this process is gone"));
    }
    let Request { site, work } = serde_json::from_str(&text)?;
    let mut say = |line: Line| {
        let mut line = serde_json::to_vec(&line)?;
        line.push(b'\n');
        output.write_all(&line)?;
        output.flush()
    };
    match locked_and_opened(open, &site, &work) {
        Ok(Ok((Some(lock), access))) => under(&lock, &work, &access, &mut say),
        Ok(Ok((None, access))) => perform(&work, &access, &mut say),
        Ok(Err(Holder { pid, hangs: true, .. })) => say(Line::HeldBack { pid }),
        Ok(Err(holder)) => say(Line::Failed { error: held_by(&holder) }),
        Err(error) => say(Line::Failed { error }),
    }
}

/// What the work changes for a moment is noted with the lock before it is changed: if this process is killed, and its agent
/// with it, so that nobody is left who heard of it, the next one that comes to this device puts it back. Before anything else:
/// a note that outlived another step would undo that one's effect.
///
/// Persistence is the exception: it is of all GPUs, and of a driver that may not answer, and no reason to leave this card as it
/// is. It stays noted, and is tried again with every step. And nothing keeps an undo from being tried.
fn under(lock: &Lock, work: &Work, access: &Access, say: &mut impl FnMut(Line) -> io::Result<()>) -> io::Result<()> {
    const WHAT: &str = "cannot put back what a helper that was killed has left changed";
    let (mut noted, mut refused) = (Vec::new(), None);
    for (left, error) in still_changed(&lock.left, access) {
        let error = error.context(WHAT);
        eprintln!("device helper: {error}");
        if matches!((&left, work), (Remembered::Attribute { .. }, Work::Do { .. })) {
            refused.get_or_insert(error);
        }
        noted.push(left);
    }
    if let Some(error) = refused {
        return say(Line::Failed { error });
    }
    let mut done = false;
    perform(work, access, &mut |line| {
        if let Line::Found(found) = &line {
            // What is noted longer is how it was before all of it: the last one counts.
            noted.splice(..0, found.remembered.iter().cloned());
            lock.note(&noted)?;
        }
        done = matches!(line, Line::Done(_));
        say(line)
    })?;
    if done {
        noted.retain(|changed| !changed.is_set_by(work.step()));
    }
    let left: Vec<Remembered> = still_changed(&noted, access).into_iter().map(|(left, _)| left).collect();
    lock.note(&left)
}

fn held_by(Holder { pid, command, .. }: &Holder) -> StepError {
    let words = format!(
        "held by pid {pid} ({command}), which an agent of before has left at work on it, and which comes to its end by itself; \
         try again later"
    );
    StepError::deferred(words, Deferred::HeldBy { pid: *pid })
}

/// The device's lock, for as long as the work lasts, or the process that has it.
type LockedAccess = std::result::Result<(Option<Lock>, Access), Holder>;

fn locked_and_opened(open: impl FnOnce(&Site) -> Result<Access>, site: &Site, work: &Work) -> Result<LockedAccess> {
    let access = open(site)?;
    let lock = match &site.lock_directory {
        Some(directory) if !matches!(work, Work::Explain { .. }) => {
            match locks::lock(directory, work.step(), &access.fs) {
                Ok(Locked::By(holder)) => return Ok(Err(holder)),
                Ok(Locked::Mine(lock)) => Some(lock),
                Err(error) => {
                    return Err(StepError::from(error).context(format!("cannot lock in {}", directory.display())));
                }
            }
        }
        // Who only looks needs no lock, and is needed most when somebody else has it.
        _ => None,
    };
    Ok(Ok((lock, access)))
}
