//! The helper process of simulated hosts, for tests: what an agent's binary is when it runs itself again.

use std::process::ExitCode;

fn main() -> ExitCode {
    croft_gpu::apply::helper_main(|site| Ok(croft_gpu_sim::access::access(&site.root)?))
}
