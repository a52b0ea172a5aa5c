//! A plan, step by step: forward until one fails, then back in reverse.
//!
//! ```text
//!  do 0 ─► do 1 ─► do 2 ✗ ─► undo 2 ─► undo 1 ─► undo 0 ─► Failed { undone: Whole }
//!                    │          └─✗─ again, a few times ──► Failed { undone: Not }
//!                    └─ does not return, does not die ────► Stuck: no undo, no further write
//! ```
//! A step that was true already is none of the plan's doing and is not undone. The step that failed is undone like the
//! others: an error does not prove that nothing happened.
//!
//! Who is told to stop goes no further than the step in hand, and back.
//!
//! Touches nothing of the host itself, not even to read: everything is asked of the executor.

use std::thread;
use std::time::Duration;

use super::error::{Deferred, StepError};
use super::executor::{Carried, Ending, Executor};
use super::guard::Culprit;
use super::outcome::{Failure, Left, Outcome, Stuck, Undone, overran};
use super::reset::{ResetOutcome, ResetRecord};
use super::work::{Done, Work};
use crate::plan::{Plan, Step};

/// How often an undo is tried, and how long it is waited in between: most of what is in the way leaves by itself.
const UNDO_TRIES: usize = 3;
const UNDO_PAUSE: Duration = Duration::from_millis(200);

/// A look at all processes of a large host takes a second.
const EXPLAINING: Duration = Duration::from_secs(10);

/// Carries out plans. One plan at a time on one device: who calls sees to that.
pub struct Applier {
    executor: Box<dyn Executor + Send + Sync>,
    now: Box<dyn Fn() -> i64 + Send + Sync>,
    deadline: Box<dyn Fn(&Step) -> Duration + Send + Sync>,
    told_to_stop: Box<dyn Fn() -> bool + Send + Sync>,
}

impl std::fmt::Debug for Applier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Applier").finish_non_exhaustive()
    }
}

impl Applier {
    /// `now`: microseconds since 1970, for the record.
    pub fn new(
        executor: impl Executor + Send + Sync + 'static,
        now: impl Fn() -> i64 + Send + Sync + 'static,
    ) -> Applier {
        Applier {
            executor: Box::new(executor),
            now: Box::new(now),
            deadline: Box::new(Step::deadline),
            told_to_stop: Box::new(|| false),
        }
    }

    /// Other deadlines than the steps' own: for tests, that have less time.
    #[must_use]
    pub fn with_deadlines(self, deadline: impl Fn(&Step) -> Duration + Send + Sync + 'static) -> Applier {
        Applier { deadline: Box::new(deadline), ..self }
    }

    /// Asked before every step of a plan: when it says so, the plan ends there, and is taken back.
    #[must_use]
    pub fn until(self, told_to_stop: impl Fn() -> bool + Send + Sync + 'static) -> Applier {
        Applier { told_to_stop: Box::new(told_to_stop), ..self }
    }

    /// Blocks, for as long as the steps' deadlines add up to at the worst. `before` hears of every step, done or undone,
    /// just before it is.
    pub fn apply(&self, plan: &Plan, before: &mut dyn FnMut(&Work)) -> Outcome {
        let mut resets = Vec::new();
        // The last one first.
        let mut done: Vec<Left> = Vec::new();
        for (index, step) in plan.steps.iter().enumerate() {
            if (self.told_to_stop)() {
                let error = StepError::deferred("whoever changes the device was told to end", Deferred::Stopped);
                let (step, culprits, undone) = (step.clone(), Vec::new(), Undone::Whole);
                return self.back(Failure { index, step, error, culprits, undone, resets }, done, before);
            }
            let work = Work::Do { step: step.clone() };
            before(&work);
            let started = (self.now)();
            let Carried { found, ending } = self.executor.carry_out(&work, (self.deadline)(step));
            resets.extend(record(step, &ending, started, (self.now)()));
            // Without a word of what was found, nothing was touched.
            if let Some(found) = found {
                // One that came to its end has put back itself what it changed for a moment.
                let ended = matches!(ending, Ending::Done(_));
                let remembered = if ended { Vec::new() } else { found.remembered };
                done.insert(0, Left { step: step.clone(), remembered });
            }
            let error = match ending {
                Ending::Done(_) => continue,
                Ending::Failed(error) => error,
                Ending::Overran => overran(step, (self.deadline)(step)),
                Ending::Stuck { pid } => {
                    let culprits = self.explain(step, pid);
                    let (step, left) = (step.clone(), done);
                    return Outcome::Stuck(Box::new(Stuck { index, step, pid, culprits, left, resets }));
                }
            };
            let culprits = if error.suggests_a_holder() { self.explain(step, 0) } else { Vec::new() };
            let undone = Undone::Whole;
            return self.back(Failure { index, step: step.clone(), error, culprits, undone, resets }, done, before);
        }
        Outcome::Applied { resets }
    }

