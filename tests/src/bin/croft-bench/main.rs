//! `cargo xtask bench`: how fast the plane admits instances, beside what its disk allows at all.
//!
//! Timings are noisy, so every figure stands beside a reference of the same run: creates a second beside the commits a
//! second of the same file system, agent define and start beside `virsh`. Nothing here passes or fails.
#![forbid(unsafe_code)]

mod creates;
mod raw;
mod virsh;

use clap::Parser;

#[derive(Debug, Parser)]
struct Options {
    /// Creates per round.
    #[arg(long, default_value_t = 2000)]
    creates: usize,
    /// Clients at once, one round each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    clients: Vec<usize>,
    /// Simulated hosts to place on.
    #[arg(long, default_value_t = 100)]
    hosts: usize,
    /// The half to run. `virsh` wants a libvirtd of its own around it: `tests/with-libvirtd.sh`.
    #[arg(long, value_enum)]
    only: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Creates,
    Virsh,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    match options.only {
        Part::Creates => creates::run(options.creates, &options.clients, options.hosts).await,
        Part::Virsh => virsh::run().await,
    }
}
