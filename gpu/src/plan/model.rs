//! What each step does to a host, by the rules of kernel and driver, in memory: for tests of plans.
//!
//! Stricter than the hardware where that is careless: what would be wiped, blocked or lost on the side is an error here.

use std::collections::BTreeMap;

use crate::bus::Inventory;
use crate::gpu::{Gpu, GpuInstance, Mig, Span, SupportedVgpu};
use crate::host::{Fabric, Host, Mdev, VgpuFunction, VgpuType};
use crate::pci::{PciAddress, PciFunction, Sriov, VirtualFunction};

use super::Step;
use super::testing::function;

type Done = Result<(), String>;

#[derive(Debug)]
pub struct Model {
    pub host: Host,
    /// What the NVIDIA driver knew of a GPU before it was taken off it.
    known: BTreeMap<PciAddress, Gpu>,
    next_id: u32,
}

macro_rules! ensure {
    ($holds:expr, $($words:tt)*) => { if !$holds { return Err(format!($($words)*)); } };
}

impl Model {
    pub fn new(host: Host) -> Model {
        Model { known: BTreeMap::new(), next_id: 13, host }
    }

    pub fn copy(&self) -> Model {
        fn devices<T: Clone>(of: &Inventory<T>) -> Inventory<T> {
            Inventory { devices: of.devices.clone(), errors: Vec::new() }
        }
        let Host { pci, usb, gpus, mdevs, vgpus, mdev_parents, fabric, holders, .. } = &self.host;
        let host = Host {
            pci: devices(pci),
            usb: devices(usb),
            gpus: devices(gpus),
            mdevs: mdevs.clone(),
            vgpus: vgpus.clone(),
            mdev_parents: mdev_parents.clone(),
            fabric: fabric.clone(),
            holders: holders.clone(),
            errors: Vec::new(),
        };
        Model { host, known: self.known.clone(), next_id: self.next_id }
    }

    /// All that a plan can change, as text; without the ids of GPU instances, which are others after each creation.
    pub fn text(&self) -> String {
        let mut copy = self.copy();
        for gpu in &mut copy.host.gpus.devices {
            if let Mig::Supported(mig) = &mut gpu.mig {
                mig.instances.iter_mut().for_each(|instance| instance.id = 0);
                mig.instances.sort_by_key(|instance| (instance.placement, instance.profile.clone()));
            }
        }
        for vgpu in copy.host.vgpus.values_mut() {
            if let VgpuFunction::Vendor { gpu_instance, .. } = vgpu {
                *gpu_instance = None;
            }
        }
        copy.host.pci.devices.sort_by_key(|function| function.address);
        copy.host.mdevs.sort_by_key(|mdev| mdev.uuid.clone());
        serde_json::to_string_pretty(&copy.host).unwrap()
    }

