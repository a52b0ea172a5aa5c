//! The helper process of simulated hosts, for tests: what an agent's binary is when it runs itself again.

use std::process::ExitCode;

fn main() -> ExitCode {
    let parent = std::env::args().nth(1).and_then(|pid| pid.parse().ok());
    let Some(parent) = parent else {
        eprintln!("usage: croft-sim-device-helper PARENT <REQUEST");
        return ExitCode::FAILURE;
    };
    croft_gpu::apply::helper_main(parent, |site| Ok(croft_gpu_sim::access::access(&site.root)?))
}
