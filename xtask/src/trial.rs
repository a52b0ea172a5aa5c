//! Tests that this program runs itself, one after the other: what was tried, how it went, how long it took.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::closing::Tally;

#[derive(Debug, Default)]
pub(crate) struct Trial {
    pub(crate) tally: Tally,
}

impl Trial {
    /// One test; whether it passed.
    pub(crate) fn test(&mut self, name: &str, body: impl FnOnce() -> Result<()>) -> bool {
        let began = Instant::now();
        let outcome = body().with_context(|| name.to_owned());
        let took = began.elapsed().as_secs();
        match outcome {
            Ok(()) => {
                self.tally.count.passed += 1;
                println!("ok      {name} ({took} s)");
                true
            }
            Err(error) => {
                self.tally.count.failed += 1;
                println!("FAILED  {error:#} ({took} s)");
                self.tally.failures.push(name.to_owned());
                false
            }
        }
    }

    /// The same in the words that [`Tally::read`] understands, for whoever started us.
    pub(crate) fn closing(&self) -> String {
        let failures: String = self.tally.failures.iter().map(|name| format!("test {name} ... FAILED\n")).collect();
        format!("{failures}{}", self.tally.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of_two() -> Trial {
        let mut trial = Trial::default();
        assert!(trial.test("good", || Ok(())));
        assert!(!trial.test("bad", || anyhow::bail!("no")));
        trial
    }

    #[test]
    fn what_fails_is_counted_and_named() {
        let tally = one_of_two().tally;
        assert_eq!((tally.count.passed, tally.count.failed), (1, 1));
        assert_eq!(tally.failures, ["bad"]);
    }

    #[test]
    fn whoever_reads_the_closing_words_knows_as_much() {
        let trial = one_of_two();
        let mut read = Tally::default();
        trial.closing().lines().for_each(|line| read.read(line));
        assert_eq!((read.count, read.failures), (trial.tally.count, trial.tally.failures));
    }
}
