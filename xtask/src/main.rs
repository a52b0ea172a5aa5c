//! `cargo xtask …`: the work around the product, in one program that needs nothing but cargo and a C linker.
//!
//! It depends on none of Croft's crates, since they need libvirt's headers and installing those is its own work.
//! Every command is safe to repeat and says what it changed on the machine.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod closing;
mod debian;
mod guest_image;
mod kubernetes;
mod lab_image;
mod lanes;
mod lint;
mod markdown;
mod packages;
mod provision;
mod quickstart;
mod recipe;
mod run;
mod tools;
mod trial;
mod workspace;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Build, try and check Croft.")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// From nothing to a tenant's running VM on this machine; `--down` takes it away again.
    Quickstart(quickstart::Options),
    /// Run every test lane that this machine can run, and name those that it cannot.
    Test(lanes::Options),
    /// Formatting, clippy, licences, shell scripts, protos, crate arrows.
    Lint(lint::Options),
    /// Creates per second beside the raw commit rate; define and start beside virsh.
    Bench(bench::Options),
    /// A GPU host without hardware: a real kernel in QEMU, every device path tried on it, and a table of how it went.
    Lab {
        /// The long form too: kills at more steps.
        #[arg(long)]
        full: bool,
    },
    /// Two bare machines in QEMU become hosts by the Ansible collection, are upgraded, and one is taken out; with its times.
    Provision {
        /// The long form too: checks before the first run, and what a second upgrade and removal change.
        #[arg(long)]
        full: bool,
    },
    /// What `provision` runs in a namespace of its own.
    #[command(hide = true)]
    ProvisionInside(provision::Provided),
    /// Build (or find in the cache) the Debian guest image and print its path.
    Image {
        /// Also copy it here.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Find or build what the kubernetes lane needs: Kubernetes' programs, and the guest that becomes a node.
    Kubernetes(kubernetes::Options),
    /// Debian's packages of control plane, host agent and command line (docs/packages.md).
    Package(debian::Options),
    /// Install the system packages that building and testing need (Debian, Ubuntu), and nothing else.
    Packages,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Quickstart(options) => quickstart::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Test(options) => lanes::run(&options),
        Command::Lint(options) => lint::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Lab { full } => lanes::lab::command(full),
        Command::Provision { full } => provision::command(full),
        Command::ProvisionInside(provided) => provision::inside(&provided),
        Command::Image { out } => guest_image::command(out.as_deref()).map(|()| ExitCode::SUCCESS),
        Command::Kubernetes(options) => kubernetes::command(&options).map(|()| ExitCode::SUCCESS),
        Command::Package(options) => debian::command(&options).map(|()| ExitCode::SUCCESS),
        Command::Packages => packages::command().map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
