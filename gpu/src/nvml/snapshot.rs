//! One look through the library at every GPU of the driver: data that a child process can hand to its parent.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{NvmlError, code};
use super::session::{Nvml, if_supported, mig_mode};
use super::{health, vgpu};
use crate::gpu::{Fault, GpuInstanceProfile, Mig, MigState, SupportedVgpu};
use crate::pci::PciAddress;

/// What the library told. A GPU that is not in `gpus` is held by no NVIDIA driver, or one of `errors` stands for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvmlSnapshot {
    /// `580.159.04`
    pub driver_version: String,
    pub gpus: Vec<NvmlGpu>,
    /// Of GPUs that did not even say where they are.
    pub errors: Vec<NvmlError>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvmlGpu {
    pub address: PciAddress,
    /// `NVIDIA H100 80GB HBM3`
    pub name: Option<String>,
    /// `GPU-8c7b…`
    pub uuid: Option<String>,
    /// On the sticker of the board.
    pub board_serial: Option<String>,
    pub minor: Option<u32>,
    pub memory_mib: Option<u64>,
    pub persistence: Option<bool>,
    pub mig: Mig,
    /// A vGPU host driver runs.
    pub makes_vgpus: bool,
    pub vgpu_types: Vec<SupportedVgpu>,
    pub heterogeneous: Option<bool>,
    pub heterogeneous_capable: bool,
    pub faults: Vec<Fault>,
    /// What it would not tell; the call says what that is.
    pub errors: Vec<NvmlError>,
}

/// What is known through NVML, or why nothing is. The three failures are different things: without a library there is no
/// NVIDIA driver to ask; without a driver no GPU is its; and one that failed leaves everything open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NvmlSource {
    Answered(NvmlSnapshot),
    NoLibrary {
        why: String,
    },
    NoDriver {
        why: String,
    },
    /// The library failed, or the process that asked it: killed at its deadline, for example.
    Failed {
        why: String,
    },
}

impl From<Result<NvmlSnapshot, NvmlError>> for NvmlSource {
    fn from(result: Result<NvmlSnapshot, NvmlError>) -> Self {
        match result {
            Ok(snapshot) => NvmlSource::Answered(snapshot),
            Err(NvmlError::NoLibrary { why }) => NvmlSource::NoLibrary { why },
            Err(error) if error.code() == Some(code::DRIVER_NOT_LOADED) => {
                NvmlSource::NoDriver { why: error.to_string() }
            }
            Err(error) => NvmlSource::Failed { why: error.to_string() },
        }
    }
}

/// `library`: `None` for `libnvidia-ml.so.1` from the usual places. May hang with the driver: call it in a child process.
pub fn snapshot(library: Option<&Path>) -> Result<NvmlSnapshot, NvmlError> {
    let nvml = Nvml::open(library)?;
    let mut snapshot = NvmlSnapshot { driver_version: nvml.driver_version()?, gpus: Vec::new(), errors: Vec::new() };
    for gpu in nvml.gpus()? {
        match gpu {
            Ok(address) => snapshot.gpus.push(nvml.look_at(address)),
            Err(error) => snapshot.errors.push(error),
        }
    }
    snapshot.gpus.sort_by_key(|gpu| gpu.address);
    Ok(snapshot)
}

