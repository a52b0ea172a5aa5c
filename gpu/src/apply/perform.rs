//! One piece of work, from the first look to the last: what a helper process does with its life.

use std::collections::BTreeMap;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::access::{Access, Result};
use super::error::StepError;
use super::work::{Done, Found, Line, Remembered, Standing, Work};
use super::{effect, guard, reset, reset_usb, sriov_manage, standing, words};
use crate::error::IfPresent;
use crate::plan::Step;

/// To whoever asked. What cannot be said is not done either.
type Say<'a> = &'a mut dyn FnMut(Line) -> io::Result<()>;

/// Says what it found, then does it, then says how that went. Fails when that cannot be said.
pub fn perform(work: &Work, access: &Access, say: Say<'_>) -> io::Result<()> {
    let result = match work {
        Work::Do { step } => forward(step, access, say),
        Work::Undo { step, remembered } => backward(step, remembered, access, say),
        Work::Explain { step } => Ok(Done { culprits: guard::culprits(step, &access.fs), ..Done::default() }),
    };
    say(match result {
        Ok(done) => Line::Done(done),
        Err(error) => Line::Failed { error },
    })
}

fn forward(step: &Step, access: &Access, say: Say<'_>) -> Result<Done> {
    let standing = standing::look(step, access)?;
    match &standing {
        Standing::After => return Ok(Done::default()),
        Standing::Other { found } => return Err(stale(step, found)),
        Standing::Before | Standing::Between { .. } => {}
    }
    guard::nobody_has_it_open(step, &access.fs)?;
    let remembered = standing::remember(step, access)?;
    say(Line::Found(Found { standing, remembered: remembered.clone() }))?;
    let carried_out = match step {
        Step::Reset { address, methods } => reset::run(access, *address, methods).map(Some),
        Step::ResetUsb { port, vendor, product, serial } => {
            let reset = reset_usb::run(access, port, (*vendor, *product), serial.as_deref());
            reset.map(|()| Some("usb port".to_owned()))
        }
        _ => effect::carry_out(step, access).map(|()| None),
    };
    // However that ended.
    let restored = put_back(&remembered, access);
    let reset_method = carried_out?;
    restored?;
    if reset_method.is_none() {
        read_back(step, access)?;
    }
    Ok(Done { changed: true, reset_method, ..Done::default() })
}

fn backward(step: &Step, remembered: &[Remembered], access: &Access, say: Say<'_>) -> Result<Done> {
    let Some(undo) = step.undo() else {
        put_back(remembered, access)?;
        return Ok(Done::default());
    };
    let standing = standing::look(step, access)?;
    match &standing {
        Standing::Before => {
            put_back(remembered, access)?;
            return Ok(Done::default());
        }
        // What sits there is no work of ours; taking "it" back would take away another's.
        Standing::Other { found } => return Err(stale(&undo, found)),
        Standing::Between { .. } | Standing::After => {}
    }
    guard::nobody_has_it_open(&undo, &access.fs)?;
    // The undo has moments of its own. What was so before the step goes for what is so before its undo.
    let remembered = [standing::remember(&undo, access)?, remembered.to_vec()].concat();
    say(Line::Found(Found { standing, remembered: remembered.clone() }))?;
    let carried_out = effect::carry_out(&undo, access);
    let restored = put_back(&remembered, access);
    carried_out.and(restored)?;
    read_back(&undo, access)?;
    Ok(Done { changed: true, ..Done::default() })
}

fn stale(step: &Step, found: &str) -> StepError {
    let step = words::of(step);
    StepError::errno(format!("did not {step}: the host has changed since the plan was made: {found}"), Errno::STALE)
}

/// Some effects show a moment after the call that caused them.
fn read_back(step: &Step, access: &Access) -> Result<()> {
    let deadline = Instant::now() + access.patience;
    loop {
        let standing = standing::look(step, access);
        let found = match standing {
            Ok(Standing::After) => return Ok(()),
            Ok(Standing::Before) => "nothing has changed".to_owned(),
            Ok(Standing::Between { found } | Standing::Other { found }) => found,
            Err(error) => error.message,
        };
        if Instant::now() >= deadline {
            let step = words::of(step);
            return Err(StepError::new(format!("told the host to {step}, and no error came back; yet {found}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// However much of it can be; an error says what cannot.
fn put_back(remembered: &[Remembered], access: &Access) -> Result<()> {
    still_changed(remembered, access).into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
}

/// Puts back each, where two are of the same the last one, and returns what could not be.
pub(super) fn still_changed(remembered: &[Remembered], access: &Access) -> Vec<(Remembered, StepError)> {
    let (mut still, mut persistence) = (Vec::new(), BTreeMap::new());
    for (index, was) in remembered.iter().enumerate() {
        if remembered.iter().skip(index + 1).any(|later| later.is_of_the_same(was)) {
            continue;
        }
        match was {
            Remembered::Attribute { path, text } => {
                still.extend(write_back(path, text, access).err().map(|error| (was.clone(), error)));
            }
            Remembered::Persistence { gpu, on } => drop(persistence.insert(*gpu, *on)),
        }
    }
    let refused = sriov_manage::set_persistence(access, &persistence).into_iter();
    still.extend(refused.map(|(gpu, on, error)| (Remembered::Persistence { gpu, on }, error)));
    still
}

fn write_back(path: &str, text: &str, access: &Access) -> Result<()> {
    // The lock of an unbind is gone with the driver.
    if access.fs.attribute(path).if_present()?.is_some_and(|now| now != *text) {
        // `(null)` is how the kernel prints an override that is not there, and a lone newline how it is told so.
        access.fs.write(path, if text == "(null)" || text.is_empty() { "\n" } else { text })?;
    }
    Ok(())
}
