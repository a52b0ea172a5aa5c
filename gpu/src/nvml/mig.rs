//! GPU instances: what a board can be cut into, what it is cut into, and the cuts.
#![expect(unsafe_code, reason = "nvml-wrapper has no calls for GPU instances; NVML's own are used")]

use std::ptr;

use nvml_wrapper::Device;
use nvml_wrapper_sys::bindings::{
    nvmlGpuInstance_t, nvmlGpuInstanceInfo_t, nvmlGpuInstancePlacement_t, nvmlGpuInstanceProfileInfo_t,
    nvmlGpuInstanceProfileInfo_v2_t,
};

use super::error::{NvmlError, code};
use super::session::{Nvml, call, if_supported};
use super::{compute, name};
use crate::gpu::{GpuInstance, GpuInstanceProfile, Span};
use crate::pci::PciAddress;

/// Far beyond the last place in any driver's enumeration: a library that never ends it is not followed for ever.
const LAST_PLACE: u32 = 0x40;

/// NVML_STRUCT_VERSION of nvml.h.
pub(super) fn version<T>(number: u32) -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX) | number << 24
}

impl Nvml {
    /// In the order of the driver's enumeration. Empty: the driver does not list them (MIG is off, and it is older than R5xx).
    pub fn gpu_instance_profiles(&self, gpu: PciAddress) -> Result<Vec<GpuInstanceProfile>, NvmlError> {
        self.profiles(&self.device(gpu)?)
    }

    /// Only with MIG on: otherwise the driver refuses.
    pub fn gpu_instances(&self, gpu: PciAddress) -> Result<Vec<GpuInstance>, NvmlError> {
        let device = self.device(gpu)?;
        self.instances(&device, &self.profiles(&device)?)
    }

    /// The GPU instance alone; answers with its id. The profile's id is looked up by its name on this board, now.
    pub fn create_gpu_instance(&self, gpu: PciAddress, profile: &str, placement: Span) -> Result<u32, NvmlError> {
        const CALL: &str = "nvmlDeviceCreateGpuInstanceWithPlacement";
        let device = self.device(gpu)?;
        let profiles = self.profiles(&device)?;
        let Some(info) = profiles.iter().find(|info| info.name == profile) else {
            let names: Vec<_> = profiles.iter().map(|info| info.name.as_str()).collect();
            return Err(NvmlError::odd(CALL, format!("no profile {profile} on {gpu}: it has {}", names.join(", "))));
        };
        let wanted = nvmlGpuInstancePlacement_t { start: placement.start.into(), size: placement.size.into() };
        let mut instance: nvmlGpuInstance_t = ptr::null_mut();
        // SAFETY: a live device of this session; the placement and the handle outlive the call.
        unsafe {
            call!(
                self,
                nvmlDeviceCreateGpuInstanceWithPlacement(
                    device.handle(),
                    info.id,
                    &raw const wanted,
                    &raw mut instance
                )
            )
        }?;
        let made = self.instance_info(instance)?;
        if made.placement.start != wanted.start || made.placement.size != wanted.size {
            // Elsewhere than the plan says: some other claim owns that place. Nobody has used it yet.
            // SAFETY: the handle that the library has just given.
            unsafe { call!(self, nvmlGpuInstanceDestroy(instance)) }?;
            let why = format!("asked for {placement:?}, got it at {}", made.placement.start);
            return Err(NvmlError::odd(CALL, why));
        }
        Ok(made.id)
    }

    /// Refused as in use while a compute instance, a vGPU or a process is in it.
    pub fn destroy_gpu_instance(&self, gpu: PciAddress, gpu_instance: u32) -> Result<(), NvmlError> {
        let device = self.device(gpu)?;
        let handle = self.instance(&device, gpu_instance)?;
        // SAFETY: a handle of this session.
        unsafe { call!(self, nvmlGpuInstanceDestroy(handle)) }
    }

    /// One compute instance over the whole of a GPU instance. Fine if it is there already.
    pub fn create_compute_instance(&self, gpu: PciAddress, gpu_instance: u32) -> Result<(), NvmlError> {
        let device = self.device(gpu)?;
        let handle = self.instance(&device, gpu_instance)?;
        let info = self.instance_info(handle)?;
        let profile = self.profiles(&device)?.into_iter().find(|profile| profile.id == info.profileId);
        let Some(profile) = profile else {
            return Err(NvmlError::odd("nvmlGpuInstanceGetInfo", format!("profile {} is not listed", info.profileId)));
        };
        compute::ensure_whole(self, handle, profile.compute_slices.into())
    }

