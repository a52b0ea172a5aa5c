//! The ways to one host that a step takes: its files, NVML, Fabric Manager, USB ports, and a tool of NVIDIA's.
//!
//! Each is a small trait of our own verbs. A simulated host implements them over its own state; nothing here asks which.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::StepError;
use super::library::Library;
use super::reset_usb::HostUsb;
use super::tools::HostTools;
use crate::fabric::Manager;
use crate::gpu::{GpuInstance, Span};
use crate::host::VgpuType;
use crate::hostfs::HostFs;
use crate::nvml::MigMode;
use crate::pci::PciAddress;

pub type Result<T> = std::result::Result<T, StepError>;

/// Which host, in words that can be sent to another process. The program that runs there turns them into an [`Access`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// `/`, or a directory that stands for a host.
    pub root: PathBuf,
    /// The directory is a simulated host: its writes are answered by a simulated kernel.
    pub simulated: bool,
    /// `None`: `libnvidia-ml.so.1` from the usual places.
    pub nvml_library: Option<PathBuf>,
    /// `None`: `libnvfm.so.1` from the usual places.
    pub fabric_library: Option<PathBuf>,
    /// Where helpers lock the device that they work on (`/run/croft/devices`), so that a helper which outlived its agent and
    /// the next agent's never write to one device together. `None`: no locks, for tests of one process.
    pub lock_directory: Option<PathBuf>,
}

pub struct Access {
    pub fs: HostFs,
    pub nvml: Box<dyn OpenNvml>,
    pub fabric: Box<dyn FabricManager>,
    pub tools: Box<dyn Tools>,
    pub usb: Box<dyn UsbPorts>,
    /// How long an effect may take to show after the call that caused it returned.
    pub patience: Duration,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("fs", &self.fs).finish_non_exhaustive()
    }
}

impl Access {
    /// The machine itself, or a copied tree whose files nobody answers for.
    pub fn host(site: &Site) -> Result<Access> {
        Ok(Access {
            nvml: Box::new(Library { path: site.nvml_library.clone() }),
            fabric: Box::new(Manager { library: site.fabric_library.clone(), address: None }),
            tools: Box::new(HostTools::default()),
            ..Access::without_nvidia(HostFs::at(&site.root)?)
        })
    }

    /// A host without NVIDIA's driver: what needs it fails, and says so.
    #[must_use]
    pub fn without_nvidia(fs: HostFs) -> Access {
        Access {
            usb: Box::new(HostUsb { root: fs.root().to_owned() }),
            fs,
            nvml: Box::new(Absent),
            fabric: Box::new(Absent),
            tools: Box::new(Absent),
            patience: Duration::from_secs(2),
        }
    }
}

/// NVML is opened for one use and closed after it: `sriov-manage` and changes of the MIG mode fail while anybody has a
/// session open, this very process included.
pub trait OpenNvml: Send + Sync {
    fn open(&self) -> Result<Box<dyn NvmlVerbs + '_>>;
}

/// One session. GPUs are named by address; handles do not outlive a call, because a mode change invalidates them.
pub trait NvmlVerbs {
    fn persistence(&self, gpu: PciAddress) -> Result<bool>;
    fn set_persistence(&self, gpu: PciAddress, on: bool) -> Result<()>;
    fn mig_mode(&self, gpu: PciAddress) -> Result<MigMode>;
    /// The call's return code only says "accepted"; the answer here is the activation status, 0 for "effective".
    fn set_mig_mode(&self, gpu: PciAddress, on: bool) -> Result<u32>;
    fn gpu_instances(&self, gpu: PciAddress) -> Result<Vec<GpuInstance>>;
    /// The GPU instance alone. The profile's id is looked up by its name on this board, now.
    fn create_gpu_instance(&self, gpu: PciAddress, profile: &str, placement: Span) -> Result<u32>;
    /// One compute instance over the whole of a GPU instance.
    fn create_compute_instance(&self, gpu: PciAddress, gpu_instance: u32) -> Result<()>;
    fn destroy_compute_instance(&self, gpu: PciAddress, gpu_instance: u32, compute_instance: u32) -> Result<()>;
    /// Fails while a compute instance, a vGPU or a process is in it.
    fn destroy_gpu_instance(&self, gpu: PciAddress, gpu_instance: u32) -> Result<()>;
    /// `None`: of the GPU; else of the GPU instance with that id.
    fn heterogeneous(&self, gpu: PciAddress, gpu_instance: Option<u32>) -> Result<bool>;
    fn set_heterogeneous(&self, gpu: PciAddress, gpu_instance: Option<u32>, on: bool) -> Result<()>;
    /// All types of this board, whether or not one fits now. Names without the driver's prefix.
    fn vgpu_types(&self, gpu: PciAddress) -> Result<Vec<VgpuType>>;
}

/// NVSwitch partitions.
pub trait FabricManager: Send + Sync {
    /// `None`: there is no such partition.
    fn active(&self, partition: u32) -> Result<Option<bool>>;
    fn activate(&self, partition: u32) -> Result<()>;
    fn deactivate(&self, partition: u32) -> Result<()>;
}

/// Programs that come with NVIDIA's driver and have no call in any library.
pub trait Tools: Send + Sync {
    /// All virtual functions of one GPU, or none. Fails while somebody has an NVML session open.
    fn sriov_manage(&self, gpu: PciAddress, enable: bool) -> Result<()>;
}

/// What USB devices answer only through their own files.
pub trait UsbPorts: Send + Sync {
    /// The kernel resets the port and gives the device its address again. By bus and device number, as in `/dev/bus/usb`.
    fn reset(&self, bus: u16, device: u8) -> Result<()>;
}

#[derive(Debug)]
struct Absent;

impl OpenNvml for Absent {
    fn open(&self) -> Result<Box<dyn NvmlVerbs + '_>> {
        Err(StepError::new("this host has no NVIDIA driver"))
    }
}

impl FabricManager for Absent {
    fn active(&self, _: u32) -> Result<Option<bool>> {
        Err(StepError::new("this host has no Fabric Manager"))
    }

    fn activate(&self, _: u32) -> Result<()> {
        Err(StepError::new("this host has no Fabric Manager"))
    }

    fn deactivate(&self, _: u32) -> Result<()> {
        Err(StepError::new("this host has no Fabric Manager"))
    }
}

impl Tools for Absent {
    fn sriov_manage(&self, _: PciAddress, _: bool) -> Result<()> {
        Err(StepError::new("this host has no sriov-manage"))
    }
}
