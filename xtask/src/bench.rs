//! `cargo xtask bench`: the benchmark program of croft-tests, optimised, with the arguments passed on.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::packages;
use crate::workspace::cargo;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Passed on to the benchmark; `-- --help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    packages::ensure(&[packages::BUILD, packages::HOST])?;
    let bench = ["run", "--quiet", "--release", "--package", "croft-tests", "--bin", "croft-bench", "--"];
    let success = cargo().args(bench).args(&options.args).show_status()?;
    Ok(if success { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
