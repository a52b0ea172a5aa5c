//! What every planner asks first: was the device seen, whose is it, and does a process have it open?
//!
//! Refuses wherever the answer is not known: an error that names a device forbids planning on it, and a function that is
//! listed nowhere is not free.

use crate::gpu::{Gpu, Mig, MigState, VgpuSupport};
use crate::host::{Holder, Host, Mdev, VgpuFunction};
use crate::pci::{PciAddress, PciFunction, Sriov};

use super::Owners;
use super::refusal::{Reason, Refusal};

const NVIDIA: u16 = 0x10de;
pub(super) const NVIDIA_DRIVER: &str = "nvidia";
pub(super) const VFIO_DRIVER: &str = "vfio-pci";

/// One look at the host, and the journal beside it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look<'a> {
    pub host: &'a Host,
    pub owners: &'a Owners,
    /// Is what is planned a way back? What only describes a device is none of its business.
    pub gives_back: bool,
}

impl<'a> Look<'a> {
    /// A function that was read without any error that matters.
    pub fn function(self, address: PciAddress) -> Result<&'a PciFunction, Refusal> {
        self.readable(address)?;
        let function = self.host.pci.devices.iter().find(|function| function.address == address);
        function.ok_or_else(|| self.bus_unread(address).unwrap_or_else(|| Refusal::not_seen(address)))
    }

    /// Of a bus that could not be looked at nothing is known to be gone.
    fn bus_unread(self, address: PciAddress) -> Option<Refusal> {
        let error = self.host.pci.errors.iter().find(|error| error.device == "pci")?;
        let message = format!("{address} could not be looked for: {}", crate::chain(error));
        Some(Refusal::new(Reason::DeviceNotSeen, address, message, "nothing is planned until the bus can be read"))
    }

    /// Nothing is planned on what an error names, but for a way back where it is only a description that is missing.
    fn readable(self, device: impl std::fmt::Display) -> Result<(), Refusal> {
        let text = device.to_string();
        let Host { pci, gpus, errors, .. } = self.host;
        let all = pci.errors.iter().chain(&gpus.errors).chain(errors);
        let mut all = all.filter(|error| !(self.gives_back && error.only_describes()));
        let Some(error) = all.find(|error| error.device.split_whitespace().any(|word| word == text)) else {
            return Ok(());
        };
        let message = format!("{text} could not be read: {}", crate::chain(error));
        Err(Refusal::new(Reason::DeviceNotSeen, text, message, "nothing is planned on it until it can be read"))
    }

    /// A whole part of the look (`holders`, `mdev`) that failed says nothing of any device.
    fn part(self, part: &str, device: &str) -> Result<(), Refusal> {
        let Some(error) = self.host.errors.iter().find(|error| error.device == part) else { return Ok(()) };
        let message = format!("cannot tell who uses {device}: {}", crate::chain(error));
        Err(Refusal::new(Reason::DeviceNotSeen, device, message, "nothing is planned until it can be read"))
    }

    /// The GPU that the function is; `None`: it is another device. A display function of NVIDIA's is a GPU even when nobody
    /// could tell anything of it as one.
    pub fn gpu(self, function: &PciFunction) -> Result<Option<&'a Gpu>, Refusal> {
        let address = function.address;
        let gpu = self.host.gpus.devices.iter().find(|gpu| gpu.address == address);
        let display = function.vendor == NVIDIA && function.class >> 16 == 0x03;
        if gpu.is_none() && display && !matches!(function.sriov, Sriov::Virtual { .. }) {
            let message = format!("{address} is a GPU of NVIDIA's, and nothing is known of it as one");
            return Err(Refusal::new(Reason::GpuModeUnknown, address, message, "see the host's probe errors"));
        }
        Ok(gpu)
    }

    /// A device that must be a GPU on NVIDIA's driver.
    pub fn driven_gpu(self, address: PciAddress) -> Result<(&'a PciFunction, &'a Gpu), Refusal> {
        let function = self.function(address)?;
        let Some(gpu) = self.gpu(function)? else {
            let message = format!("{address} is no GPU of NVIDIA's");
            return Err(Refusal::new(Reason::DeviceUnsuitable, address, message, "name a GPU"));
        };
        if function.driver.as_deref() != Some(NVIDIA_DRIVER) {
            let message = format!("{address} is {}, not on {NVIDIA_DRIVER}", on_driver(function));
            let fix = format!("return it to {NVIDIA_DRIVER} first");
            return Err(Refusal::new(Reason::DriverUnsuitable, address, message, fix));
        }
        Ok((function, gpu))
    }

    /// Nothing new is put on a GPU with a fault.
    pub fn healthy(self, gpu: &Gpu) -> Result<(), Refusal> {
        let Some(fault) = gpu.health.faults.first() else { return Ok(()) };
        let message = format!("{} is unhealthy: {}: {}", gpu.address, fault.reason, fault.message);
        Err(Refusal::new(Reason::GpuUnhealthy, gpu.address, message, "take another GPU; reset or replace this one"))
    }

    /// The virtual functions that a physical one has now. Fails where one of them could not be read.
    pub fn virtual_functions(self, physical: &PciFunction) -> Result<Vec<&'a PciFunction>, Refusal> {
        match &physical.sriov {
            Sriov::Physical { functions, .. } => functions.iter().map(|vf| self.function(vf.address)).collect(),
            Sriov::None | Sriov::Virtual { .. } => Ok(Vec::new()),
        }
    }

    pub fn owner(self, key: &str) -> Option<&'a str> {
        self.owners.functions.get(key).map(String::as_str)
    }

    /// May the asker have it made for him? If it is nobody's, or his.
    pub fn not_anothers(self, device: impl std::fmt::Display) -> Result<(), Refusal> {
        let key = device.to_string();
        match self.owner(&key) {
            Some(owner) if self.owners.asker.as_deref() != Some(owner) => Err(owned(&key, owner)),
            _ => Ok(()),
        }
    }

    /// May the asker have it taken away? Only if it is his: an instance takes nothing away that the journal does not give it,
    /// and the host itself nothing that is an instance's.
    pub fn his_own(self, device: impl std::fmt::Display) -> Result<(), Refusal> {
        let key = device.to_string();
        match (self.owner(&key), &self.owners.asker) {
            (owner, asker) if owner == asker.as_deref() => Ok(()),
            (Some(owner), _) => Err(owned(&key, owner)),
            (None, asker) => {
                let message = format!("by the journal {key} is nobody's, and {} asks", asker.as_deref().unwrap_or("-"));
                Err(Refusal::new(Reason::DeviceOwned, key, message, "ask for the host itself, if nobody is to have it"))
            }
        }
    }

    /// Who has it open. Fails where nobody could tell.
    pub fn holders(self, device: impl std::fmt::Display) -> Result<&'a [Holder], Refusal> {
        let text = device.to_string();
        self.part("holders", &text)?;
        Ok(self.host.holders.get(&text).map_or(&[], Vec::as_slice))
    }

    pub fn not_held(self, device: impl std::fmt::Display) -> Result<(), Refusal> {
        match self.holders(&device)? {
            [] => Ok(()),
            holders => Err(held(&device.to_string(), holders.iter())),
        }
    }

    /// As [`Self::not_held`], of what the journal may give the asker already: then its guest may have it.
    pub fn not_held_but_by_guest(self, device: impl std::fmt::Display) -> Result<(), Refusal> {
        let text = device.to_string();
        let guest = |holder: &&Holder| self.owner(&text).is_some_and(|owner| is_guest_of(owner, holder));
        let mut others = self.holders(&text)?.iter().filter(|holder| !guest(holder)).peekable();
        if others.peek().is_none() { Ok(()) } else { Err(held(&text, others)) }
    }

    /// As [`Self::not_held`], of a GPU whose persistence is turned off before: its daemon lets go of it then.
    pub fn not_held_but_for_persistence(self, gpu: &Gpu) -> Result<(), Refusal> {
        let daemon = |holder: &&Holder| gpu.persistence == Some(true) && holder.command.starts_with("nvidia-persiste");
        let mut others = self.holders(gpu.address)?.iter().filter(|holder| !daemon(holder)).peekable();
        if others.peek().is_none() { Ok(()) } else { Err(held(&gpu.address.to_string(), others)) }
    }

    /// The mediated devices of a parent.
    pub fn mdevs_on(self, parent: impl std::fmt::Display) -> Result<Vec<&'a Mdev>, Refusal> {
        let parent = parent.to_string();
        Ok(self.mdevs(&parent)?.iter().filter(|mdev| mdev.parent == parent).collect())
    }

    pub fn mdev(self, uuid: &str) -> Result<Option<&'a Mdev>, Refusal> {
        Ok(self.mdevs(uuid)?.iter().find(|mdev| mdev.uuid == uuid))
    }

    /// All of them. Fails where one could not be read: it may be anybody's.
    fn mdevs(self, device: &str) -> Result<&'a [Mdev], Refusal> {
        let unread = self.host.errors.iter().find(|error| error.device.split_whitespace().next() == Some("mdev"));
        unread.map_or(Ok(()), |error| self.part(&error.device, device)).map(|()| self.host.mdevs.as_slice())
    }

    /// What of a GPU is in use, piece by piece, in words. Empty: a change that all of it feels disturbs nobody.
    pub fn pieces_in_use(self, function: &PciFunction, gpu: &Gpu) -> Result<Vec<String>, Refusal> {
        let mut uses = Vec::new();
        for vf in self.virtual_functions(function)? {
            let carried = match self.host.vgpus.get(&vf.address) {
                Some(VgpuFunction::Vendor { current: Some(current), .. }) => Some(format!("vGPU {}", current.name)),
                Some(_) => None,
                None if gpu.vgpu == VgpuSupport::None || vf.driver.as_deref() != Some(NVIDIA_DRIVER) => None,
                None => {
                    let message = format!("cannot tell whether {} carries a vGPU", vf.address);
                    let fix = "see the host's probe errors";
                    return Err(Refusal::new(Reason::GpuModeUnknown, function.address, message, fix));
                }
            };
            uses.extend(self.use_of(vf.address, carried)?);
        }
        let parents = self.virtual_functions(function)?.into_iter().map(|vf| vf.address).chain([function.address]);
        for parent in parents {
            for mdev in self.mdevs_on(parent)? {
                uses.extend(self.use_of(&mdev.uuid, Some(format!("mediated device of {parent}")))?);
            }
        }
        for held in self.owners.gpu_instances.iter().filter(|held| held.gpu == function.address) {
            uses.push(format!(
                "GPU instance {} at {} of {}",
                held.piece.profile, held.piece.placement.start, held.owner
            ));
        }
        Ok(uses)
    }

    fn use_of(self, device: impl std::fmt::Display, carried: Option<String>) -> Result<Option<String>, Refusal> {
        let owner = self.owner(&device.to_string()).map(|owner| format!("of {owner}"));
        let held = self.holders(&device)?.first().map(|holder| format!("open in {}", who(holder)));
        let parts: Vec<_> = carried.into_iter().chain(owner).chain(held).collect();
        Ok((!parts.is_empty()).then(|| format!("{device} ({})", parts.join(", "))))
    }
}