    /// `failure`: but for what becomes of the way back.
    fn back(&self, failure: Failure, done: Vec<Left>, before: &mut dyn FnMut(&Work)) -> Outcome {
        match self.take_back(done, before) {
            TakenBack::Undone(undone) => Outcome::Failed(Box::new(Failure { undone, ..failure })),
            TakenBack::Stuck { step, pid, left } => {
                let Failure { index, culprits, resets, .. } = failure;
                Outcome::Stuck(Box::new(Stuck { index, step, pid, culprits, left, resets }))
            }
        }
    }

    /// Undoes what a plan left done, the first of the list first: at once, or long after, when what was in the way is gone.
    pub fn take_back(&self, mut left: Vec<Left>, before: &mut dyn FnMut(&Work)) -> TakenBack {
        while let Some(next) = left.first() {
            match self.undo(next, before) {
                Ok(()) => drop(left.remove(0)),
                Err(Trouble::Failed(error)) => return TakenBack::Undone(Undone::Not { error, left }),
                Err(Trouble::Stuck { pid }) => return TakenBack::Stuck { step: next.step.clone(), pid, left },
            }
        }
        TakenBack::Undone(Undone::Whole)
    }

    fn undo(&self, Left { step, remembered }: &Left, before: &mut dyn FnMut(&Work)) -> Result<(), Trouble> {
        let work = Work::Undo { step: step.clone(), remembered: remembered.clone() };
        let deadline = (self.deadline)(step);
        for attempt in 1.. {
            before(&work);
            let error = match self.executor.carry_out(&work, deadline).ending {
                Ending::Done(_) => return Ok(()),
                Ending::Stuck { pid } => return Err(Trouble::Stuck { pid }),
                Ending::Failed(error) => error,
                Ending::Overran => overran(&step.undo().unwrap_or_else(|| step.clone()), deadline),
            };
            if attempt == UNDO_TRIES {
                return Err(Trouble::Failed(error));
            }
            thread::sleep(UNDO_PAUSE);
        }
        unreachable!("the last attempt returns")
    }

    /// Nobody, where nobody can be found out: this explains a failure, and decides nothing. `helper`: not itself a culprit.
    fn explain(&self, step: &Step, helper: u32) -> Vec<Culprit> {
        let work = Work::Explain { step: step.clone() };
        let Ending::Done(Done { mut culprits, .. }) = self.executor.carry_out(&work, EXPLAINING).ending else {
            return Vec::new();
        };
        culprits.retain(|culprit| !matches!(culprit, Culprit::Process { pid, .. } if *pid == helper));
        culprits
    }
}

/// What became of the way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakenBack {
    Undone(Undone),
    /// The helper that undid `step`, the first of `left`, hangs in the kernel.
    Stuck {
        step: Step,
        pid: u32,
        left: Vec<Left>,
    },
}

enum Trouble {
    Failed(StepError),
    Stuck { pid: u32 },
}

fn record(step: &Step, ending: &Ending, started: i64, ended: i64) -> Option<ResetRecord> {
    let device = match step {
        Step::Reset { address, .. } => address.to_string(),
        Step::ResetUsb { port, .. } => port.to_string(),
        _ => return None,
    };
    let doubt = |why: String| (None, ResetOutcome::Doubtful { why });
    let (method, outcome) = match ending {
        Ending::Done(Done { reset_method, .. }) => (reset_method.clone(), ResetOutcome::Clean),
        Ending::Failed(error) => doubt(error.message.clone()),
        Ending::Overran => doubt("it did not return in time".to_owned()),
        Ending::Stuck { pid } => doubt(format!("it never returned; process {pid} hangs in it")),
    };
    Some(ResetRecord { device, method, started, ended, outcome })
}
