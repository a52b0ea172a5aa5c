//! A simulated host, as `croft_gpu::apply` reaches one: the kernel's files, NVML's verbs, Fabric Manager, `sriov-manage`.
//!
//! NVML is asked here without the library between: the same rules, the same faults by the same names of calls, for programs
//! that have no `libnvidia-ml.so.1` to load. `gpu/nvml-sim` is the library.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use croft_gpu::apply::{Access, FabricManager, NvmlVerbs, OpenNvml, Result, StepError, Tools, UsbPorts};
use croft_gpu::gpu::{GpuInstance, Span};
use croft_gpu::host::VgpuType;
use croft_gpu::nvml::{MigMode, NvmlError};
use croft_gpu::pci::PciAddress;

use crate::clients::{self, Session};
use crate::driver::{self, Activation, Return};
use crate::faults::{self, Answer};
use crate::kernel::{self, SimHost, SriovManageError};
use crate::state::{GpuState, Nvidia};

/// Every way to the simulated host below `root`. Effects show at once, so nobody waits for them.
pub fn access(root: &Path) -> io::Result<Access> {
    let way = || Way { root: root.to_owned() };
    Ok(Access {
        fs: SimHost::at(root)?.fs().map_err(io::Error::other)?,
        nvml: Box::new(way()),
        fabric: Box::new(way()),
        tools: Box::new(way()),
        usb: Box::new(way()),
        patience: Duration::ZERO,
    })
}

#[derive(Debug)]
struct Way {
    root: PathBuf,
}

impl OpenNvml for Way {
    fn open(&self) -> Result<Box<dyn NvmlVerbs + '_>> {
        strike(&self.root, "nvmlInit_v2", None)?;
        Ok(Box::new(Nvml { root: &self.root, _session: Session::open(&self.root)? }))
    }
}

#[derive(Debug)]
struct Nvml<'a> {
    root: &'a Path,
    _session: Session,
}

impl Nvml<'_> {
    /// One call on one GPU: faults first, then the rule, and what it changed is what everybody sees.
    fn call<T>(
        &self,
        call: &str,
        gpu: PciAddress,
        rule: impl FnOnce(&mut GpuState, &Nvidia) -> std::result::Result<T, Return>,
    ) -> Result<T> {
        strike(self.root, call, Some(gpu))?;
        let mut nvidia = Nvidia::open(self.root)?;
        let before = nvidia.clone();
        let refused = |code| refused(call, code as u32);
        let state = nvidia.gpu_mut(gpu).filter(|gpu| gpu.driver_loaded).ok_or_else(|| refused(Return::NotFound))?;
        if state.lost {
            return Err(refused(Return::GpuIsLost));
        }
        let answer = rule(state, &before).map_err(refused)?;
        if *nvidia != before {
            nvidia.save()?;
            kernel::follow(self.root, &nvidia)?;
        }
        Ok(answer)
    }

    fn whole(&self, gpu: &GpuState, id: u32) -> std::result::Result<u32, Return> {
        let instance = driver::instance(gpu, id)?;
        let slices = driver::profile(gpu, instance.profile)?.compute_slices;
        let profiles = (0..driver::COMPUTE_PROFILES).filter_map(|id| driver::compute_profile(gpu, instance, id).ok());
        profiles
            .into_iter()
            .find(|profile| profile.compute_slices == slices)
            .map(|profile| profile.id)
            .ok_or(Return::NotSupported)
    }
}

