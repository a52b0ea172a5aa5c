//! Building tests with cargo and running them, by nextest when it is installed.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Options;
use crate::closing::Tally;
use crate::run::Run;
use crate::workspace::{cache, cargo};

/// A test program that cargo built.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    /// Where cargo would run it.
    pub(crate) package_dir: PathBuf,
}

/// What every test run sees.
pub(crate) fn with_environment(run: Run, options: &Options) -> Result<Run> {
    let run = run.env("CROFT_CACHE", cache()?);
    Ok(if options.full { run.env("PROPTEST_CASES", "512").env("CROFT_TEST_FULL", "1") } else { run })
}

/// Compiles; compiler messages go to the terminal.
pub(crate) fn build(selection: &[String]) -> Result<()> {
    cargo().args(["test", "--no-run", "--quiet"]).args(selection).show().context("the tests do not compile")
}

/// The daemons and the CLI, for tests that start them as processes.
pub(crate) fn build_binaries() -> Result<()> {
    cargo().args(["build", "--quiet"]).show().context("the binaries do not compile")
}

/// Runs them all, also after a failure, and adds up what the runner says.
pub(crate) fn run(selection: &[String], options: &Options) -> Result<Tally> {
    let verb: &[&str] =
        if nextest_is_there() { &["nextest", "run", "--no-fail-fast"] } else { &["test", "--no-fail-fast"] };
    counted(&with_environment(cargo().args(verb).args(selection), options)?)
}

/// Documentation tests, which nextest does not know.
pub(crate) fn run_doc_tests(selection: &[String], options: &Options) -> Result<Tally> {
    counted(&with_environment(cargo().args(["test", "--no-fail-fast", "--doc"]).args(selection), options)?)
}

fn nextest_is_there() -> bool {
    cargo().args(["nextest", "--version"]).ended().is_ok_and(|ended| ended.success)
}

/// Runs a test runner and adds up its closing lines. One that failed without a failed test is an error.
pub(crate) fn counted(run: &Run) -> Result<Tally> {
    let mut tally = Tally::default();
    let success = run.each_line(|line| tally.read(line))?;
    if !success && tally.count.failed == 0 {
        bail!("{} failed, and no test says why", run.shown());
    }
    Ok(tally)
}

/// Compiles the selected tests and says where their programs are.
pub(crate) fn programs(selection: &[String]) -> Result<Vec<Program>> {
    build(selection)?;
    let messages =
        cargo().args(["test", "--no-run", "--quiet", "--message-format", "json"]).args(selection).stdout()?;
    let programs: Vec<Program> = messages.lines().filter_map(program).collect();
    if programs.is_empty() {
        bail!("cargo built no test program for {}", selection.join(" "));
    }
    Ok(programs)
}

fn program(message: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let manifest = PathBuf::from(message["manifest_path"].as_str()?);
    Some(Program {
        name: message["target"]["name"].as_str()?.to_owned(),
        file: PathBuf::from(message["executable"].as_str()?),
        package_dir: manifest.parent()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::closing::Count;

    #[test]
    fn a_runner_that_dies_without_a_failed_test_is_an_error() {
        let error = counted(&Run::new("sh").args(["-c", "echo 2 passed, 0 failed; exit 101"])).unwrap_err();
        assert!(error.to_string().contains("no test says why"), "{error}");
    }

    #[test]
    fn closing_lines_of_several_programs_add_up() {
        let script =
            "echo 'test a ... FAILED'; echo '2 passed, 1 failed, 1 skipped'; echo '3 passed, 0 failed'; exit 1";
        let tally = counted(&Run::new("sh").args(["-c", script])).unwrap();
        assert_eq!(tally.count, Count { passed: 5, failed: 1, skipped: 1 });
        assert_eq!(tally.failures, ["a"]);
    }
}
