//! Where a device stands with respect to a step: read before it, so that nothing is done on a guess, and after it, because
//! neither a write that succeeds nor a return code that says so proves an effect.
//!
//! Never reads `sriov_numvfs`: the kernel takes the device's lock for it (see [`crate::pci`]). The links say the same.

use super::access::{Access, NvmlVerbs, Result};
use super::error::StepError;
use super::sriov_manage;
use super::work::{Remembered, Standing};
use crate::error::IfPresent;
use crate::gpu::{GpuInstance, Span};
use crate::hostfs::HostFs;
use crate::nvml::MigMode;
use crate::pci::PciAddress;
use crate::plan::Step;

pub fn look(step: &Step, access: &Access) -> Result<Standing> {
    let fs = &access.fs;
    Ok(match step {
        Step::SetDriverOverride { address, from, to } => {
            let found = driver_override(fs, *address)?;
            Standing::of(&found, from, to, || format!("its driver_override is {}", or_none(&found)))
        }
        Step::Bind { address, driver } => bound(fs, *address, None, Some(driver))?,
        Step::Unbind { address, driver } => bound(fs, *address, Some(driver), None)?,
        Step::SetAutoprobe { physical, from, to } => {
            let path = present(fs, *physical)? + "/sriov_drivers_autoprobe";
            let found = fs.parse(&path, "0 or 1", |text| ["0", "1"].iter().position(|digit| *digit == text))? == 1;
            Standing::of(&found, from, to, String::new)
        }
        Step::SetVirtualFunctions { physical, from, to } => {
            let found = count_functions(fs, *physical)?;
            Standing::of(&found, from, to, || format!("it has {found} virtual functions"))
        }
        Step::SriovManage { gpu, enable } => sriov_managed(fs, *gpu, *enable)?,
        Step::SetPersistence { gpu, from, to } => {
            let found = access.nvml.open()?.persistence(*gpu)?;
            Standing::of(&found, from, to, String::new)
        }
        Step::SetMigMode { gpu, to, .. } => match access.nvml.open()?.mig_mode(*gpu)? {
            MigMode { current, pending } if current != pending => {
                let word = |on| if on { "on" } else { "off" };
                Standing::Between { found: format!("MIG mode is {}, and {} is pending", word(current), word(pending)) }
            }
            MigMode { current, .. } if current == *to => Standing::After,
            MigMode { .. } => Standing::Before,
        },
        Step::CreateGpuInstance { gpu, profile, placement } => carved(access, *gpu, profile, *placement)?,
        Step::DestroyGpuInstance { gpu, profile, placement } => carved(access, *gpu, profile, *placement)?.reversed(),
        Step::CreateMdev { parent, type_id, uuid } => mediated(fs, parent, type_id, uuid)?,
        Step::RemoveMdev { parent, type_id, uuid } => mediated(fs, parent, type_id, uuid)?.reversed(),
        Step::SetVgpuType { function, type_name, .. } => vgpu_type(access, *function, type_name)?,
        Step::ClearVgpuType { function, type_name, .. } => vgpu_type(access, *function, type_name)?.reversed(),
        Step::SetHeterogeneous { gpu, placement, from, to } => {
            let nvml = access.nvml.open()?;
            let instance = instance_at(nvml.as_ref(), *gpu, *placement)?;
            Standing::of(&nvml.heterogeneous(*gpu, instance)?, from, to, String::new)
        }
        Step::ActivateFabricPartition { id } => partition(access, *id, true)?,
        Step::DeactivateFabricPartition { id } => partition(access, *id, false)?,
        // A reset leaves no trace to be found: it is always still to be done.
        Step::Reset { address, .. } => present(fs, *address).map(|_| Standing::Before)?,
        Step::ResetUsb { port, vendor, product, serial } => {
            match super::reset_usb::plugged_in(fs, port, (*vendor, *product), serial.as_deref())? {
                true => Standing::Before,
                false => Standing::Other { found: format!("another device is in port {port}, or none") },
            }
        }
    })
}

/// What the step changes for a moment, and is put back when it ends: should it not come to its end, somebody else must.
pub fn remember(step: &Step, access: &Access) -> Result<Vec<Remembered>> {
    let fs = &access.fs;
    let mut all = match step {
        Step::SriovManage { gpu, enable } => sriov_manage::persistence(access, *gpu, *enable)?,
        _ => Vec::new(),
    };
    let path = match step {
        Step::Bind { address, .. } => driver_override_of(*address),
        // The tool takes it, and keeps it where it then fails to unbind: no client would get in any more.
        Step::Unbind { address: gpu, .. } | Step::SriovManage { gpu, .. } => unbind_lock(*gpu),
        Step::Reset { address, .. } => directory(*address) + "/reset_method",
        _ => return Ok(all),
    };
    let text = fs.attribute(&path).if_present()?;
    all.extend(text.map(|text| Remembered::Attribute { path, text }));
    Ok(all)
}

