//! One line per step: when it ended, what it was, what came of it, how long it took.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::run::{clear_progress, progress};

#[derive(Debug)]
pub(super) struct Steps {
    began: Instant,
}

impl Steps {
    pub(super) fn new() -> Steps {
        Steps { began: Instant::now() }
    }

    /// Does the work, then prints the line with what the work says of itself.
    pub(super) fn step<T>(&self, name: &str, work: impl FnOnce() -> Result<Done<T>>) -> Result<T> {
        let began = Instant::now();
        progress(Duration::ZERO, name);
        let done = work().with_context(|| format!("step \"{name}\""));
        clear_progress();
        let done = done?;
        println!(
            "[{:>4} s] {name:<14} {} ({} s)",
            self.began.elapsed().as_secs(),
            done.said,
            began.elapsed().as_secs()
        );
        Ok(done.value)
    }
}

/// What a step gives, and what it says.
#[derive(Debug)]
pub(super) struct Done<T = ()> {
    pub(super) value: T,
    pub(super) said: String,
}

/// For a step that gives nothing.
pub(super) fn said(text: impl Into<String>) -> Result<Done> {
    Ok(Done { value: (), said: text.into() })
}

/// Asks again every second until there is an answer. `asked` says `Ok(None)` while there is none, and what to show.
pub(super) fn wait_for<T>(what: &str, patience: Duration, mut asked: impl FnMut() -> Result<Waiting<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        match asked()? {
            Waiting::Over(value) => return Ok(value),
            Waiting::Still(state) if began.elapsed() > patience => {
                anyhow::bail!("gave up waiting for {what} after {} s: {state}", patience.as_secs());
            }
            Waiting::Still(state) => progress(began.elapsed(), &state),
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[derive(Debug)]
pub(super) enum Waiting<T> {
    Over(T),
    /// With what is the case instead.
    Still(String),
}