    pub fn apply(&mut self, step: &Step) -> Done {
        match step.clone() {
            Step::SetDriverOverride { address, from, to } => {
                let function = self.function(address)?;
                ensure!(function.driver_override == from, "{address} was overridden by {:?}", function.driver_override);
                function.driver_override = to;
                Ok(())
            }
            Step::Unbind { address, driver } => self.unbind(address, &driver),
            Step::Bind { address, driver } => self.bind(address, driver),
            Step::SetAutoprobe { physical, from, to } => match &mut self.function(physical)?.sriov {
                Sriov::Physical { autoprobe, .. } if *autoprobe == from => {
                    *autoprobe = to;
                    Ok(())
                }
                other => Err(format!("{physical} is {other:?}")),
            },
            Step::SetVirtualFunctions { physical, from, to } => self.set_functions(physical, from, to),
            Step::SriovManage { gpu, enable } => self.sriov_manage(gpu, enable),
            Step::SetPersistence { gpu, from, to } => {
                let gpu = self.gpu(gpu)?;
                ensure!(gpu.persistence == Some(from), "persistence of {} was {:?}", gpu.address, gpu.persistence);
                gpu.persistence = Some(to);
                Ok(())
            }
            Step::SetMigMode { gpu, from, to } => {
                self.idle(gpu)?;
                ensure!(self.functions_of(gpu).is_empty(), "in use by another client: functions are on");
                let mig = self.gpu(gpu)?.mig_mut();
                ensure!(
                    mig.current == from && mig.instances.is_empty(),
                    "MIG was {}, {:?}",
                    mig.current,
                    mig.instances
                );
                (mig.current, mig.pending) = (to, to);
                Ok(())
            }
            Step::CreateGpuInstance { gpu, profile, placement } => self.create_instance(gpu, &profile, placement),
            Step::DestroyGpuInstance { gpu, profile, placement } => self.destroy_instance(gpu, &profile, placement),
            Step::CreateMdev { parent, type_id, uuid } => self.create_mdev(parent, type_id, uuid),
            Step::RemoveMdev { uuid, .. } => {
                self.not_held(&uuid)?;
                let at = self.host.mdevs.iter().position(|mdev| mdev.uuid == uuid).ok_or("no such mdev")?;
                let parent = self.host.mdevs.remove(at).parent;
                self.available(&parent, 1)
            }
            Step::SetVgpuType { function, type_name, .. } => self.set_type(function, &type_name),
            Step::ClearVgpuType { function, type_name, .. } => {
                self.not_held(&function.to_string())?;
                let Some(VgpuFunction::Vendor { current, gpu_instance, .. }) = self.host.vgpus.get_mut(&function)
                else {
                    return Err(format!("{function} has no type"));
                };
                ensure!(current.take().is_some_and(|was| was.name == type_name), "{function} was no {type_name}");
                *gpu_instance = None;
                self.list_creatable();
                Ok(())
            }
            Step::SetHeterogeneous { gpu, from, to, .. } => {
                ensure!(self.carried(gpu).is_empty(), "a vGPU exists");
                let gpu = self.gpu(gpu)?;
                ensure!(gpu.heterogeneous == Some(from), "the flag was {:?}", gpu.heterogeneous);
                gpu.heterogeneous = Some(to);
                self.list_creatable();
                Ok(())
            }
            Step::ActivateFabricPartition { id } => self.set_partition(id, true),
            Step::DeactivateFabricPartition { id } => self.set_partition(id, false),
            Step::ResetUsb { port, .. } => self.not_held(&port.to_string()),
            Step::Reset { address, methods } => {
                self.not_held(&address.to_string())?;
                let function = self.function(address)?;
                ensure!(!methods.is_empty(), "no method");
                ensure!(
                    function.driver.as_deref() == Some("vfio-pci"),
                    "{address} is reset under {:?}",
                    function.driver
                );
                Ok(())
            }
        }
    }

    fn function(&mut self, address: PciAddress) -> Result<&mut PciFunction, String> {
        let mut functions = self.host.pci.devices.iter_mut();
        functions.find(|function| function.address == address).ok_or_else(|| format!("{address} is not there"))
    }

    fn gpu(&mut self, address: PciAddress) -> Result<&mut Gpu, String> {
        ensure!(self.function(address)?.driver.as_deref() == Some("nvidia"), "{address} is not on nvidia");
        let mut gpus = self.host.gpus.devices.iter_mut();
        gpus.find(|gpu| gpu.address == address).ok_or_else(|| format!("{address} is no GPU"))
    }

    fn not_held(&self, device: &str) -> Done {
        ensure!(!self.host.holders.contains_key(device), "{device} is held open");
        Ok(())
    }

    /// No client but the one that changes it.
    fn idle(&mut self, gpu: PciAddress) -> Done {
        self.not_held(&gpu.to_string())?;
        ensure!(self.gpu(gpu)?.persistence != Some(true), "persistence holds {gpu} open");
        Ok(())
    }

    fn functions_of(&self, physical: PciAddress) -> Vec<PciAddress> {
        let of = |function: &&PciFunction| function.sriov == Sriov::Virtual { physical };
        self.host.pci.devices.iter().filter(of).map(|function| function.address).collect()
    }

