//! What the agent's binary does when it runs itself again: one errand, one answer, and the end.
//!
//! NVML, Fabric Manager and many files of sysfs hang when a driver does. A process that hangs in the kernel cannot be killed;
//! so it must not be the agent.

use std::io::{self, Read as _, Write as _};
use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::ValueEnum;
use croft_gpu::apply::{Access, Library, Site, StepError, die_with, helper_main};
use croft_gpu::fabric::{self, FabricSource};
use croft_gpu::host::{FabricPartition, Host};
use croft_gpu::nvml::{self, GpuEvent, NvmlSource};
use croft_gpu::{HostFs, chain};
use croft_gpu_sim::driver;
use croft_gpu_sim::kernel::SimHost;
use croft_gpu_sim::state::Nvidia;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Errand {
    /// One step of a plan.
    Step,
    /// What NVIDIA's libraries tell.
    Nvidia,
    /// Everything that the kernel tells.
    Look,
    /// What GPUs report by themselves, line by line, until it is ended.
    Events,
}

impl Errand {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Nvidia => "nvidia",
            Self::Look => "look",
            Self::Events => "events",
        }
    }
}

/// What NVIDIA's libraries told, or why they told nothing.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Told {
    pub nvml: NvmlSource,
    pub fabric: FabricSource,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LookRequest {
    pub site: Site,
    pub told: Told,
}

/// One look at all devices, and in which boot it was.
#[derive(Debug, Serialize, Deserialize)]
pub struct Looked {
    pub host: Host,
    pub boot_id: String,
}

/// Nothing else may run in this process, and nothing else may write to its standard output. `agent`: who started it.
#[must_use]
pub fn main(errand: Errand, agent: u32) -> ExitCode {
    // Without its agent nobody waits for the answer.
    if let Err(error) = die_with(agent) {
        eprintln!("device helper: {error}");
        return ExitCode::FAILURE;
    }
    match errand {
        Errand::Step => helper_main(agent, open),
        Errand::Nvidia => answer(|site: Site| {
            Ok(Told { nvml: nvml::snapshot(site.nvml_library.as_deref()).into(), fabric: fabric_of(&site) })
        }),
        Errand::Look => answer(|LookRequest { site, told }| {
            let fs = files(&site)?;
            let boot_id = fs.attribute("/proc/sys/kernel/random/boot_id").map_err(|error| chain(&error))?;
            Ok(Looked { host: Host::probe(&fs, &told.nvml, &told.fabric), boot_id })
        }),
        Errand::Events => answer(|site: Site| listen(&site)),
    }
}

fn open(site: &Site) -> Result<Access, StepError> {
    if !site.simulated {
        return Access::host(site);
    }
    let simulated = croft_gpu_sim::access::access(&site.root)?;
    // NVML by its library's calls, as on a real host; what has no library to stand in for it is asked of the simulation.
    Ok(Access { nvml: Box::new(Library { path: site.nvml_library.clone() }), ..simulated })
}

/// Ends with its library, or with whoever listens.
fn listen(site: &Site) -> Result<(), String> {
    let mut output = io::stdout().lock();
    let tell = |event: Option<GpuEvent>| {
        let Some(event) = event else { return ControlFlow::Continue(()) };
        let told = serde_json::to_string(&event).map_err(io::Error::from).and_then(|line| {
            writeln!(output, "{line}")?;
            output.flush()
        });
        if told.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    nvml::watch_events(site.nvml_library.as_deref(), tell).map_err(|error| error.to_string())
}

fn fabric_of(site: &Site) -> FabricSource {
    if !site.simulated {
        return fabric::snapshot(site.fabric_library.as_deref());
    }
    let unavailable = |why: String| FabricSource::Unavailable { why };
    let nvidia = match Nvidia::read(&site.root) {
        Ok(nvidia) => nvidia,
        Err(error) => return unavailable(error.to_string()),
    };
    match driver::fabric_partitions(&nvidia) {
        Ok(partitions) => {
            let told = |known: &croft_gpu_sim::state::FabricPartition| FabricPartition {
                id: known.id,
                gpus: known.gpus.clone(),
                active: known.active,
                unread: None,
            };
            FabricSource::Partitions(partitions.iter().map(told).collect())
        }
        Err(error) => unavailable(error.to_string()),
    }
}

fn files(site: &Site) -> Result<HostFs, String> {
    if site.simulated {
        let host = SimHost::at(&site.root).map_err(|error| format!("{}: {error}", site.root.display()))?;
        return host.fs().map_err(|error| chain(&error));
    }
    HostFs::at(&site.root).map_err(|error| chain(&error))
}

fn answer<Q: DeserializeOwned, A: Serialize>(work: impl FnOnce(Q) -> Result<A, String>) -> ExitCode {
    let answered = || -> Result<(), String> {
        let words = |error: io::Error| error.to_string();
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map_err(words)?;
        let question = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let text = serde_json::to_vec(&work(question)?).map_err(|error| error.to_string())?;
        io::stdout().write_all(&text).map_err(words)
    };
    match answered() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("device helper: {error}");
            ExitCode::FAILURE
        }
    }
}
