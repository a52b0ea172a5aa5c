//! One piece of work, from the first look to the last: what a helper process does with its life.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::access::{Access, Result};
use super::error::StepError;
use super::work::{Done, Found, Line, Remembered, Standing, Work};
use super::{effect, guard, reset, reset_usb, standing, words};
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
    let remembered = standing::remember(step, &access.fs)?;
    match &standing {
        Standing::After => return Ok(Done::default()),
        Standing::Other { found } => return Err(stale(step, found)),
        Standing::Before | Standing::Between { .. } => {}
    }
    guard::nobody_has_it_open(step, &access.fs)?;
    say(Line::Found(Found { standing, remembered }))?;
    if let Step::Reset { address, methods } = step {
        let reset_method = Some(reset::run(access, *address, methods)?);
        return Ok(Done { changed: true, reset_method, ..Done::default() });
    }
    if let Step::ResetUsb { port, vendor, product, serial } = step {
        reset_usb::run(access, port, (*vendor, *product), serial.as_deref())?;
        return Ok(Done { changed: true, reset_method: Some("usb port".to_owned()), ..Done::default() });
    }
    effect::carry_out(step, access)?;
    read_back(step, access)?;
    Ok(Done { changed: true, ..Done::default() })
}

fn backward(step: &Step, remembered: &[Remembered], access: &Access, say: Say<'_>) -> Result<Done> {
    let Some(undo) = step.undo() else {
        put_back(remembered, access)?;
        return Ok(Done::default());
    };
    let standing = standing::look(step, access)?;
    let changed = standing != Standing::Before;
    if changed {
        if let Standing::Other { found } = &standing {
            // What sits there is no work of ours; taking "it" back would take away another's.
            return Err(stale(&undo, found));
        }
        guard::nobody_has_it_open(&undo, &access.fs)?;
        say(Line::Found(Found { standing, remembered: remembered.to_vec() }))?;
        effect::carry_out(&undo, access)?;
        read_back(&undo, access)?;
    }
    put_back(remembered, access)?;
    Ok(Done { changed, ..Done::default() })
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

fn put_back(remembered: &[Remembered], access: &Access) -> Result<()> {
    for Remembered { path, text } in remembered {
        // The lock of an unbind is gone with the driver.
        if access.fs.attribute(path).if_present()?.is_some_and(|now| now != *text) {
            // `(null)` is how the kernel prints an override that is not there, and a lone newline how it is told so.
            access.fs.write(path, if text == "(null)" || text.is_empty() { "\n" } else { text })?;
        }
    }
    Ok(())
}
