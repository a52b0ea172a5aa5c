//! The user's terminal in raw mode, and back again on every way out.

use std::io;
use std::os::fd::AsFd as _;

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// Raw for as long as it lives. Dropping it (return, error, panic) restores what was there; signals that end the
/// process are the owner's to catch.
#[derive(Debug)]
pub struct RawMode(Termios);

impl RawMode {
    /// `None` where stdin is no terminal: a pipe needs no mode.
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !isatty(&stdin) {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Flush, &raw)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Flush: what was typed for the guest must not reach the shell.
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Flush, &self.0);
    }
}
