//! Test programs side by side, where cargo runs them one after the other.
//!
//! One alone seldom keeps the processors busy: its longest test ends alone, and many tests wait for a deadline that they
//! provoke. What a program prints is shown in one piece when it has ended.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::Result;

use crate::closing::{self, Count, Tally};
use crate::run::Run;

/// Programs per processor. Each runs as many tests at once as there are processors; more programs would share them so thinly
/// that tests which watch the clock notice.
const PER_PROCESSOR: usize = 2;

/// Runs them all, whatever fails, begins them in the order given, and adds up what they say.
pub(super) fn run(programs: Vec<(String, Run)>) -> Tally {
    let waiting = Mutex::new(VecDeque::from(programs));
    let total = Mutex::new(Tally::default());
    let workers = thread::available_parallelism().map_or(1, usize::from) * PER_PROCESSOR;
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some((name, run)) = next else { break };
                    // Of one that never ends this is all there is to see.
                    println!("... {name} begins");
                    let started = Instant::now();
                    let ended = run.both();
                    // Held while it prints, or two programs' lines would mix.
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    *total += told(&name, started, ended);
                }
            });
        }
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Shows what a program said, and counts it. One that failed without a failed test is a failure by itself.
fn told(name: &str, started: Instant, ended: Result<(bool, String)>) -> Tally {
    let (success, text) = ended.unwrap_or_else(|error| (false, format!("{error:#}\n")));
    println!("--> {name}: {} s\n{}", started.elapsed().as_secs(), text.trim_end());
    let mut tally = Tally::default();
    text.lines().for_each(|line| tally.read(line));
    tally.failures.iter_mut().for_each(|test| *test = format!("{name}: {test}"));
    let why = if !success && tally.count.failed == 0 {
        "it failed, and no test says why"
    } else if success && !text.lines().any(closing::is_closing) {
        "it ended without a word of how many tests ran"
    } else {
        return tally;
    };
    let count = Count { failed: 1, ..Count::default() };
    tally += Tally { count, failures: vec![format!("{name}: {why}")] };
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> (String, Run) {
        (text.to_owned(), Run::new("sh").args(["-c", text]))
    }

    #[test]
    fn closing_lines_of_several_programs_add_up() {
        let tally = run(vec![
            script("echo 'test a ... FAILED'; echo '2 passed, 1 failed, 1 skipped'; exit 1"),
            script("echo '3 passed, 0 failed'"),
        ]);
        assert_eq!(tally.count, Count { passed: 5, failed: 1, skipped: 1 });
        assert_eq!(tally.failures.len(), 1);
        assert!(tally.failures[0].ends_with(": a"), "{:?}", tally.failures);
    }

    #[test]
    fn a_program_that_dies_without_a_failed_test_is_a_failure() {
        let tally = run(vec![script("echo 2 passed, 0 failed; exit 101"), script("echo 1 passed, 0 failed")]);
        assert_eq!(tally.count, Count { passed: 3, failed: 1, skipped: 0 });
        assert!(tally.failures[0].contains("no test says why"), "{:?}", tally.failures);
    }

    #[test]
    fn a_program_that_says_nothing_at_its_end_is_a_failure() {
        let tally = run(vec![script("echo running 3 tests; exit 0"), script("echo 0 passed, 0 failed")]);
        assert_eq!(tally.count, Count { passed: 0, failed: 1, skipped: 0 });
    }

    #[test]
    fn what_is_left_behind_with_the_output_hides_nothing() {
        let started = Instant::now();
        let tally = run(vec![script("sleep 30 & echo \"test a ... FAILED\"; echo 0 passed, 1 failed; kill -9 $$")]);
        assert!(started.elapsed().as_secs() < 25, "it was waited for");
        assert_eq!(tally.failures.len(), 1, "{:?}", tally.failures);
        let tally = run(vec![script("sleep 30 & echo 1 passed, 0 failed")]);
        assert_eq!(tally.count.failed, 1);
    }

    #[test]
    fn one_that_cannot_be_started_is_a_failure_and_the_others_run() {
        let tally = run(vec![("gone".to_owned(), Run::new("/no/such/program")), script("echo 1 passed, 0 failed")]);
        assert_eq!(tally.count, Count { passed: 1, failed: 1, skipped: 0 });
    }

    #[test]
    fn they_run_side_by_side() {
        let directory = tempfile::tempdir().unwrap();
        let [here, there] = ["here", "there"].map(|name| directory.path().join(name).display().to_string());
        // Each waits for the other to have begun.
        let meet = |mine: &str, other: &str| {
            script(&format!(
                "touch {mine}; for n in $(seq 600); do [ -e {other} ] && echo 1 passed, 0 failed && exit; sleep 0.1; done; exit 1"
            ))
        };
        assert_eq!(run(vec![meet(&here, &there), meet(&there, &here)]).count.passed, 2);
    }
}
