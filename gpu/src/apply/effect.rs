//! One effect of one step, and no judgement: whether it may be done was asked before, whether it worked is asked after, and
//! what is changed for a moment only is put back by who asks.

use rustix::io::Errno;

use super::access::{Access, NvmlVerbs, Result};
use super::error::StepError;
use super::sriov_manage;
use super::standing::{self, present};
use crate::error::IfPresent;
use crate::gpu::Span;
use crate::hostfs::HostFs;
use crate::nvml::code;
use crate::pci::PciAddress;
use crate::plan::Step;

/// Everything but the resets, which are in [`super::reset`] and [`super::reset_usb`].
pub fn carry_out(step: &Step, access: &Access) -> Result<()> {
    let fs = &access.fs;
    match step {
        Step::SetDriverOverride { address, to, .. } => set_override(fs, *address, to.as_deref()),
        Step::Bind { address, driver } => bind(fs, *address, driver),
        Step::Unbind { address, .. } => unbind(fs, *address),
        Step::SetAutoprobe { physical, to, .. } => {
            Ok(fs.write(&format!("{}/sriov_drivers_autoprobe", present(fs, *physical)?), digit(*to))?)
        }
        Step::SetVirtualFunctions { physical, to, .. } => {
            Ok(fs.write(&format!("{}/sriov_numvfs", present(fs, *physical)?), &to.to_string())?)
        }
        Step::SriovManage { gpu, enable } => sriov_manage::run(access, *gpu, *enable),
        Step::SetPersistence { gpu, to, .. } => access.nvml.open()?.set_persistence(*gpu, *to),
        Step::SetMigMode { gpu, to, .. } => set_mig_mode(access, *gpu, *to),
        Step::CreateGpuInstance { gpu, profile, placement } => {
            create_instance(access.nvml.open()?.as_ref(), *gpu, profile, *placement)
        }
        Step::DestroyGpuInstance { gpu, profile, placement } => {
            destroy_instance(access.nvml.open()?.as_ref(), *gpu, profile, *placement)
        }
        Step::CreateMdev { parent, type_id, uuid } => {
            let path = format!("/sys/class/mdev_bus/{parent}/mdev_supported_types/{type_id}/create");
            Ok(fs.write(&path, uuid)?)
        }
        Step::RemoveMdev { uuid, .. } => Ok(fs.write(&format!("/sys/bus/mdev/devices/{uuid}/remove"), "1")?),
        Step::SetVgpuType { function, type_name, placement } => set_vgpu_type(access, *function, type_name, *placement),
        Step::ClearVgpuType { function, .. } => {
            Ok(fs.write(&format!("{}/nvidia/current_vgpu_type", present(fs, *function)?), "0")?)
        }
        Step::SetHeterogeneous { gpu, placement, to, .. } => {
            let nvml = access.nvml.open()?;
            let instance = standing::instance_at(nvml.as_ref(), *gpu, *placement)?;
            nvml.set_heterogeneous(*gpu, instance, *to)
        }
        Step::ActivateFabricPartition { id } => access.fabric.activate(*id),
        Step::DeactivateFabricPartition { id } => access.fabric.deactivate(*id),
        Step::Reset { .. } | Step::ResetUsb { .. } => Ok(()),
    }
}

pub fn set_override(fs: &HostFs, address: PciAddress, driver: Option<&str>) -> Result<()> {
    // A lone newline clears it; an empty write is none at all.
    Ok(fs.write(&format!("{}/driver_override", present(fs, address)?), driver.unwrap_or("\n"))?)
}

/// By `driver_override` for the moment, whatever it is otherwise: no other driver takes the device then, and a virtual
/// function whose physical one has autoprobe off is bound at all (`pci_device_can_probe`).
fn bind(fs: &HostFs, address: PciAddress, driver: &str) -> Result<()> {
    if standing::driver_override(fs, address)?.as_deref() != Some(driver) {
        set_override(fs, address, Some(driver))?;
    }
    Ok(fs.write("/sys/bus/pci/drivers_probe", &address.to_string())?)
}