/// Of a GPU on NVIDIA's driver.
pub fn unbind_lock(gpu: PciAddress) -> String {
    format!("/proc/driver/nvidia/gpus/{gpu}/unbindLock")
}

pub fn driver_override_of(address: PciAddress) -> String {
    directory(address) + "/driver_override"
}

pub fn directory(address: PciAddress) -> String {
    format!("/sys/bus/pci/devices/{address}")
}

/// Its directory. A device that is gone must not pass for one that is unbound.
pub fn present(fs: &HostFs, address: PciAddress) -> Result<String> {
    let directory = directory(address);
    // The entry itself is a link; what it leads to is what counts.
    if fs.has(&format!("{directory}/vendor")).if_present()? != Some(true) {
        return Err(StepError::errno(format!("{address} is not on this host any more"), rustix::io::Errno::NODEV));
    }
    Ok(directory)
}

pub fn driver(fs: &HostFs, address: PciAddress) -> Result<Option<String>> {
    let directory = present(fs, address)?;
    Ok(fs.link_name(&format!("{directory}/driver")).if_present()?)
}

pub fn driver_override(fs: &HostFs, address: PciAddress) -> Result<Option<String>> {
    let directory = present(fs, address)?;
    let text = fs.attribute(&format!("{directory}/driver_override"))?;
    // As the kernel prints a null pointer.
    Ok((text != "(null)" && !text.is_empty()).then_some(text))
}

/// The virtual functions of a physical one, by its links.
pub fn functions(fs: &HostFs, physical: PciAddress) -> Result<Vec<PciAddress>> {
    let directory = present(fs, physical)?;
    let mut functions = Vec::new();
    for name in fs.entries(&directory)? {
        if name.strip_prefix("virtfn").is_some_and(|index| index.parse::<u16>().is_ok()) {
            let target = fs.link_name(&format!("{directory}/{name}"))?;
            functions.push(target.parse().map_err(|error| StepError::new(format!("{physical}/{name}: {error}")))?);
        }
    }
    functions.sort_unstable();
    Ok(functions)
}

/// The GPU that one of NVIDIA's virtual functions belongs to.
pub fn physical(fs: &HostFs, function: PciAddress) -> Result<PciAddress> {
    let path = present(fs, function)? + "/physfn";
    let name = fs.link_name(&path)?;
    name.parse().map_err(|error| StepError::new(format!("{path}: {error}")))
}

pub fn current_vgpu_type(fs: &HostFs, function: PciAddress) -> Result<u32> {
    let path = present(fs, function)? + "/nvidia/current_vgpu_type";
    Ok(fs.parse(&path, "the id of a vGPU type, or 0", |text| text.parse().ok())?)
}

/// Where the GPU instance is that a function's vGPU stands on, as far as the driver tells.
pub fn stands_at(access: &Access, function: PciAddress) -> Result<Option<Span>> {
    let Some(id) = crate::vgpu::gpu_instance(&access.fs, &(present(&access.fs, function)? + "/nvidia"))? else {
        return Ok(None);
    };
    let instances = access.nvml.open()?.gpu_instances(physical(&access.fs, function)?)?;
    Ok(instances.into_iter().find(|instance| instance.id == id).map(|instance| instance.placement))
}

pub fn gpu_instance(nvml: &dyn NvmlVerbs, gpu: PciAddress, profile: &str, at: Span) -> Result<Option<GpuInstance>> {
    let all = nvml.gpu_instances(gpu)?;
    Ok(all.into_iter().find(|instance| instance.profile == profile && instance.placement == at))
}

/// NVML's id of what is at a placement, for calls that want one; `None` for the GPU itself.
pub fn instance_at(nvml: &dyn NvmlVerbs, gpu: PciAddress, placement: Option<Span>) -> Result<Option<u32>> {
    let Some(at) = placement else { return Ok(None) };
    let found = nvml.gpu_instances(gpu)?.into_iter().find(|instance| instance.placement == at);
    let none = || StepError::new(format!("{gpu} has no GPU instance at {}:{}", at.start, at.size));
    found.map(|instance| Some(instance.id)).ok_or_else(none)
}

