//! The machine of a simulated host with devices: a tree of files that behaves like a kernel's, and a library like NVML.

use std::path::PathBuf;
use std::time::Duration;

use croft_gpu_sim::faults::{self, Fault};
use croft_gpu_sim::kernel::{SimHost, dump, scratch};
use croft_hostagent::devices;

use crate::process;

#[derive(Debug)]
pub struct Machine {
    pub host: SimHost,
    /// No step of the agent's next life may take longer.
    pub longest_step: Option<Duration>,
    /// Helpers of the agent's next life that overrun cannot be killed, as one that hangs in the kernel cannot.
    pub unkillable: bool,
    library: PathBuf,
    _directory: tempfile::TempDir,
}

impl Machine {
    pub fn boot(preset: &str) -> Self {
        // A machine is thousands of small files.
        let directory = tempfile::tempdir_in(scratch()).expect("a directory");
        let hardware = SimHost::preset(preset).expect("a preset");
        let host = SimHost::create(directory.path().join("machine"), hardware).expect("a machine");
        // A copied one: another build may replace it while tests run.
        let library = directory.path().join("libnvidia-ml.so.1");
        let built = std::env::current_exe().expect("the test's own path").with_file_name("libcroft_nvml_sim.so");
        std::fs::copy(&built, &library).expect("the library is built with the tests");
        Self { host, longest_step: None, unkillable: false, library, _directory: directory }
    }

    /// How an agent reaches them.
    pub fn config(&self) -> devices::Config {
        let config = devices::Config::simulated(self.host.root(), self.library.clone());
        let kill: Option<devices::Kill> = if self.unkillable { Some(|_| Ok(())) } else { None };
        devices::Config { program: process::binary("croft-hostagent"), longest_step: self.longest_step, kill, ..config }
    }

    /// All that can change on it, as text.
    pub fn tree(&self) -> String {
        // Files come and go while the agent works.
        (0..50).find_map(|_| dump(self.host.root()).ok()).expect("a dump")
    }

    /// The tree without what is another after each boot.
    pub fn layout(&self) -> String {
        Self::without_made_up(&self.tree())
    }

    /// A dump of any machine, without those lines.
    pub fn without_made_up(tree: &str) -> String {
        let lasts = |line: &&str| ["boot_id", "/devnum", "dev/bus/usb"].iter().all(|word| !line.contains(word));
        tree.lines().filter(lasts).collect::<Vec<_>>().join("\n")
    }

    /// What is to go wrong from now on; empty: nothing.
    pub fn faults(&self, faults: &[Fault]) {
        faults::set(self.host.root(), faults).expect("faults");
    }
}

/// What two trees differ in, shortened: they have thousands of lines.
pub fn differences(before: &str, after: &str) -> String {
    let only = |text: &str, other: &str, sign: &str| {
        let known: std::collections::HashSet<&str> = other.lines().collect();
        let lines = text.lines().filter(|line| !known.contains(line)).take(20);
        lines.map(|line| format!("\n{sign} {line}")).collect::<String>()
    };
    only(before, after, "-") + &only(after, before, "+")
}
