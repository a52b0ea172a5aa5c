//! The command line. Every option can also be given in the environment; `--help` names the variable.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::console_janitor::Limits;
use crate::devices;
use crate::hypervisor::{libvirt, simulated};

/// Runs a Croft control plane's instances on this machine
#[derive(Debug, Parser)]
#[command(name = "croft-hostagent", version = croft_program::version())]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// How log lines are written to stderr; RUST_LOG says which (default: info)
    #[arg(long, env = "CROFT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make this machine a host: spend a one-time token for a certificate
    Enrol(EnrolArgs),
    /// Run the agent; enrols first when there is no certificate yet and a token is given
    Run(Box<RunArgs>),
    /// Write man pages and completions into a directory
    #[command(hide = true)]
    Manual(croft_program::Manual),
    /// What the agent runs itself again for: one look at devices, or one step
    #[command(hide = true)]
    DeviceHelper {
        errand: devices::helper::Errand,
        /// The process that waits for the answer
        agent: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Args)]
pub struct PlaneArgs {
    /// The control plane
    #[arg(long, env = "CROFT_SERVER", value_name = "HOST:PORT")]
    pub server: String,
    /// Where key, certificate, journal, images and disks are kept
    #[arg(long, env = "CROFT_STATE_DIR", value_name = "DIR", default_value = "/var/lib/croft/hostagent")]
    pub state_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct EnrolArgs {
    #[command(flatten)]
    pub plane: PlaneArgs,
    /// The control plane's CA certificate (PEM), as it came with the token; nothing else is trusted
    #[arg(long, env = "CROFT_CA_FILE", value_name = "FILE")]
    pub ca_file: PathBuf,
    /// One-time enrolment token for exactly this host
    #[arg(long, env = "CROFT_ENROLMENT_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: String,
    /// The name that the token was made for
    #[arg(long, env = "CROFT_HOST_ID", value_name = "ID")]
    pub host_id: String,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub plane: PlaneArgs,
    /// For a first start: the control plane's CA certificate (PEM)
    #[arg(long, env = "CROFT_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// For a first start: one-time enrolment token
    #[arg(long, env = "CROFT_ENROLMENT_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// For a first start: the name that the token was made for
    #[arg(long, env = "CROFT_HOST_ID", value_name = "ID")]
    pub host_id: Option<String>,
    /// What runs the instances
    #[arg(long, env = "CROFT_BACKEND", value_enum, default_value_t = Backend::Libvirt)]
    pub backend: Backend,
    /// Where Prometheus reads this agent's metrics
    #[arg(long, env = "CROFT_METRICS_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:9644")]
    pub metrics_listen: SocketAddr,
    /// Root of the file system that the inventory is read from
    #[arg(long, env = "CROFT_HOST_ROOT", value_name = "DIR", default_value = "/", hide = true)]
    pub host_root: PathBuf,
    #[command(flatten)]
    pub console_log: ConsoleLogArgs,
    #[command(flatten)]
    pub libvirt: libvirt::Args,
    #[command(flatten)]
    pub devices: DeviceArgs,
    #[command(flatten)]
    pub simulated: SimulatedArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Devices")]
pub struct DeviceArgs {
    /// Root of the file system that devices are read and changed below
    #[arg(long, env = "CROFT_DEVICE_ROOT", value_name = "DIR", default_value = "/", hide = true)]
    pub device_root: PathBuf,
    /// NVIDIA's management library [default: libnvidia-ml.so.1, where the system keeps its libraries]
    #[arg(long, env = "CROFT_NVML_LIBRARY", value_name = "FILE")]
    pub nvml_library: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// libvirtd and QEMU
    Libvirt,
    /// Nothing real: for trying Croft out, and for tests
    Simulated,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Console logs")]
pub struct ConsoleLogArgs {
    /// Keep at most so much of each instance's serial output
    #[arg(long, env = "CROFT_CONSOLE_LOG_MAX_MIB", value_name = "MIB", default_value_t = 8,
          value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub console_log_max_mib: u64,
    /// Keep it for so many days after the instance is gone
    #[arg(long, env = "CROFT_CONSOLE_LOG_MAX_AGE", value_name = "DAYS", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(0..=36500))]
    pub console_log_max_age: u64,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Simulated machine")]
pub struct SimulatedArgs {
    /// How large it is
    #[arg(
        long,
        env = "CROFT_SIM_CAPACITY",
        value_name = "KEY=VALUE,…",
        default_value = "vcpus=64,memory-mib=262144,disk-gib=1000"
    )]
    pub sim_capacity: simulated::Capacity,
    /// Where its state is kept [default: STATE_DIR/simulated]
    #[arg(long, env = "CROFT_SIM_DIR", value_name = "DIR")]
    pub sim_dir: Option<PathBuf>,
    /// A whole machine with devices that behave, in the state directory: h100x8, h200x8, a100x4, rtxpro6000x4, l40sx2, t4x4 or
    /// devbox; implies --backend simulated
    #[arg(long, env = "CROFT_SIMULATE", value_name = "MACHINE")]
    pub simulate: Option<String>,
}

impl ConsoleLogArgs {
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { bytes: self.console_log_max_mib << 20, age: Duration::from_secs(self.console_log_max_age * 24 * 3600) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["croft-hostagent"], arguments].concat())
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_for_a_first_start_may_stay_when_the_token_is_spent() {
        parse(&["run", "--server", "p:1", "--ca-file", "ca.pem", "--host-id", "h1"])
            .expect("as an environment file has it");
    }

    #[test]
    fn wrong_values_are_named() {
        for (option, value) in
            [("--console-log-max-mib", "0"), ("--sim-capacity", "vcpus=none"), ("--metrics-listen", "9644")]
        {
            let error = parse(&["run", "--server", "p:1", option, value]).expect_err(option).to_string();
            assert!(error.contains(option) && error.contains(value), "{error}");
        }
    }
}