impl NvmlVerbs for Nvml<'_> {
    fn persistence(&self, gpu: PciAddress) -> Result<bool> {
        self.call("nvmlDeviceGetPersistenceMode", gpu, |gpu, _| Ok(gpu.persistence))
    }

    fn set_persistence(&self, gpu: PciAddress, on: bool) -> Result<()> {
        self.call("nvmlDeviceSetPersistenceMode", gpu, |gpu, _| {
            gpu.persistence = on;
            Ok(())
        })
    }

    fn mig_mode(&self, gpu: PciAddress) -> Result<MigMode> {
        self.call("nvmlDeviceGetMigMode", gpu, |gpu, _| match gpu.shape().mig {
            Some(_) => Ok(MigMode { current: gpu.mig.current, pending: gpu.mig.pending }),
            None => Err(Return::NotSupported),
        })
    }

    fn set_mig_mode(&self, gpu: PciAddress, on: bool) -> Result<u32> {
        let own = std::process::id();
        self.call("nvmlDeviceSetMigMode", gpu, |gpu, nvidia| {
            let clients = clients::of(self.root, gpu.minor).map_err(|_| Return::Unknown)?;
            let others = clients.into_iter().filter(|pid| *pid != own).count();
            Ok(match driver::set_mig_mode(gpu, nvidia.driver.flavour, on, others)? {
                Activation::Effective => 0,
                Activation::InUse => Return::InUse as u32,
                Activation::ResetRequired => Return::ResetRequired as u32,
            })
        })
    }

    fn gpu_instances(&self, gpu: PciAddress) -> Result<Vec<GpuInstance>> {
        self.call("nvmlDeviceGetGpuInstances", gpu, |gpu, _| {
            let instance = |instance: &crate::state::GpuInstance| {
                Ok(GpuInstance {
                    id: instance.id,
                    profile: driver::profile(gpu, instance.profile)?.name.to_owned(),
                    placement: instance.placement,
                    compute_instances: instance.compute_instances.iter().map(|compute| compute.id).collect(),
                })
            };
            gpu.instances.iter().map(instance).collect()
        })
    }

    fn create_gpu_instance(&self, gpu: PciAddress, profile: &str, placement: Span) -> Result<u32> {
        self.call("nvmlDeviceCreateGpuInstanceWithPlacement", gpu, |gpu, _| {
            let profile = driver::mig_shape(gpu)?.profile_named(profile).ok_or(Return::InvalidArgument)?;
            driver::create_gpu_instance(gpu, profile.id, Some(placement))
        })
    }

    fn create_compute_instance(&self, gpu: PciAddress, gpu_instance: u32) -> Result<()> {
        self.call("nvmlGpuInstanceCreateComputeInstance", gpu, |gpu, _| {
            let profile = self.whole(gpu, gpu_instance)?;
            driver::create_compute_instance(gpu, gpu_instance, profile, None).map(|_| ())
        })
    }

    fn destroy_compute_instance(&self, gpu: PciAddress, gpu_instance: u32, compute_instance: u32) -> Result<()> {
        self.call("nvmlComputeInstanceDestroy", gpu, |gpu, _| {
            driver::destroy_compute_instance(gpu, gpu_instance, compute_instance)
        })
    }

    fn destroy_gpu_instance(&self, gpu: PciAddress, gpu_instance: u32) -> Result<()> {
        self.call("nvmlGpuInstanceDestroy", gpu, |gpu, _| driver::destroy_gpu_instance(gpu, gpu_instance))
    }

    fn heterogeneous(&self, gpu: PciAddress, gpu_instance: Option<u32>) -> Result<bool> {
        self.call(&heterogeneous_call("Get", gpu_instance), gpu, |gpu, _| match gpu_instance {
            None => Ok(gpu.heterogeneous),
            Some(id) => driver::instance(gpu, id).map(|instance| instance.heterogeneous),
        })
    }

    fn set_heterogeneous(&self, gpu: PciAddress, gpu_instance: Option<u32>, on: bool) -> Result<()> {
        self.call(&heterogeneous_call("Set", gpu_instance), gpu, |gpu, nvidia| {
            driver::set_heterogeneous(gpu, nvidia.driver.flavour, gpu_instance, on)
        })
    }

    fn vgpu_types(&self, gpu: PciAddress) -> Result<Vec<VgpuType>> {
        self.call("nvmlDeviceGetSupportedVgpus", gpu, |gpu, _| {
            let types = driver::supported_types(gpu);
            Ok(types.map(|known| VgpuType { id: known.id, name: known.name.clone() }).collect())
        })
    }
}

fn heterogeneous_call(verb: &str, gpu_instance: Option<u32>) -> String {
    let object = if gpu_instance.is_some() { "GpuInstance" } else { "Device" };
    format!("nvml{object}{verb}VgpuHeterogeneousMode")
}

impl FabricManager for Way {
    fn active(&self, partition: u32) -> Result<Option<bool>> {
        strike(&self.root, "fmGetSupportedFabricPartitions", None)?;
        let nvidia = Nvidia::open(&self.root)?;
        let partitions = driver::fabric_partitions(&nvidia).map_err(|error| StepError::new(error.to_string()))?;
        Ok(partitions.iter().find(|known| known.id == partition).map(|known| known.active))
    }

    fn activate(&self, partition: u32) -> Result<()> {
        self.fabric("fmActivateFabricPartition", |nvidia| driver::activate_partition(nvidia, partition))
    }

    fn deactivate(&self, partition: u32) -> Result<()> {
        self.fabric("fmDeactivateFabricPartition", |nvidia| driver::deactivate_partition(nvidia, partition))
    }
}

impl Way {
    fn fabric(
        &self,
        call: &str,
        rule: impl FnOnce(&mut Nvidia) -> std::result::Result<(), driver::FabricError>,
    ) -> Result<()> {
        strike(&self.root, call, None)?;
        let mut nvidia = Nvidia::open(&self.root)?;
        rule(&mut nvidia).map_err(|error| StepError::new(format!("{call}: {error}")))?;
        Ok(nvidia.save()?)
    }
}

impl UsbPorts for Way {
    fn reset(&self, bus: u16, device: u8) -> Result<()> {
        strike(&self.root, "USBDEVFS_RESET", None)?;
        Ok(kernel::usb_reset(&self.root, bus, device)?)
    }
}

impl Tools for Way {
    fn sriov_manage(&self, gpu: PciAddress, enable: bool) -> Result<()> {
        kernel::sriov_manage(&self.root, gpu, enable)?.map_err(|error| match error {
            SriovManageError::UnbindLock(_) => StepError::errno(error.to_string(), driver::Errno::BUSY),
            SriovManageError::Errno(errno) => {
                StepError::errno(error.to_string(), driver::Errno::from_raw_os_error(errno))
            }
            SriovManageError::NoGpu(_) | SriovManageError::Unsupported(_) => StepError::new(error.to_string()),
        })
    }
}

fn strike(root: &Path, call: &str, gpu: Option<PciAddress>) -> Result<()> {
    match faults::strike(root, call, gpu)? {
        None => Ok(()),
        Some(Answer::Nvml(code)) => Err(refused(call, code)),
        Some(Answer::Errno(errno)) => Err(io::Error::from_raw_os_error(errno).into()),
    }
}

fn refused(call: &str, code: u32) -> StepError {
    NvmlError::Refused { call: call.to_owned(), code }.into()
}
