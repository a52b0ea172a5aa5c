//! `croft-controlplane`: see `croft_controlplane`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use croft_controlplane::{Arguments, logs, run};

// The plane brings its own threads; this one waits for signals.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    croft_program::is_version(option_env!("CROFT_VERSION"));
    let arguments = Arguments::parse();
    // Only a second installation fails, and there is none before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match logs::init(&arguments.logs) {
        Ok(()) => {}
        Err(error) => return failed(&error),
    }
    run(arguments.command).await.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("croft-controlplane: {error:#}");
    ExitCode::FAILURE
}
