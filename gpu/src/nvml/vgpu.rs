//! vGPU types of a board, and whether different ones may share it.
#![expect(unsafe_code, reason = "nvml-wrapper has no calls for heterogeneous vGPUs; NVML's own are used")]

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::VgpuCapability;
use nvml_wrapper::vgpu::VgpuType as Wrapped;
use nvml_wrapper_sys::bindings::{nvmlVgpuHeterogeneousMode_t, nvmlVgpuTypeMaxInstance_t};

use super::error::{NvmlError, code};
use super::mig::version;
use super::session::{Nvml, call, if_supported};
use crate::gpu::{GpuInstanceProfile, SupportedVgpu};
use crate::host::VgpuType;
use crate::pci::PciAddress;

/// INVALID_GPU_INSTANCE_PROFILE_ID of nvml.h: the type is time-sliced.
const NO_PROFILE: u32 = u32::MAX;

impl Nvml {
    /// All types of this board, whether or not one fits now. Names without the driver's prefix.
    pub fn vgpu_types(&self, gpu: PciAddress) -> Result<Vec<VgpuType>, NvmlError> {
        let device = self.device(gpu)?;
        let types = device.vgpu_supported_types();
        named(&types.map_err(|error| NvmlError::wrapped("nvmlDeviceGetSupportedVgpus", error))?)
    }

    /// Those of which one more fits on the GPU now. What fits on one function says only its own `creatable_vgpu_types`.
    pub fn creatable_vgpu_types(&self, gpu: PciAddress) -> Result<Vec<VgpuType>, NvmlError> {
        let device = self.device(gpu)?;
        let types = device.vgpu_creatable_types();
        named(&types.map_err(|error| NvmlError::wrapped("nvmlDeviceGetCreatableVgpus", error))?)
    }

    /// May vGPUs of different framebuffer sizes share the GPU, or the GPU instance with that id?
    pub fn heterogeneous(&self, gpu: PciAddress, gpu_instance: Option<u32>) -> Result<bool, NvmlError> {
        self.device_heterogeneous(&self.device(gpu)?, gpu_instance)
    }

    /// Refused as in use once a vGPU exists.
    pub fn set_heterogeneous(&self, gpu: PciAddress, gpu_instance: Option<u32>, on: bool) -> Result<(), NvmlError> {
        let device = self.device(gpu)?;
        let mode = heterogeneous_mode(on.into());
        match gpu_instance {
            // SAFETY: a live device of this session; the structure is of the version that it says it is.
            None => unsafe { call!(self, nvmlDeviceSetVgpuHeterogeneousMode(device.handle(), &raw const mode)) },
            Some(id) => {
                let handle = self.instance(&device, id)?;
                // SAFETY: a handle of this session; the structure is of the version that it says it is.
                unsafe { call!(self, nvmlGpuInstanceSetVgpuHeterogeneousMode(handle, &raw const mode)) }
            }
        }
    }

    pub(super) fn device_heterogeneous(
        &self,
        device: &Device<'_>,
        gpu_instance: Option<u32>,
    ) -> Result<bool, NvmlError> {
        let mut mode = heterogeneous_mode(0);
        match gpu_instance {
            // SAFETY: a live device of this session; the structure is of the version that it says it is.
            None => unsafe { call!(self, nvmlDeviceGetVgpuHeterogeneousMode(device.handle(), &raw mut mode)) },
            Some(id) => {
                let handle = self.instance(device, id)?;
                // SAFETY: a handle of this session; the structure is of the version that it says it is.
                unsafe { call!(self, nvmlGpuInstanceGetVgpuHeterogeneousMode(handle, &raw mut mode)) }
            }
        }?;
        Ok(mode.mode != 0)
    }