    /// The vGPUs of a GPU: type, and instance below.
    fn carried(&self, gpu: PciAddress) -> Vec<(VgpuType, Option<u32>)> {
        let vgpu = |vf: PciAddress| match self.host.vgpus.get(&vf) {
            Some(VgpuFunction::Vendor { current: Some(current), gpu_instance, .. }) => {
                Some((current.clone(), *gpu_instance))
            }
            _ => None,
        };
        self.functions_of(gpu).into_iter().filter_map(vgpu).collect()
    }

    fn unbind(&mut self, address: PciAddress, driver: &str) -> Done {
        self.not_held(&address.to_string())?;
        ensure!(self.functions_of(address).is_empty(), "the functions of {address} would go with its driver");
        ensure!(self.function(address)?.driver.as_deref() == Some(driver), "{address} was not on {driver}");
        if driver == "nvidia" {
            self.idle(address)?;
            let gpu = self.gpu(address)?;
            ensure!(gpu.heterogeneous != Some(true), "a flag would be lost");
            let mig = gpu.mig_mut();
            ensure!(!mig.current && mig.instances.is_empty(), "MIG would be lost, or found by the next one");
            let known = gpu.clone();
            gpu.mig = Mig::Unknown { why: "no driver".to_owned() };
            (gpu.persistence, gpu.heterogeneous) = (None, None);
            self.known.insert(address, known);
        }
        self.function(address)?.driver = None;
        Ok(())
    }

    fn bind(&mut self, address: PciAddress, driver: String) -> Done {
        let function = self.function(address)?.clone();
        ensure!(function.driver.is_none(), "{address} is bound to {:?}", function.driver);
        ensure!(driver != "vfio-pci" || function.iommu_group.is_some(), "no IOMMU");
        let to_nvidia = driver == "nvidia";
        self.function(address)?.driver = Some(driver);
        if to_nvidia && let Some(known) = self.known.remove(&address) {
            *self.gpu(address)? = Gpu { persistence: Some(false), ..known };
        }
        Ok(())
    }

    fn set_functions(&mut self, physical: PciAddress, from: u16, to: u16) -> Done {
        let there = self.functions_of(physical);
        let pf = self.function(physical)?.clone();
        ensure!(usize::from(from) == there.len() && from != to, "{physical} has {}, not {from}", there.len());
        ensure!(from == 0 || to == 0, "EBUSY");
        ensure!(pf.vendor != 0x10de, "the driver has no such file");
        ensure!(pf.driver.as_deref().is_some_and(|driver| driver != "vfio-pci"), "ENOENT");
        let Sriov::Physical { total, autoprobe, .. } = pf.sriov else { return Err("ENOENT".to_owned()) };
        ensure!(to <= total, "ERANGE");
        there.iter().try_for_each(|vf| self.not_held(&vf.to_string()))?;
        self.put_functions(physical, to, autoprobe.then_some("igbvf"))
    }

    fn sriov_manage(&mut self, gpu: PciAddress, enable: bool) -> Done {
        self.idle(gpu)?;
        let there = self.functions_of(gpu);
        ensure!(there.is_empty() == enable, "the functions of {gpu} are so already");
        there.iter().try_for_each(|vf| self.not_held(&vf.to_string()))?;
        ensure!(self.carried(gpu).is_empty(), "vGPUs of {gpu} would be wiped");
        let on_it = self.gpu(gpu)?;
        ensure!(on_it.mig_mut().instances.is_empty(), "instances of {gpu} would be wiped");
        ensure!(on_it.heterogeneous != Some(true), "the flag of {gpu} would be wiped");
        let probed = matches!(self.function(gpu)?.sriov, Sriov::Physical { autoprobe: true, .. });
        ensure!(probed || !enable, "no driver would take the functions of {gpu}");
        self.put_functions(gpu, if enable { 4 } else { 0 }, Some("nvidia"))?;
        for vf in self.functions_of(gpu) {
            let empty = VgpuFunction::Vendor { current: None, creatable: Vec::new(), gpu_instance: None };
            self.host.vgpus.insert(vf, empty);
        }
        self.list_creatable();
        Ok(())
    }

