//! `croft`: the command line of Croft, a client of the public API (`croft.v1`) and of nothing else.
//!
//! Refuses to hold rules of its own: what is valid, allowed or within quota is the plane's to say.

mod app;
mod apply;
mod args;
mod config;
mod confirm;
mod duration;
mod exit;
mod failure;
mod flags;
mod keys;
mod labels;
mod names;
mod noun;
mod output;
mod plane;
mod retry;
mod size;
mod target;
mod terminal;
mod wait;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

/// All of the program but its version, which `main.rs` says.
#[must_use]
pub fn main() -> ExitCode {
    // The only error is that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = args::Args::parse();
    let format = args.global.output;
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failure::Failure::local(format!("cannot start the async runtime: {error}")))
        .and_then(|runtime| {
            let outcome = runtime.block_on(app::run(args));
            // A thread that sits in read(2) on the terminal must not keep the process.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(format);
            failure.exit().into()
        }
    }
}