fn count_functions(fs: &HostFs, physical: PciAddress) -> Result<u16> {
    let count = functions(fs, physical)?.len();
    u16::try_from(count).map_err(|_| StepError::new(format!("{physical} has {count} virtual functions")))
}

fn bound(fs: &HostFs, address: PciAddress, before: Option<&String>, after: Option<&String>) -> Result<Standing> {
    let found = driver(fs, address)?;
    Ok(Standing::of(&found.as_ref(), &before, &after, || format!("its driver is {}", or_none(&found))))
}

/// The tool takes the GPU and its functions off their driver and brings them back: cut short in between, it leaves some there.
fn sriov_managed(fs: &HostFs, gpu: PciAddress, enable: bool) -> Result<Standing> {
    let functions = functions(fs, gpu)?;
    let driver = driver(fs, gpu)?;
    if sriov_manage::off_drivers(fs, gpu)? {
        let found = format!("its driver is {}, with {} virtual functions", or_none(&driver), functions.len());
        return Ok(Standing::Between { found });
    }
    if driver.as_deref() != Some("nvidia") {
        return Ok(Standing::Other { found: format!("its driver is {}", or_none(&driver)) });
    }
    for function in &functions {
        if sriov_manage::off_drivers(fs, *function)? {
            return Ok(Standing::Between { found: format!("its virtual function {function} is off its driver") });
        }
    }
    Ok(if functions.is_empty() == enable { Standing::Before } else { Standing::After })
}

/// A GPU instance counts with the compute instance in it: without, nobody can use it.
fn carved(access: &Access, gpu: PciAddress, profile: &str, placement: Span) -> Result<Standing> {
    let name = |instance: &GpuInstance| {
        let Span { start, size } = instance.placement;
        format!("GPU instance {} is a {} at {start}:{size}", instance.id, instance.profile)
    };
    let overlaps = |other: &Span| {
        let end = |span: &Span| u16::from(span.start) + u16::from(span.size);
        u16::from(other.start) < end(&placement) && u16::from(placement.start) < end(other)
    };
    let all = access.nvml.open()?.gpu_instances(gpu)?;
    if let Some(instance) = all.iter().find(|known| known.profile == profile && known.placement == placement) {
        return Ok(match instance.compute_instances.is_empty() {
            true => Standing::Between { found: format!("{}, without a compute instance", name(instance)) },
            false => Standing::After,
        });
    }
    Ok(match all.iter().find(|instance| overlaps(&instance.placement)) {
        Some(instance) => Standing::Other { found: name(instance) },
        None => Standing::Before,
    })
}

fn mediated(fs: &HostFs, parent: &str, type_id: &str, uuid: &str) -> Result<Standing> {
    let entry = format!("/sys/bus/mdev/devices/{uuid}");
    let Some(target) = fs.link(&entry).if_present()? else {
        if !fs.has(&format!("/sys/class/mdev_bus/{parent}"))? {
            let gone = format!("{parent} makes no mediated devices on this host any more");
            return Err(StepError::errno(gone, rustix::io::Errno::NODEV));
        }
        return Ok(Standing::Before);
    };
    let above = target.parent().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
    let found = (fs.link_name(&format!("{entry}/mdev_type"))?, above.unwrap_or_default());
    // As `nvidia-692`; the kernel calls the directory so, below the parent and from the device.
    Ok(match found == (type_id.to_owned(), parent.to_owned()) {
        true => Standing::After,
        false => Standing::Other { found: format!("{uuid} is a {} of {}", found.0, found.1) },
    })
}

fn vgpu_type(access: &Access, function: PciAddress, type_name: &str) -> Result<Standing> {
    let id = current_vgpu_type(&access.fs, function)?;
    if id == 0 {
        return Ok(Standing::Before);
    }
    // The function's own list shrinks once it is taken, so the id's name must come from the card.
    let types = access.nvml.open()?.vgpu_types(physical(&access.fs, function)?)?;
    let name = types.into_iter().find(|known| known.id == id).map(|known| known.name);
    Ok(match name {
        Some(name) if name == type_name => Standing::After,
        name => Standing::Other { found: format!("it is a vGPU of type {} ({id})", or_none(&name)) },
    })
}

fn partition(access: &Access, id: u32, wanted: bool) -> Result<Standing> {
    match access.fabric.active(id)? {
        Some(active) if active == wanted => Ok(Standing::After),
        Some(_) => Ok(Standing::Before),
        None => Err(StepError::new(format!("Fabric Manager knows no partition {id}"))),
    }
}

fn or_none(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or("none")
}
