//! The devices of the simulated machine, as its domains use them: a process for each domain that runs, with their files open.
//!
//! Refuses what libvirt refuses: a function that nobody bound to a VFIO driver, and what another domain has.

use std::io;

use croft_gpu::HostFs;
use croft_gpu::pci::PciAddress;
use croft_gpu_sim::kernel::{Process, SimHost};
use uuid::Uuid;

use super::rules::failed;
use super::state::{Domain, State};
use crate::hypervisor::{Error, HostDevice, Source};
use crate::reasons;

#[derive(Debug)]
pub(super) struct Machine(Option<SimHost>);

impl Machine {
    pub(super) fn new(host: Option<SimHost>) -> Self {
        Self(host)
    }

    /// Ends the emulators of domains that do not run: whoever was killed between two files left them.
    pub(super) fn reap(&self, state: &State) {
        for domain in state.domains.values().filter(|domain| !domain.power.is_on()) {
            if let Err(error) = self.end(domain.uid) {
                tracing::warn!(uid = %domain.uid, "{error}");
            }
        }
    }

    /// The emulator begins, and opens everything that the domain has.
    pub(super) fn start(&self, domain: &Domain, state: &State) -> Result<(), Error> {
        for device in &domain.devices {
            if let Err(error) = self.open(domain.uid, device, state) {
                self.end(domain.uid)?;
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn open(&self, uid: Uuid, device: &HostDevice, state: &State) -> Result<(), Error> {
        let refused = |message: String| Err(failed(reasons::DEVICE_REFUSED, message));
        let Some(host) = &self.0 else { return refused("this simulated machine has no devices".to_owned()) };
        let others = state.domains.values().filter(|other| other.uid != uid && other.power.is_on());
        let has = |other: &&Domain| other.devices.iter().any(|known| known.source == device.source);
        if let Some(other) = others.into_iter().find(has) {
            return refused(format!("{} is in use by domain croft-{}", device.alias, other.uid));
        }
        let process = emulator(uid);
        let opened = match &device.source {
            Source::Function { address, .. } | Source::NicFunction { address, .. } => {
                if driver(host, *address).as_deref() != Some("vfio-pci") {
                    return refused(format!("Unmanaged PCI device {address} must be manually detached from the host"));
                }
                host.open_vfio(&process, &address.to_string())
            }
            Source::VgpuFunction { address } => host.open_vfio(&process, &address.to_string()),
            Source::Mdev { uuid } => host.open_vfio(&process, uuid),
            Source::Usb { bus, device } => {
                let file = format!("/dev/bus/usb/{bus:03}/{device:03}");
                if !host.root().join(&file[1..]).exists() {
                    return refused(format!("Did not find USB device bus:{bus} device:{device}"));
                }
                host.hold(&process, &file)
            }
        };
        opened.map_err(|error| failed(reasons::DEVICE_REFUSED, format!("{}: vfio: {error}", device.alias)))
    }

    pub(super) fn end(&self, uid: Uuid) -> Result<(), Error> {
        self.0.as_ref().map_or(Ok(()), |host| host.end(emulator(uid).pid)).map_err(|error| broken(&error))
    }

    pub(super) fn reboot(&self) -> Result<(), Error> {
        self.0.as_ref().map_or(Ok(()), SimHost::reboot).map_err(|error| broken(&error))
    }
}

fn broken(error: &io::Error) -> Error {
    failed(reasons::HYPERVISOR_ERROR, format!("the simulated machine: {error}"))
}

/// One process for each domain, the same number for the same one.
fn emulator(uid: Uuid) -> Process {
    let pid = 1_000_000 + (uid.as_u128() % 1_000_000) as u32;
    Process::new(pid, "qemu-system-x86_64", &format!("machine-qemu\\x2d{pid}\\x2dcroft\\x2d{uid}.scope"))
}

fn driver(host: &SimHost, address: PciAddress) -> Option<String> {
    let fs = HostFs::at(host.root()).ok()?;
    fs.link_name(&format!("/sys/bus/pci/devices/{address}/driver")).ok()
}