/// The MIG state of a GPU that must be known to be changed; `None`: the board has none.
pub(super) fn mig_state(gpu: &Gpu) -> Result<Option<&MigState>, Refusal> {
    match &gpu.mig {
        Mig::Supported(state) => Ok(Some(state)),
        Mig::Unsupported => Ok(None),
        Mig::Unknown { why } => {
            let message = format!("cannot tell how {} is carved: {why}", gpu.address);
            Err(Refusal::new(Reason::GpuModeUnknown, gpu.address, message, "see the host's probe errors"))
        }
    }
}

/// Does nothing but VFIO drive it? Vendors' variants (`mlx5_vfio_pci`, `nvgrace_gpu_vfio_pci`) are as good.
pub(super) fn on_vfio(function: &PciFunction) -> bool {
    function.driver.as_deref().is_some_and(|driver| driver.replace('_', "-").ends_with(VFIO_DRIVER))
}

pub(super) fn on_driver(function: &PciFunction) -> String {
    function.driver.as_ref().map_or_else(|| "on no driver".to_owned(), |driver| format!("on {driver}"))
}

/// `qemu-system-x86_64 (pid 4711, machine-qemu.scope) by /dev/vfio/12`; the kernel's own uses have no process.
pub(super) fn who(holder: &Holder) -> String {
    if holder.pid == 0 {
        return format!("the {}: {}", holder.command, holder.file);
    }
    let unit = holder.unit.as_ref().map(|unit| format!(", {unit}")).unwrap_or_default();
    format!("{} (pid {}{unit}) by {}", holder.command, holder.pid, holder.file)
}

/// A QEMU, and not another's: the scope that libvirt makes for one has the guest's name in its own, with `-` written `\x2d`.
fn is_guest_of(owner: &str, holder: &Holder) -> bool {
    let anothers = |unit: &String| unit.ends_with(".scope") && !unit.replace("\\x2d", "-").contains(owner);
    holder.pid != 0 && holder.command.starts_with("qemu") && !holder.unit.as_ref().is_some_and(anothers)
}

fn held<'h>(device: &str, holders: impl Iterator<Item = &'h Holder>) -> Refusal {
    let names: Vec<_> = holders.map(who).collect();
    let message = format!("{device} is held open by {}", names.join(", "));
    Refusal::new(Reason::DeviceHeldOpen, device, message, "end the process, or shut down its guest")
}

fn owned(device: &str, owner: &str) -> Refusal {
    let message = format!("{device} is {owner}'s");
    Refusal::new(Reason::DeviceOwned, device, message, format!("take another, or wait until {owner} gives it back"))
}