impl Nvml {
    fn look_at(&self, address: PciAddress) -> NvmlGpu {
        let mut gpu = NvmlGpu {
            address,
            name: None,
            uuid: None,
            board_serial: None,
            minor: None,
            memory_mib: None,
            persistence: None,
            mig: Mig::Unknown { why: String::new() },
            makes_vgpus: false,
            vgpu_types: Vec::new(),
            heterogeneous: None,
            heterogeneous_capable: false,
            faults: Vec::new(),
            errors: Vec::new(),
        };
        let device = match self.device(address) {
            Ok(device) => device,
            Err(error) => {
                gpu.mig = Mig::Unknown { why: error.to_string() };
                gpu.faults.extend(health::of_error(&error));
                gpu.errors.push(error);
                return gpu;
            }
        };
        let mut errors = Vec::new();
        let mut want = Wants { errors: &mut errors };
        gpu.name = want.have("nvmlDeviceGetName", device.name());
        gpu.uuid = want.have("nvmlDeviceGetUUID", device.uuid());
        gpu.board_serial = want.have("nvmlDeviceGetSerial", device.serial());
        gpu.minor = want.have("nvmlDeviceGetMinorNumber", device.minor_number());
        let memory = want.have("nvmlDeviceGetMemoryInfo_v2", device.memory_info());
        gpu.memory_mib = memory.map(|memory| memory.total >> 20);
        gpu.persistence = want.have("nvmlDeviceGetPersistenceMode", device.is_in_persistent_mode());
        let link = want.ours(health::link(&device)).flatten();
        gpu.makes_vgpus = want.ours(vgpu::makes_vgpus(&device)).unwrap_or(false);
        let mut profiles = Vec::new();
        gpu.mig = match self.mig(&device, &mut profiles) {
            Ok(mig) => mig,
            Err(error) => {
                let why = error.to_string();
                want.errors.push(error);
                Mig::Unknown { why }
            }
        };
        if let Some(types) = want.ours(self.supported_vgpus(&device, &profiles)) {
            gpu.vgpu_types = types;
        }
        gpu.makes_vgpus |= !gpu.vgpu_types.is_empty();
        if gpu.makes_vgpus {
            gpu.heterogeneous = want.ours(self.device_heterogeneous(&device, None));
            gpu.heterogeneous_capable = want.ours(vgpu::heterogeneous_capable(&device)).unwrap_or(false);
        }
        let (faults, unknown) = self.faults(&device, link);
        gpu.faults.extend(faults);
        errors.extend(unknown);
        gpu.faults.extend(errors.iter().filter_map(health::of_error));
        gpu.faults.sort();
        // A lost GPU says so at every call: once is enough.
        gpu.faults.dedup_by(|a, b| a.reason == b.reason);
        gpu.errors.extend(errors);
        gpu
    }

    /// `profiles` stay known where the mode or the instances are not.
    fn mig(&self, device: &nvml_wrapper::Device<'_>, profiles: &mut Vec<GpuInstanceProfile>) -> Result<Mig, NvmlError> {
        let Some(mode) = if_supported(mig_mode(device))? else { return Ok(Mig::Unsupported) };
        profiles.extend(self.profiles(device)?);
        let instances = match mode.current {
            true => self.instances(device, profiles)?,
            false => Vec::new(),
        };
        // Nobody says how long the rulers are. A board's largest profile takes all of both, and every listing has it.
        let memory_slices =
            profiles.iter().flat_map(|profile| &profile.placements).map(|span| span.start + span.size).max();
        let compute_slices = profiles.iter().map(|profile| profile.compute_slices).max();
        Ok(Mig::Supported(MigState {
            current: mode.current,
            pending: mode.pending,
            memory_slices: memory_slices.unwrap_or(0),
            compute_slices: compute_slices.unwrap_or(0),
            profiles: profiles.clone(),
            instances,
        }))
    }
}

/// Answers that only describe: what a board lacks is nothing, and every other failure is remembered.
struct Wants<'a> {
    errors: &'a mut Vec<NvmlError>,
}

impl Wants<'_> {
    fn have<T>(&mut self, call: &'static str, answer: Result<T, nvml_wrapper::error::NvmlError>) -> Option<T> {
        self.ours(answer.map_err(|error| NvmlError::wrapped(call, error)))
    }

    fn ours<T>(&mut self, answer: Result<T, NvmlError>) -> Option<T> {
        match if_supported(answer) {
            Ok(answer) => answer,
            Err(error) => {
                self.errors.push(error);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_nothing_is_known_is_three_different_things() {
        let source = |error: NvmlError| NvmlSource::from(Err(error));
        let missing = snapshot(Some(Path::new("/nonexistent/libnvidia-ml.so.1")));
        assert!(matches!(NvmlSource::from(missing), NvmlSource::NoLibrary { .. }));
        let driver = NvmlError::refused("nvmlInit_v2", code::DRIVER_NOT_LOADED);
        assert!(matches!(source(driver), NvmlSource::NoDriver { .. }));
        for broken in [NvmlError::refused("nvmlInit_v2", 18), NvmlError::Load { why: "not an ELF file".into() }] {
            assert!(matches!(source(broken), NvmlSource::Failed { .. }));
        }
    }
}
