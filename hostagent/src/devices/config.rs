//! How the agent reaches the devices of its machine.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use croft_gpu::apply::{Cgroup, Site};

use super::helper::Errand;

/// Everything that looks or writes runs in a process of its own: the agent's binary, run again as `device-helper`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The agent's own binary.
    pub program: PathBuf,
    pub site: Site,
    /// No step may take longer. `None`: each as long as its kind may.
    pub longest_step: Option<Duration>,
    /// How a helper that overran is killed. Only tests have another way.
    pub kill: Option<Kill>,
    /// The cgroup below which each helper gets one of its own; see [`delegated_cgroup`].
    pub cgroups: Option<PathBuf>,
}

pub type Kill = fn(rustix::process::Pid) -> rustix::io::Result<()>;

/// The agent's own, where systemd left it to the agent (`Delegate=yes`). Asked once: what is missing is said once.
#[must_use]
pub fn delegated_cgroup() -> Option<PathBuf> {
    match Cgroup::delegated() {
        Ok(own) => Some(own),
        Err(why) => {
            tracing::warn!(
                "device helpers get no cgroups of their own, and a tool may outlive the one that started it: {why}"
            );
            None
        }
    }
}

impl Config {
    /// This machine, or a copied tree below `root` that nobody answers for.
    #[must_use]
    pub fn machine(root: impl Into<PathBuf>, nvml_library: Option<PathBuf>) -> Self {
        let site = Site {
            root: root.into(),
            simulated: false,
            nvml_library,
            fabric_library: None,
            lock_directory: Some(PathBuf::from("/run/croft/devices")),
        };
        // By its process, it stays what it is when an upgrade replaces the file.
        let program = PathBuf::from(format!("/proc/{}/exe", std::process::id()));
        Self { program, site, longest_step: None, kill: None, cgroups: None }
    }

    /// A simulated host below `root`. `library`: stands in for NVML.
    #[must_use]
    pub fn simulated(root: impl Into<PathBuf>, library: PathBuf) -> Self {
        let root = root.into();
        let lock_directory = Some(root.join("run/croft/devices"));
        let mut config = Self::machine(root, Some(library));
        config.site = Site { simulated: true, lock_directory, ..config.site };
        config
    }

    /// Of a helper that has not been told its errand yet.
    pub(super) fn cgroup(&self, helper: Option<u32>) -> Option<Cgroup> {
        Cgroup::enter(self.cgroups.as_deref()?, helper?).ok()
    }

    /// What to run for an errand.
    pub(super) fn command(&self, errand: Errand) -> (PathBuf, Vec<OsString>) {
        let own = [OsString::from("device-helper"), errand.word().into(), std::process::id().to_string().into()];
        if !self.site.simulated {
            return (self.program.clone(), own.into());
        }
        // The library that stands in for NVML is told its host in the environment.
        let mut root = OsString::from("CROFT_SIM_ROOT=");
        root.push(&self.site.root);
        let arguments = [root, self.program.clone().into()].into_iter().chain(own);
        (PathBuf::from("/usr/bin/env"), arguments.collect())
    }
}