    /// Empty: no vGPU host driver.
    pub(super) fn supported_vgpus(
        &self,
        device: &Device<'_>,
        profiles: &[GpuInstanceProfile],
    ) -> Result<Vec<SupportedVgpu>, NvmlError> {
        let types = device.vgpu_supported_types();
        let types = types.map_err(|error| NvmlError::wrapped("nvmlDeviceGetSupportedVgpus", error));
        let Some(types) = if_supported(types)? else { return Ok(Vec::new()) };
        let mut supported = Vec::new();
        for wrapped in &types {
            let bytes = wrapped.framebuffer_size();
            let bytes = bytes.map_err(|error| NvmlError::wrapped("nvmlVgpuTypeGetFramebufferSize", error))?;
            let backing = backing(wrapped, profiles)?;
            let max_count = match backing {
                // Its profile cannot be named while the driver lists none (MIG off, old driver): not to be had now.
                Backing::Unnamed => continue,
                Backing::Mig(_) => if_supported(self.per_gpu_instance(wrapped.id()))?,
                Backing::TimeSliced => if_supported(
                    wrapped.max_instances().map_err(|error| NvmlError::wrapped("nvmlVgpuTypeGetMaxInstances", error)),
                )?,
            };
            let VgpuType { id, name } = one(wrapped)?;
            let mig_profile = match backing {
                Backing::Mig(profile) => Some(profile),
                Backing::TimeSliced | Backing::Unnamed => None,
            };
            supported.push(SupportedVgpu { id, name, framebuffer_mib: bytes >> 20, mig_profile, max_count });
        }
        supported.sort();
        Ok(supported)
    }

    fn per_gpu_instance(&self, vgpu_type: u32) -> Result<u32, NvmlError> {
        let version = version::<nvmlVgpuTypeMaxInstance_t>(1);
        let mut most = nvmlVgpuTypeMaxInstance_t { version, vgpuTypeId: vgpu_type, maxInstancePerGI: 0 };
        // SAFETY: the structure is of the version that it says it is.
        unsafe { call!(self, nvmlVgpuTypeGetMaxInstancesPerGpuInstance(&raw mut most)) }?;
        Ok(most.maxInstancePerGI)
    }
}

/// Could vGPUs of different framebuffer sizes share this GPU?
pub(super) fn heterogeneous_capable(device: &Device<'_>) -> Result<bool, NvmlError> {
    let able = device.vgpu_capabilities(VgpuCapability::HeterogeneousTimesliceSizes);
    let able = able.map_err(|error| NvmlError::wrapped("nvmlDeviceGetVgpuCapabilities", error));
    Ok(if_supported(able)?.is_some_and(|able| able != 0))
}

/// Does a vGPU host driver run?
pub(super) fn makes_vgpus(device: &Device<'_>) -> Result<bool, NvmlError> {
    let mode = device.vgpu_host_mode().map_err(|error| NvmlError::wrapped("nvmlDeviceGetHostVgpuMode", error));
    Ok(if_supported(mode)?.is_some())
}

fn heterogeneous_mode(mode: u32) -> nvmlVgpuHeterogeneousMode_t {
    nvmlVgpuHeterogeneousMode_t { version: version::<nvmlVgpuHeterogeneousMode_t>(1), mode }
}

fn named(types: &[Wrapped<'_>]) -> Result<Vec<VgpuType>, NvmlError> {
    types.iter().map(one).collect()
}

fn one(wrapped: &Wrapped<'_>) -> Result<VgpuType, NvmlError> {
    let name = wrapped.name().map_err(|error| NvmlError::wrapped("nvmlVgpuTypeGetName", error))?;
    Ok(VgpuType { id: wrapped.id(), name: crate::vgpu::bare_name(&name).to_owned() })
}

/// What a type stands on.
enum Backing {
    TimeSliced,
    Mig(String),
    Unnamed,
}

fn backing(wrapped: &Wrapped<'_>, profiles: &[GpuInstanceProfile]) -> Result<Backing, NvmlError> {
    const CALL: &str = "nvmlVgpuTypeGetGpuInstanceProfileId";
    let id = match wrapped.instance_profile_id().map_err(|error| NvmlError::wrapped(CALL, error)) {
        Ok(NO_PROFILE) => return Ok(Backing::TimeSliced),
        Ok(id) => id,
        // Some drivers say so of a time-sliced type.
        Err(error) if matches!(error.code(), Some(code::NOT_SUPPORTED | code::INVALID_ARGUMENT)) => {
            return Ok(Backing::TimeSliced);
        }
        Err(error) => return Err(error),
    };
    match profiles.iter().find(|profile| profile.id == id) {
        Some(profile) => Ok(Backing::Mig(profile.name.clone())),
        None if profiles.is_empty() => Ok(Backing::Unnamed),
        None => Err(NvmlError::odd(CALL, format!("GPU-instance profile {id} is not one of this board"))),
    }
}