    fn put_functions(&mut self, physical: PciAddress, count: u16, driver: Option<&str>) -> Done {
        for vf in self.functions_of(physical) {
            self.host.pci.devices.retain(|function| function.address != vf);
            self.host.vgpus.remove(&vf);
        }
        let mut made = Vec::new();
        for index in 0..count {
            let address = PciAddress { device: 16 + u8::try_from(index).unwrap(), ..physical };
            made.push(VirtualFunction { index, address });
            let mut vf = function(&address.to_string()).of(&physical.to_string());
            vf.iommu_group = Some(1000 + 32 * u32::from(physical.bus) + u32::from(index));
            vf.driver = driver.map(str::to_owned);
            vf.vendor = self.function(physical)?.vendor;
            vf.class = self.function(physical)?.class;
            self.host.pci.devices.push(vf);
        }
        match &mut self.function(physical)?.sriov {
            Sriov::Physical { functions, .. } => *functions = made,
            other => return Err(format!("{physical} is {other:?}")),
        }
        Ok(())
    }

    fn create_instance(&mut self, address: PciAddress, name: &str, placement: Span) -> Done {
        self.next_id = (self.next_id + 9) % 64;
        let id = self.next_id;
        let mig = self.gpu(address)?.mig_mut();
        ensure!(mig.current, "MIG is off");
        let profile = mig.profiles.iter().find(|profile| profile.name == name).ok_or("no such profile")?;
        ensure!(profile.placements.contains(&placement), "{name} is never at {placement:?}");
        let slices = |span: Span| span.start..span.start + span.size;
        let apart = |other: &GpuInstance| slices(other.placement).all(|slice| !slices(placement).contains(&slice));
        ensure!(mig.instances.iter().all(apart), "insufficient resources for {name} at {placement:?}");
        let slices_of = |name: &str| mig.profiles.iter().find(|listed| listed.name == name).unwrap().compute_slices;
        let compute: u8 = mig.instances.iter().map(|other| slices_of(&other.profile)).sum();
        ensure!(compute + profile.compute_slices <= mig.compute_slices, "insufficient compute slices");
        let same = mig.instances.iter().filter(|other| other.profile == name).count();
        ensure!(same < usize::try_from(profile.max_count).unwrap(), "no more {name}");
        let made = GpuInstance { id, profile: name.to_owned(), placement, compute_instances: vec![0] };
        mig.instances.push(made);
        self.list_creatable();
        Ok(())
    }

    fn destroy_instance(&mut self, gpu: PciAddress, name: &str, placement: Span) -> Done {
        let carried = self.carried(gpu);
        let instances = &mut self.gpu(gpu)?.mig_mut().instances;
        let is = |instance: &GpuInstance| instance.profile == name && instance.placement == placement;
        let at = instances.iter().position(is).ok_or_else(|| format!("no {name} at {placement:?}"))?;
        ensure!(carried.iter().all(|(_, on)| *on != Some(instances[at].id)), "{name} at {placement:?} carries a vGPU");
        instances.remove(at);
        self.list_creatable();
        Ok(())
    }

    fn create_mdev(&mut self, parent: String, type_id: String, uuid: String) -> Done {
        let Ok(VgpuFunction::Mdev { types }) = parent.parse().map(|parent: PciAddress| &self.host.vgpus[&parent])
        else {
            return Err("no mdevs".to_owned());
        };
        let kind = types.iter().find(|kind| kind.id == type_id).ok_or("no such type")?;
        ensure!(kind.available > 0, "none available");
        ensure!(self.host.mdevs.iter().all(|mdev| mdev.uuid != uuid), "EEXIST");
        self.host.mdevs.push(Mdev { uuid, parent: parent.clone(), type_id, iommu_group: None });
        self.available(&parent, -1)
    }

    fn available(&mut self, parent: &str, by: i32) -> Done {
        let parent = parent.parse().map_err(|_| "no function")?;
        let Some(VgpuFunction::Mdev { types }) = self.host.vgpus.get_mut(&parent) else {
            return Err("no mdevs".to_owned());
        };
        types.iter_mut().for_each(|kind| kind.available = kind.available.saturating_add_signed(by));
        Ok(())
    }