    pub fn destroy_compute_instance(
        &self,
        gpu: PciAddress,
        gpu_instance: u32,
        compute_instance: u32,
    ) -> Result<(), NvmlError> {
        let device = self.device(gpu)?;
        compute::destroy(self, self.instance(&device, gpu_instance)?, compute_instance)
    }

    pub(super) fn instance(&self, device: &Device<'_>, id: u32) -> Result<nvmlGpuInstance_t, NvmlError> {
        let mut handle: nvmlGpuInstance_t = ptr::null_mut();
        // SAFETY: a live device of this session; the handle outlives the call.
        unsafe { call!(self, nvmlDeviceGetGpuInstanceById(device.handle(), id, &raw mut handle)) }?;
        Ok(handle)
    }

    fn instance_info(&self, handle: nvmlGpuInstance_t) -> Result<nvmlGpuInstanceInfo_t, NvmlError> {
        let placement = nvmlGpuInstancePlacement_t { start: 0, size: 0 };
        let mut info = nvmlGpuInstanceInfo_t { device: ptr::null_mut(), id: 0, profileId: 0, placement };
        // SAFETY: a handle of this session; the library fills a structure of the type it asks for.
        unsafe { call!(self, nvmlGpuInstanceGetInfo(handle, &raw mut info)) }?;
        Ok(info)
    }

    pub(super) fn profiles(&self, device: &Device<'_>) -> Result<Vec<GpuInstanceProfile>, NvmlError> {
        let board = device.memory_info().map_err(|error| NvmlError::wrapped("nvmlDeviceGetMemoryInfo_v2", error))?;
        let mut profiles = Vec::new();
        for place in 0..LAST_PLACE {
            let info = match self.description(device, place) {
                Ok(info) => info,
                // A hole: this board has no such profile, and may have a later one.
                Err(error) if error.code() == Some(code::NOT_SUPPORTED) => continue,
                // Behind the last that this driver knows.
                Err(error) if error.code() == Some(code::INVALID_ARGUMENT) => break,
                Err(error) => return Err(error),
            };
            profiles.push(self.profile(device, place, info, board.total)?);
        }
        Ok(profiles)
    }

    fn profile(
        &self,
        device: &Device<'_>,
        place: u32,
        info: Description,
        total: u64,
    ) -> Result<GpuInstanceProfile, NvmlError> {
        let named = name::from_driver(&info.name);
        let name = named.unwrap_or_else(|| name::by_rule(place, info.slices, info.memory_mib, total));
        let mut remaining = 0;
        // SAFETY: a live device of this session; the number outlives the call.
        let left = unsafe {
            call!(self, nvmlDeviceGetGpuInstanceRemainingCapacity(device.handle(), info.id, &raw mut remaining))
        };
        let remaining = if_supported(left)?.map(|()| remaining);
        Ok(GpuInstanceProfile {
            name,
            id: info.id,
            compute_slices: small("nvmlDeviceGetGpuInstanceProfileInfo", info.slices)?,
            memory_mib: info.memory_mib,
            multiprocessors: info.multiprocessors,
            max_count: info.max_count,
            placements: self.placements(device, info.id)?,
            remaining,
        })
    }

    /// Version 2 for its name; version 1 of a driver that has no other.
    fn description(&self, device: &Device<'_>, place: u32) -> Result<Description, NvmlError> {
        let mut info = nvmlGpuInstanceProfileInfo_v2_t {
            version: version::<nvmlGpuInstanceProfileInfo_v2_t>(2),
            id: 0,
            isP2pSupported: 0,
            sliceCount: 0,
            instanceCount: 0,
            multiprocessorCount: 0,
            copyEngineCount: 0,
            decoderCount: 0,
            encoderCount: 0,
            jpegCount: 0,
            ofaCount: 0,
            memorySizeMB: 0,
            name: [0; 96],
        };
        // SAFETY: a live device of this session; the structure is of the version that it says it is.
        let told = unsafe { call!(self, nvmlDeviceGetGpuInstanceProfileInfoV(device.handle(), place, &raw mut info)) };
        match told {
            Ok(()) => Ok(Description {
                id: info.id,
                slices: info.sliceCount,
                max_count: info.instanceCount,
                multiprocessors: info.multiprocessorCount,
                memory_mib: info.memorySizeMB,
                name: text(&info.name),
            }),
            Err(NvmlError::NoCall { .. }) => self.oldest_description(device, place),
            Err(error) if error.code() == Some(code::ARGUMENT_VERSION_MISMATCH) => {
                self.oldest_description(device, place)
            }
            Err(error) => Err(error),
        }
    }

