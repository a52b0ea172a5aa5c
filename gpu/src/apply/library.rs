//! NVML as steps use it: the library itself, through [`crate::nvml`].

use std::path::PathBuf;

use super::access::{NvmlVerbs, OpenNvml, Result};
use crate::gpu::{GpuInstance, Span};
use crate::host::VgpuType;
use crate::nvml::{MigMode, Nvml};
use crate::pci::PciAddress;

/// Where the library is; `None`: where the system keeps its libraries.
#[derive(Clone, Debug, Default)]
pub struct Library {
    pub path: Option<PathBuf>,
}

impl OpenNvml for Library {
    fn open(&self) -> Result<Box<dyn NvmlVerbs + '_>> {
        Ok(Box::new(Nvml::open(self.path.as_deref())?))
    }
}

impl NvmlVerbs for Nvml {
    fn persistence(&self, gpu: PciAddress) -> Result<bool> {
        Ok(self.persistence(gpu)?)
    }

    fn set_persistence(&self, gpu: PciAddress, on: bool) -> Result<()> {
        Ok(self.set_persistence(gpu, on)?)
    }

    fn mig_mode(&self, gpu: PciAddress) -> Result<MigMode> {
        Ok(self.mig_mode(gpu)?)
    }

    fn set_mig_mode(&self, gpu: PciAddress, on: bool) -> Result<u32> {
        Ok(self.set_mig_mode(gpu, on)?)
    }

    fn gpu_instances(&self, gpu: PciAddress) -> Result<Vec<GpuInstance>> {
        Ok(self.gpu_instances(gpu)?)
    }

    fn create_gpu_instance(&self, gpu: PciAddress, profile: &str, placement: Span) -> Result<u32> {
        Ok(self.create_gpu_instance(gpu, profile, placement)?)
    }

    fn create_compute_instance(&self, gpu: PciAddress, gpu_instance: u32) -> Result<()> {
        Ok(self.create_compute_instance(gpu, gpu_instance)?)
    }

    fn destroy_compute_instance(&self, gpu: PciAddress, gpu_instance: u32, compute_instance: u32) -> Result<()> {
        Ok(self.destroy_compute_instance(gpu, gpu_instance, compute_instance)?)
    }

    fn destroy_gpu_instance(&self, gpu: PciAddress, gpu_instance: u32) -> Result<()> {
        Ok(self.destroy_gpu_instance(gpu, gpu_instance)?)
    }

    fn heterogeneous(&self, gpu: PciAddress, gpu_instance: Option<u32>) -> Result<bool> {
        Ok(self.heterogeneous(gpu, gpu_instance)?)
    }

    fn set_heterogeneous(&self, gpu: PciAddress, gpu_instance: Option<u32>, on: bool) -> Result<()> {
        Ok(self.set_heterogeneous(gpu, gpu_instance, on)?)
    }

    fn vgpu_types(&self, gpu: PciAddress) -> Result<Vec<VgpuType>> {
        Ok(self.vgpu_types(gpu)?)
    }
}
