//! `cargo xtask test`: the lanes, one after the other; what ran, what could not and why, and one closing line.
//!
//! A lane that ran no test has failed. With `CI=true` a lane that could not run has failed too.

mod cargo_tests;
mod docs;
mod kubernetes;
pub(crate) mod lab;
pub(crate) mod libvirt;
mod packages;
mod pool;
mod provision;
mod pure;
mod story;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::closing::{Count, Tally};
use crate::workspace::{cache, in_ci};

/// Where the test runs of this invocation differ.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// All cases of what is otherwise sampled (CROFT_TEST_FULL=1), and more in property tests (PROPTEST_CASES=512).
    #[arg(long)]
    pub(crate) full: bool,
    /// Only these lanes.
    #[arg(long, value_enum, value_name = "NAME")]
    lane: Vec<Name>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Pure,
    Story,
    Libvirt,
    Lab,
    Kubernetes,
    Packages,
    Provision,
    Docs,
}

/// One lane: what it is, what it needs, and how long its tests may take once they are built.
#[derive(Debug)]
struct Lane {
    name: Name,
    what: &'static str,
    budget: Duration,
    packages: &'static [&'static [&'static str]],
    /// Why this machine can not run it, apart from packages.
    obstacle: fn() -> Option<String>,
    run: fn(&Options) -> Result<Ran>,
}

const LANES: [Lane; 8] =
    [pure::LANE, story::LANE, libvirt::LANE, lab::LANE, kubernetes::LANE, packages::LANE, provision::LANE, docs::LANE];

/// What a lane did.
#[derive(Debug, Default)]
struct Ran {
    tally: Tally,
    /// Compiling and fetching: not held against the budget.
    build: Duration,
    tests: Duration,
}

#[derive(Debug)]
enum Outcome {
    Ran(Ran),
    Broken { reason: String, ran: Ran },
    NotRun(String),
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    println!("environment: CROFT_CACHE={} CI={}", cache()?.display(), in_ci());
    let mut outcomes = Vec::new();
    for lane in &LANES {
        if options.lane.is_empty() || options.lane.contains(&lane.name) {
            println!("\n==> lane {}: {}", lane.label(), lane.what);
            outcomes.push((lane, lane.attempt(options)));
        }
    }
    println!();
    for (lane, outcome) in &outcomes {
        println!("{}", report(lane, outcome));
        for failure in outcome.failures() {
            println!("           {failure}");
        }
    }
    for lane in LANES.iter().filter(|l| outcomes.iter().all(|(o, _)| o.name != l.name)) {
        println!("{:<10} not asked for", lane.label());
    }
    let total = total(outcomes.iter().map(|(_, o)| o), in_ci());
    println!("{total}");
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Outcome {
    fn failures(&self) -> &[String] {
        match self {
            Outcome::Ran(ran) | Outcome::Broken { ran, .. } => &ran.tally.failures,
            Outcome::NotRun(_) => &[],
        }
    }
}

impl Lane {
    fn label(&self) -> String {
        format!("{:?}", self.name).to_lowercase()
    }

    fn attempt(&self, options: &Options) -> Outcome {
        if let Some(obstacle) = (self.obstacle)() {
            return Outcome::NotRun(obstacle);
        }
        match crate::packages::ensure(self.packages) {
            Ok(crate::packages::Ensured::AllThere) => {}
            Ok(crate::packages::Ensured::Installed(names)) => println!("installed: {}", names.join(" ")),
            Err(error) => return Outcome::NotRun(format!("{error:#}")),
        }
        match (self.run)(options) {
            Ok(ran) if ran.tally.count.executed() == 0 => Outcome::Broken { reason: "no test ran".to_owned(), ran },
            Ok(ran) => Outcome::Ran(ran),
            Err(error) => Outcome::Broken { reason: format!("{error:#}"), ran: Ran::default() },
        }
    }
}

fn report(lane: &Lane, outcome: &Outcome) -> String {
    let label = lane.label();
    match outcome {
        Outcome::NotRun(reason) => format!("{label:<10} NOT RUN: {reason}"),
        Outcome::Broken { reason, ran } => format!("{label:<10} FAILED: {reason} (built in {} s)", ran.build.as_secs()),
        Outcome::Ran(ran) => {
            let verdict = if ran.tally.count.failed == 0 { "passed" } else { "FAILED" };
            let (took, budget) = (ran.tests.as_secs(), lane.budget.as_secs());
            let over = if ran.tests > lane.budget { " OVER BUDGET" } else { "" };
            format!(
                "{label:<10} {verdict}: {}; {took} s of {budget} s{over}, after building for {} s",
                ran.tally.count.words(),
                ran.build.as_secs()
            )
        }
    }
}

/// The sum. A broken lane counts as one failure even when no test of it got so far as to fail.
fn total<'a>(outcomes: impl Iterator<Item = &'a Outcome>, in_ci: bool) -> Count {
    let mut total = Count::default();
    for outcome in outcomes {
        match outcome {
            Outcome::Ran(ran) => total += ran.tally.count,
            Outcome::Broken { ran, .. } => {
                total += ran.tally.count;
                total.failed += 1;
            }
            Outcome::NotRun(_) if in_ci => total.failed += 1,
            Outcome::NotRun(_) => total.skipped += 1,
        }
    }
    total
}

/// How long something took, beside what it gave.
fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let started = Instant::now();
    Ok((work()?, started.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(passed: u64, failed: u64) -> Outcome {
        let tally = Tally { count: Count { passed, failed, skipped: 0 }, failures: Vec::new() };
        Outcome::Ran(Ran { tally, ..Ran::default() })
    }

    #[test]
    fn a_lane_that_could_not_run_fails_only_in_ci() {
        let outcomes = [ran(3, 0), Outcome::NotRun("no root".to_owned())];
        assert_eq!(total(outcomes.iter(), false), Count { passed: 3, failed: 0, skipped: 1 });
        assert_eq!(total(outcomes.iter(), true), Count { passed: 3, failed: 1, skipped: 0 });
    }

    #[test]
    fn a_lane_that_breaks_is_a_failure() {
        let broken = Outcome::Broken { reason: "does not compile".to_owned(), ran: Ran::default() };
        assert_eq!(total([ran(3, 1), broken].iter(), false), Count { passed: 3, failed: 2, skipped: 0 });
    }
}
