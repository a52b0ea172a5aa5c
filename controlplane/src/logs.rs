//! Logs go to standard error, a line an event. What is secret (tokens, seeds, keys) is never handed to them.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

#[derive(Debug, Clone, Args)]
pub struct Options {
    /// For people, or for machines.
    #[arg(long, env = "CROFT_LOG_FORMAT", value_enum, default_value_t = Format::Text, global = true)]
    pub log_format: Format,
    /// `error`, `warn`, `info`, `debug`, `trace`, or per part: `info,croft_engine=debug`.
    #[arg(long, env = "CROFT_LOG", value_name = "FILTER", default_value = "info", global = true)]
    pub log: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// Writes whole answers of clusters that it cannot read, which may hold anything. Who names it in his filter gets it nevertheless.
const QUIET: &str = "kube_client=off";

/// Once, at the start of the process.
pub fn init(options: &Options) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", options.log))
        .map_err(|error| anyhow::anyhow!("--log `{}` is no log filter: {error}", options.log))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match options.log_format {
        Format::Text => {
            use std::io::IsTerminal;
            // The convention of no-color.org.
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            logs.with_ansi(colour).try_init()
        }
        Format::Json => logs.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow::anyhow!("logs are set up already: {error}"))
}