/// Under the lock of NVIDIA's driver, where that has the function: it is granted only while no client has the GPU open, and
/// from then on no client gets in. Whoever came after the last look at open files would otherwise be waited for in the
/// kernel, with all other GPUs waiting behind. Where it stays although the unbind failed, it is put back with the rest.
pub fn unbind(fs: &HostFs, address: PciAddress) -> Result<()> {
    let lock = standing::unbind_lock(address);
    if fs.has(&lock).if_present()? == Some(true) {
        fs.write(&lock, "1")?;
        if fs.attribute(&lock)? != "1" {
            let error = format!("somebody has {address} open: nvidia does not grant its unbindLock");
            return Err(StepError::errno(error, Errno::BUSY));
        }
    }
    Ok(fs.write(&format!("{}/driver/unbind", present(fs, address)?), &address.to_string())?)
}

fn set_mig_mode(access: &Access, gpu: PciAddress, on: bool) -> Result<()> {
    let activation = access.nvml.open()?.set_mig_mode(gpu, on)?;
    // The return code said "accepted"; this says whether it is so.
    let why = match activation {
        0 => return Ok(()),
        code::IN_USE => "the GPU is in use, so the mode stays pending",
        _ => "the mode stays pending until the GPU is reset",
    };
    Err(StepError { nvml: Some(activation), ..StepError::new(format!("{why} (activation status {activation})")) })
}

fn create_instance(nvml: &dyn NvmlVerbs, gpu: PciAddress, profile: &str, placement: Span) -> Result<()> {
    // One that was cut short is finished.
    let id = match standing::gpu_instance(nvml, gpu, profile, placement)? {
        Some(instance) if !instance.compute_instances.is_empty() => return Ok(()),
        Some(instance) => instance.id,
        None => nvml.create_gpu_instance(gpu, profile, placement)?,
    };
    nvml.create_compute_instance(gpu, id)
}

fn destroy_instance(nvml: &dyn NvmlVerbs, gpu: PciAddress, profile: &str, placement: Span) -> Result<()> {
    let Some(instance) = standing::gpu_instance(nvml, gpu, profile, placement)? else { return Ok(()) };
    for compute_instance in &instance.compute_instances {
        nvml.destroy_compute_instance(gpu, instance.id, *compute_instance)?;
    }
    nvml.destroy_gpu_instance(gpu, instance.id)
}

/// The list is read again just before: ids are local to the card and the driver, and what fits changes with every vGPU.
///
/// On which GPU instance it then stands is the driver's choice: one on another than the plan's may be another tenant's, and
/// goes at once.
fn set_vgpu_type(access: &Access, function: PciAddress, type_name: &str, placement: Option<Span>) -> Result<()> {
    let fs = &access.fs;
    let directory = present(fs, function)? + "/nvidia";
    let list = format!("{directory}/creatable_vgpu_types");
    let creatable = fs.parse(&list, "a list of vGPU types", crate::vgpu::parse_creatable)?;
    let Some(found) = creatable.iter().find(|known| known.name == type_name) else {
        let names: Vec<&str> = creatable.iter().map(|known| known.name.as_str()).collect();
        let can = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let error = format!("{function} can not become a {type_name} now; it can become: {can}");
        return Err(StepError::errno(error, Errno::INVAL));
    };
    let file = format!("{directory}/current_vgpu_type");
    fs.write(&file, &found.id.to_string())?;
    let found = if placement.is_some() { standing::stands_at(access, function)? } else { None };
    match (placement, found) {
        (Some(wished), Some(found)) if wished != found => {
            fs.write(&file, "0")?;
            let why = format!("the driver put the {type_name} on the GPU instance at {}:{}", found.start, found.size);
            Err(StepError::new(format!("{why}, not at {}:{}", wished.start, wished.size)))
        }
        _ => Ok(()),
    }
}

fn digit(on: bool) -> &'static str {
    if on { "1" } else { "0" }
}