    fn oldest_description(&self, device: &Device<'_>, place: u32) -> Result<Description, NvmlError> {
        let mut info = nvmlGpuInstanceProfileInfo_t {
            id: 0,
            isP2pSupported: 0,
            sliceCount: 0,
            instanceCount: 0,
            multiprocessorCount: 0,
            copyEngineCount: 0,
            decoderCount: 0,
            encoderCount: 0,
            jpegCount: 0,
            ofaCount: 0,
            memorySizeMB: 0,
        };
        // SAFETY: a live device of this session; the library fills a structure of the type it asks for.
        unsafe { call!(self, nvmlDeviceGetGpuInstanceProfileInfo(device.handle(), place, &raw mut info)) }?;
        Ok(Description {
            id: info.id,
            slices: info.sliceCount,
            max_count: info.instanceCount,
            multiprocessors: info.multiprocessorCount,
            memory_mib: info.memorySizeMB,
            name: String::new(),
        })
    }

    /// All that this board has for the profile, taken or not.
    fn placements(&self, device: &Device<'_>, profile: u32) -> Result<Vec<Span>, NvmlError> {
        const CALL: &str = "nvmlDeviceGetGpuInstancePossiblePlacements_v2";
        let mut count = 0;
        // SAFETY: a live device of this session; without room for placements the library only counts them.
        unsafe {
            let none = ptr::null_mut();
            call!(self, nvmlDeviceGetGpuInstancePossiblePlacements_v2(device.handle(), profile, none, &raw mut count))
        }?;
        let mut placements = vec![nvmlGpuInstancePlacement_t { start: 0, size: 0 }; count as usize];
        // SAFETY: there is room for `count` placements, and the library is told so.
        unsafe {
            let room = placements.as_mut_ptr();
            call!(self, nvmlDeviceGetGpuInstancePossiblePlacements_v2(device.handle(), profile, room, &raw mut count))
        }?;
        placements.truncate(count as usize);
        placements.iter().map(|placement| span(CALL, placement)).collect()
    }

    pub(super) fn instances(
        &self,
        device: &Device<'_>,
        profiles: &[GpuInstanceProfile],
    ) -> Result<Vec<GpuInstance>, NvmlError> {
        let mut instances = Vec::new();
        for profile in profiles {
            let mut count = profile.max_count;
            let mut handles: Vec<nvmlGpuInstance_t> = vec![ptr::null_mut(); count as usize];
            // SAFETY: nvml.h asks for room for `instanceCount` handles of the profile, and there is.
            unsafe {
                let room = handles.as_mut_ptr();
                call!(self, nvmlDeviceGetGpuInstances(device.handle(), profile.id, room, &raw mut count))
            }?;
            handles.truncate(count as usize);
            for handle in handles {
                let info = self.instance_info(handle)?;
                instances.push(GpuInstance {
                    id: info.id,
                    profile: profile.name.clone(),
                    placement: span("nvmlGpuInstanceGetInfo", &info.placement)?,
                    compute_instances: compute::ids(self, handle)?,
                });
            }
        }
        instances.sort_by_key(|instance| instance.placement);
        Ok(instances)
    }
}

struct Description {
    id: u32,
    slices: u32,
    max_count: u32,
    multiprocessors: u32,
    memory_mib: u64,
    name: String,
}

fn small(call: &str, number: u32) -> Result<u8, NvmlError> {
    u8::try_from(number).map_err(|_| NvmlError::odd(call, format!("{number} slices")))
}

fn span(call: &str, placement: &nvmlGpuInstancePlacement_t) -> Result<Span, NvmlError> {
    Ok(Span { start: small(call, placement.start)?, size: small(call, placement.size)? })
}

/// A buffer of C, as far as it is text.
fn text(buffer: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = buffer.iter().map(|c| c.cast_unsigned()).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