    fn set_type(&mut self, function: PciAddress, type_name: &str) -> Done {
        self.not_held(&function.to_string())?;
        ensure!(self.function(function)?.driver.as_deref() == Some("nvidia"), "{function} left its driver");
        let Sriov::Virtual { physical } = self.function(function)?.sriov else { return Err("no function".to_owned()) };
        let kind =
            self.gpu(physical)?.vgpu_types.iter().find(|kind| kind.name == type_name).ok_or("no such type")?.clone();
        let on = self.free_instance(physical, &kind);
        let Some(VgpuFunction::Vendor { current, creatable, gpu_instance }) = self.host.vgpus.get_mut(&function) else {
            return Err(format!("{function} takes no type"));
        };
        ensure!(current.is_none(), "EPERM");
        ensure!(creatable.iter().any(|listed| listed.name == type_name), "EIO: only {creatable:?}");
        (*current, *gpu_instance) = (Some(VgpuType { id: kind.id, name: kind.name }), on);
        self.list_creatable();
        Ok(())
    }

    /// The driver takes the oldest one that is free: not the one that a plan has just made, unless that is the only one.
    fn free_instance(&self, gpu: PciAddress, kind: &SupportedVgpu) -> Option<u32> {
        let carried = self.carried(gpu);
        let gpu = self.host.gpus.devices.iter().find(|found| found.address == gpu)?;
        let Mig::Supported(mig) = &gpu.mig else { return None };
        let free = |instance: &&GpuInstance| {
            Some(&instance.profile) == kind.mig_profile.as_ref()
                && carried.iter().all(|(_, on)| *on != Some(instance.id))
        };
        mig.instances.iter().find(free).map(|instance| instance.id)
    }

    /// What each empty function may become now.
    fn list_creatable(&mut self) {
        for gpu in self.host.gpus.devices.clone() {
            let carried = self.carried(gpu.address);
            let size_of = |name: &str| {
                gpu.vgpu_types.iter().find(|kind| kind.name == name).map_or(0, |kind| kind.framebuffer_mib)
            };
            let used: u64 = carried.iter().map(|(kind, _)| size_of(&kind.name)).sum();
            let mig_on = matches!(&gpu.mig, Mig::Supported(mig) if mig.current);
            let can_be = |kind: &&SupportedVgpu| match kind.mig_profile {
                Some(_) => self.free_instance(gpu.address, kind).is_some(),
                None => {
                    let mixes = gpu.heterogeneous == Some(true);
                    let same = carried.iter().all(|(other, _)| mixes || size_of(&other.name) == kind.framebuffer_mib);
                    !mig_on && same && used + kind.framebuffer_mib <= 80 * 1024
                }
            };
            let kinds = gpu.vgpu_types.iter().filter(can_be);
            let list: Vec<_> = kinds.map(|kind| VgpuType { id: kind.id, name: kind.name.clone() }).collect();
            for vf in self.functions_of(gpu.address) {
                if let Some(VgpuFunction::Vendor { creatable, .. }) = self.host.vgpus.get_mut(&vf) {
                    creatable.clone_from(&list);
                }
            }
        }
    }

    fn set_partition(&mut self, id: u32, active: bool) -> Done {
        let Fabric::Shared { partitions } = &mut self.host.fabric else { return Err("no fabric".to_owned()) };
        let at = partitions.iter().position(|partition| partition.id == id).ok_or("no such partition")?;
        let shares = |other: &u32| {
            partitions[at].gpus.iter().any(|gpu| partitions[usize::try_from(*other).unwrap()].gpus.contains(gpu))
        };
        let mut others = partitions.iter().filter(|other| other.id != id && other.active).map(|other| other.id);
        ensure!(!active || !others.any(|other| shares(&other)), "a GPU is in another partition");
        ensure!(partitions[at].active != active, "it is so already");
        partitions[at].active = active;
        Ok(())
    }
}
