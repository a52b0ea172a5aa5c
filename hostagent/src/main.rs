//! `croft-hostagent`: see the library.
#![forbid(unsafe_code)]

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use croft_hostagent::config::{Cli, Command, LogFormat};
use tracing_subscriber::EnvFilter;

/// At the end, for a write to the journal that is under way. A thread that hangs in a libvirt call is not waited for.
const LAST_WRITES: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    croft_program::is_version(option_env!("CROFT_VERSION"));
    let cli = Cli::parse();
    if let Command::DeviceHelper { errand, agent } = cli.command {
        return croft_hostagent::devices::helper::main(errand, agent);
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match cli.log_format {
        LogFormat::Text => {
            // The convention of no-color.org.
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            log.with_ansi(colour).init();
        }
        LogFormat::Json => log.json().init(),
    }
    // An error means that somebody installed one before: the process has one, and that is all that counts.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("croft-hostagent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(croft_hostagent::run::run(cli.command));
    runtime.shutdown_timeout(LAST_WRITES);
    ended
}
