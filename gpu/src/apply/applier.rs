//! A plan, step by step: forward until one fails, then back in reverse.
//!
//! ```text
//!  do 0 ─► do 1 ─► do 2 ✗ ─► undo 2 ─► undo 1 ─► undo 0 ─► Failed { undone: Whole }
//!                    │          └─✗─ again, a few times ──► Failed { undone: Not }
//!                    └─ does not return, does not die ────► Stuck: no undo, no further write
//! ```
//! A step that was true already is none of the plan's doing and is not undone. The step that failed is undone like the
//! others: an error does not prove that nothing happened.

use std::thread;
use std::time::Duration;

use super::error::StepError;
use super::executor::{Carried, Ending, Executor};
use super::guard::culprits;
use super::outcome::{Failure, Outcome, Stuck, Undone, overran};
use super::reset::{ResetOutcome, ResetRecord};
use super::work::{Done, Remembered, Work};
use crate::hostfs::HostFs;
use crate::plan::{Plan, Step};

/// How often an undo is tried, and how long it is waited in between: most of what is in the way leaves by itself.
const UNDO_TRIES: usize = 3;
const UNDO_PAUSE: Duration = Duration::from_millis(200);

/// Carries out plans. One plan at a time on one device: who calls sees to that.
pub struct Applier {
    executor: Box<dyn Executor + Send + Sync>,
    fs: HostFs,
    now: Box<dyn Fn() -> i64 + Send + Sync>,
    deadline: Box<dyn Fn(&Step) -> Duration + Send + Sync>,
}

impl std::fmt::Debug for Applier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Applier").field("fs", &self.fs).finish_non_exhaustive()
    }
}

impl Applier {
    /// `fs` is only read, and only to name culprits. `now`: microseconds since 1970, for the record.
    pub fn new(
        executor: impl Executor + Send + Sync + 'static,
        fs: HostFs,
        now: impl Fn() -> i64 + Send + Sync + 'static,
    ) -> Applier {
        Applier { executor: Box::new(executor), fs, now: Box::new(now), deadline: Box::new(Step::deadline) }
    }

    /// Other deadlines than the steps' own: for tests, that have less time.
    #[must_use]
    pub fn with_deadlines(self, deadline: impl Fn(&Step) -> Duration + Send + Sync + 'static) -> Applier {
        Applier { deadline: Box::new(deadline), ..self }
    }

    /// Blocks, for as long as the steps' deadlines add up to at the worst. `before` hears of every step, done or undone,
    /// just before it is.
    pub fn apply(&self, plan: &Plan, before: &mut dyn FnMut(&Work)) -> Outcome {
        let mut past = Past::default();
        for (index, step) in plan.steps.iter().enumerate() {
            let work = Work::Do { step: step.clone() };
            before(&work);
            let started = (self.now)();
            let Carried { found, ending } = self.executor.carry_out(&work, (self.deadline)(step));
            let touched = found.is_some();
            past.note_reset(step, &ending, started, (self.now)());
            if touched {
                let remembered = found.map(|found| found.remembered).unwrap_or_default();
                past.done.push((step.clone(), remembered));
            }
            let error = match ending {
                Ending::Done(_) => continue,
                Ending::Failed(error) => error,
                Ending::Overran => overran(step, (self.deadline)(step)),
                Ending::Stuck { pid } => return self.stuck(index, step, pid, past),
            };
            return self.back(index, step, error, past, before);
        }
        Outcome::Applied { resets: past.resets }
    }

    fn back(
        &self,
        index: usize,
        step: &Step,
        error: StepError,
        mut past: Past,
        before: &mut dyn FnMut(&Work),
    ) -> Outcome {
        let culprits = culprits(step, &self.fs);
        let mut undone = Undone::Whole;
        while let Some((done, remembered)) = past.done.last() {
            match self.undo(done, remembered, before) {
                Ok(()) => past.done.pop(),
                Err(Trouble::Stuck { pid }) => {
                    let done = done.clone();
                    return self.stuck(index, &done, pid, past);
                }
                Err(Trouble::Failed(error)) => {
                    undone = Undone::Not { error, left: past.left() };
                    break;
                }
            };
        }
        let step = step.clone();
        Outcome::Failed(Box::new(Failure { index, step, error, culprits, undone, resets: past.resets }))
    }

    fn undo(&self, step: &Step, remembered: &[Remembered], before: &mut dyn FnMut(&Work)) -> Result<(), Trouble> {
        let work = Work::Undo { step: step.clone(), remembered: remembered.to_vec() };
        let mut last = None;
        for attempt in 0..UNDO_TRIES {
            if attempt > 0 {
                thread::sleep(UNDO_PAUSE);
            }
            before(&work);
            last = Some(match self.executor.carry_out(&work, (self.deadline)(step)).ending {
                Ending::Done(_) => return Ok(()),
                Ending::Stuck { pid } => return Err(Trouble::Stuck { pid }),
                Ending::Failed(error) => error,
                Ending::Overran => overran(&step.undo().unwrap_or_else(|| step.clone()), (self.deadline)(step)),
            });
        }
        Err(Trouble::Failed(last.unwrap_or_else(|| StepError::new("not tried"))))
    }

    fn stuck(&self, index: usize, step: &Step, pid: u32, past: Past) -> Outcome {
        let mut culprits = culprits(step, &self.fs);
        culprits.retain(|culprit| !matches!(culprit, super::Culprit::Process { pid: known, .. } if *known == pid));
        let left = past.left();
        Outcome::Stuck(Box::new(Stuck { index, step: step.clone(), pid, culprits, left, resets: past.resets }))
    }
}

enum Trouble {
    Failed(StepError),
    Stuck { pid: u32 },
}

/// What a plan has done so far.
#[derive(Default)]
struct Past {
    /// With what is to be put back.
    done: Vec<(Step, Vec<Remembered>)>,
    resets: Vec<ResetRecord>,
}

impl Past {
    fn left(&self) -> Vec<Step> {
        self.done.iter().rev().map(|(step, _)| step.clone()).collect()
    }

    fn note_reset(&mut self, step: &Step, ending: &Ending, started: i64, ended: i64) {
        let Step::Reset { address, .. } = step else { return };
        let doubt = |why: String| (None, ResetOutcome::Doubtful { why });
        let (method, outcome) = match ending {
            Ending::Done(Done { reset_method, .. }) => (reset_method.clone(), ResetOutcome::Clean),
            Ending::Failed(error) => doubt(error.message.clone()),
            Ending::Overran => doubt("it did not return in time".to_owned()),
            Ending::Stuck { pid } => doubt(format!("it never returned; process {pid} hangs in it")),
        };
        self.resets.push(ResetRecord { device: *address, method, started, ended, outcome });
    }
}
