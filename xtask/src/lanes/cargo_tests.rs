//! Building tests with cargo, and running what it built.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Options, pool};
use crate::closing::Tally;
use crate::run::Run;
use crate::workspace::{cache, cargo, root};

/// A test program that cargo built.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    /// Where cargo would run it.
    pub(crate) package_dir: PathBuf,
}

/// Begun first, since whichever of them came last would end alone. Only the time of a lane hangs on this list.
const SLOWEST: [&str; 6] = ["kills", "every_plan", "devices_kills", "apply", "device_kills", "devices"];

impl Program {
    /// As cargo would run it.
    fn run(&self) -> Run {
        Run::new(&self.file).dir(&self.package_dir).env("CARGO_MANIFEST_DIR", &self.package_dir)
    }

    /// `gpu/sim apply`: the name alone is not always enough.
    fn title(&self) -> String {
        let package = self.package_dir.strip_prefix(root()).unwrap_or(&self.package_dir);
        format!("{} {}", package.display(), self.name)
    }
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

/// Runs the programs of a lane side by side, and with them the examples in the documentation of `documented` packages.
pub(crate) fn run(programs: &[Program], documented: Option<&[String]>, options: &Options) -> Result<Tally> {
    let mut runs = Vec::new();
    if let Some(selection) = documented {
        let run = cargo().args(["test", "--quiet", "--no-fail-fast", "--doc"]).args(selection);
        runs.push(("documentation tests".to_owned(), with_environment(run, options)?));
    }
    for program in programs {
        runs.push((program.title(), with_environment(program.run(), options)?));
    }
    Ok(pool::run(runs))
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
    let mut programs: Vec<Program> = messages.lines().filter_map(program).collect();
    programs.sort_by_key(|program| SLOWEST.iter().position(|slow| *slow == program.name).unwrap_or(SLOWEST.len()));
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

    #[test]
    fn a_runner_that_dies_without_a_failed_test_is_an_error() {
        let error = counted(&Run::new("sh").args(["-c", "echo 2 passed, 0 failed; exit 101"])).unwrap_err();
        assert!(error.to_string().contains("no test says why"), "{error}");
    }
}
