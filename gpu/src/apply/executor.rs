//! Who carries out a piece of work, and what came of it. In production a process of its own ([`super::ChildProcess`]).

use std::time::Duration;

use super::access::Access;
use super::error::StepError;
use super::perform::perform;
use super::work::{Done, Found, Line, Work};

pub trait Executor {
    /// Returns soon after `deadline` at the latest, whatever the kernel does, where the executor can promise that.
    fn carry_out(&self, work: &Work, deadline: Duration) -> Carried;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// `None`: it came to its end before anything was touched.
    pub found: Option<Found>,
    pub ending: Ending,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    Done(Done),
    Failed(StepError),
    /// It was killed at its deadline, and is gone.
    Overran,
    /// It was killed at its deadline, and is not gone: it sleeps in the kernel, with the device in its hands.
    Stuck {
        pid: u32,
    },
}

/// In this very process, and without any deadline: for tests, and for tools whose user can end them.
#[derive(Debug)]
pub struct InProcess {
    access: Access,
}

impl InProcess {
    #[must_use]
    pub fn new(access: Access) -> InProcess {
        InProcess { access }
    }
}

impl Executor for InProcess {
    fn carry_out(&self, work: &Work, _: Duration) -> Carried {
        let mut account = Account::default();
        let said = perform(work, &self.access, &mut |line| {
            account.hear(line);
            Ok(())
        });
        drop(said);
        account.close(|| Ending::Failed(StepError::new("the work ended without a word")))
    }
}

/// What was heard of a piece of work so far.
#[derive(Debug, Default)]
pub(super) struct Account {
    found: Option<Found>,
    ending: Option<Ending>,
}

impl Account {
    pub fn hear(&mut self, line: Line) {
        match line {
            Line::Found(found) => self.found = Some(found),
            Line::Done(done) => self.ending = Some(Ending::Done(done)),
            Line::Failed { error } => self.ending = Some(Ending::Failed(error)),
            Line::HeldBack { pid } => self.ending = Some(Ending::Stuck { pid }),
        }
    }

    pub fn close(self, otherwise: impl FnOnce() -> Ending) -> Carried {
        Carried { found: self.found, ending: self.ending.unwrap_or_else(otherwise) }
    }
}
