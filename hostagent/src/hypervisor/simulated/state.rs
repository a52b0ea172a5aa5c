//! What the simulated machine is made of, and its files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use croft_gpu::pci::PciAddress;
use croft_proto::agent::v1::{DesiredInstance, desired_image, desired_interface};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::durable::{self, Error};
use crate::hypervisor::libvirt::reasons::SPEC_INVALID;
use crate::hypervisor::{self, Attached, ForeignDomain, HostDevice, OffReason, Power, Seed, Source};
use crate::reasons;

/// Of a guest's devices of the host, one bus each; below are its disk and its interfaces.
const FIRST_GUEST_BUS: usize = 5;

#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub host: Host,
    pub domains: BTreeMap<Uuid, Domain>,
    pub images: BTreeMap<Uuid, Image>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Host {
    pub boot_id: Uuid,
    #[serde(default)]
    pub foreign: Vec<Foreign>,
    /// Instead of what the domains' disks leave.
    #[serde(default)]
    pub disk_free_gib: Option<u64>,
    #[serde(default)]
    pub stopping: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Foreign {
    pub name: String,
    pub vcpus: u64,
    pub memory_mib: u64,
    pub disk_gib: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Image {
    pub uid: Uuid,
    pub min_disk_gib: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Domain {
    pub uid: Uuid,
    /// `tenant/name`
    pub title: String,
    pub generation: i64,
    pub vcpus: u64,
    pub memory_mib: u64,
    /// 0: no disk.
    pub disk_gib: u64,
    /// The `disk_generation` that it was made for.
    #[serde(default)]
    pub disk_generation: i64,
    /// What is written on it, in one number: another disk has another one.
    #[serde(default)]
    pub disk: Uuid,
    pub image: Option<Uuid>,
    pub macs: Vec<String>,
    pub bridges: Vec<String>,
    pub hostname: String,
    /// What the guest reads of it.
    #[serde(default)]
    pub seed: Seed,
    #[serde(default)]
    pub devices: Vec<HostDevice>,
    /// Does not let go of a device that it is asked to give up.
    #[serde(default)]
    pub clings: bool,
    pub power: PowerState,
    /// By itself, as asked, or by the reset button, since it was defined.
    #[serde(default)]
    pub restarts: u64,
    /// Ignores every request to stop or restart.
    #[serde(default)]
    pub deaf: bool,
    /// Has no guest agent.
    #[serde(default)]
    pub silent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PowerState {
    Running,
    Paused(Paused),
    Off(Off),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Paused {
    OutOfSpace,
    IoError,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Off {
    Unknown,
    Shutdown,
    Destroyed,
    Crashed,
}

impl Default for Host {
    fn default() -> Self {
        Self { boot_id: Uuid::now_v7(), foreign: Vec::new(), disk_free_gib: None, stopping: false }
    }
}

impl PowerState {
    pub(super) fn is_on(self) -> bool {
        !matches!(self, Self::Off(_))
    }
}

impl Domain {
    pub(super) fn from_desired(
        desired: &DesiredInstance,
        seed: &Seed,
        devices: &[HostDevice],
    ) -> Result<Self, hypervisor::Error> {
        let invalid = |message: String| hypervisor::Error::Refused { reason: SPEC_INVALID, message };
        let uid = |text: &str| Uuid::try_parse(text).map_err(|error| invalid(format!("uid {text:?}: {error}")));
        let count = |name: &str, value: i64| u64::try_from(value).map_err(|_| invalid(format!("{name} is {value}")));
        let some = |name: &str, value: i64| match count(name, value)? {
            0 => Err(invalid(format!("{name} is 0"))),
            some => Ok(some),
        };
        let image = desired.image.as_ref();
        let boots_from_kernel =
            matches!(image.and_then(|image| image.boot.as_ref()), Some(desired_image::Boot::Kernel(_)));
        if desired.disks.len() > 1 || (desired.disks.is_empty() && !boots_from_kernel) {
            return Err(invalid(format!("{} disks where one root disk is expected", desired.disks.len())));
        }
        Ok(Self {
            uid: uid(&desired.uid)?,
            title: format!("{}/{}", desired.tenant, desired.name),
            generation: desired.generation,
            vcpus: some("vcpus", desired.vcpus.into())?,
            memory_mib: some("memory_mib", desired.memory_mib)?,
            disk_gib: count("size_gib", desired.disks.first().map_or(0, |disk| disk.size_gib))?,
            disk_generation: desired.disk_generation,
            disk: Uuid::now_v7(),
            image: image.map(|image| uid(&image.uid)).transpose()?,
            macs: desired.interfaces.iter().map(|interface| interface.mac.clone()).collect(),
            bridges: desired
                .interfaces
                .iter()
                .filter_map(|interface| match &interface.network {
                    Some(desired_interface::Network::Bridge(bridge)) => Some(bridge.bridge.clone()),
                    _ => None,
                })
                .collect(),
            seed: seed.clone(),
            hostname: hostname(seed).unwrap_or_else(|| desired.name.clone()),
            devices: devices.to_vec(),
            clings: false,
            power: PowerState::Off(Off::Unknown),
            restarts: 0,
            deaf: false,
            silent: false,
        })
    }

    pub(super) fn seen(&self) -> hypervisor::Domain {
        let power = match self.power {
            PowerState::Running => Power::Running,
            PowerState::Paused(paused) => {
                let (reason, message) = match paused {
                    Paused::OutOfSpace => (reasons::OUT_OF_SPACE, "no space left on device"),
                    Paused::IoError => (reasons::IO_ERROR, "input/output error"),
                };
                Power::Paused { reason: reason.to_owned(), message: message.to_owned() }
            }
            PowerState::Off(Off::Unknown) => Power::Off(OffReason::Unknown),
            PowerState::Off(Off::Shutdown) => Power::Off(OffReason::Shutdown),
            PowerState::Off(Off::Destroyed) => Power::Off(OffReason::Destroyed),
            PowerState::Off(Off::Crashed) => Power::Off(OffReason::Crashed),
        };
        let devices = self.devices.iter().enumerate().map(|(at, device)| Attached {
            alias: device.alias.clone(),
            usb: match device.source {
                Source::Usb { bus, device } => Some((bus, device)),
                _ => None,
            },
            guest: match device.source {
                Source::Usb { .. } => None,
                _ => Some(PciAddress {
                    domain: 0,
                    bus: u8::try_from(FIRST_GUEST_BUS + at).unwrap_or(u8::MAX),
                    device: 0,
                    function: 0,
                }),
            },
        });
        let Self { uid, generation, disk_generation, .. } = *self;
        hypervisor::Domain { uid, power, generation, disk_generation, devices: devices.collect() }
    }

    /// Does it react to a request to stop or restart?
    pub(super) fn hears(&self) -> bool {
        self.power == PowerState::Running && !self.deaf
    }
}

impl Foreign {
    pub(super) fn seen(&self) -> ForeignDomain {
        let Self { name, vcpus, memory_mib, disk_gib } = self.clone();
        ForeignDomain { name, vcpus, memory_mib, disk_gib }
    }
}

impl State {
    pub(super) fn load(directory: &Path) -> Result<Self, Error> {
        let host = read(&directory.join("host.json"))?;
        let state = Self {
            domains: read_all(&directory.join("domains"), |domain: &Domain| domain.uid)?,
            images: read_all(&directory.join("images"), |image: &Image| image.uid)?,
            host: host.clone().unwrap_or_default(),
        };
        if host.is_none() {
            state.put_host(directory)?;
        }
        Ok(state)
    }

    pub(super) fn put(&mut self, directory: &Path, domain: Domain) -> Result<(), Error> {
        write(&directory.join("domains").join(format!("{}.json", domain.uid)), &domain)?;
        self.domains.insert(domain.uid, domain);
        Ok(())
    }

    pub(super) fn remove(&mut self, directory: &Path, uid: Uuid) -> Result<(), Error> {
        durable::remove(&directory.join("domains").join(format!("{uid}.json")))?;
        self.domains.remove(&uid);
        Ok(())
    }

    pub(super) fn put_image(&mut self, directory: &Path, image: Image) -> Result<(), Error> {
        write(&directory.join("images").join(format!("{}.json", image.uid)), &image)?;
        self.images.insert(image.uid, image);
        Ok(())
    }

    pub(super) fn remove_image(&mut self, directory: &Path, uid: Uuid) -> Result<(), Error> {
        durable::remove(&directory.join("images").join(format!("{uid}.json")))?;
        self.images.remove(&uid);
        Ok(())
    }

    pub(super) fn put_host(&self, directory: &Path) -> Result<(), Error> {
        write(&directory.join("host.json"), &self.host)
    }
}

/// `local-hostname` of the seed's meta-data, as a guest would take it.
fn hostname(seed: &Seed) -> Option<String> {
    let line = seed.meta_data.lines().find_map(|line| line.trim().strip_prefix("local-hostname:"))?;
    Some(line.trim().trim_matches(['"', '\'']).to_owned()).filter(|name| !name.is_empty())
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| failed(path, "encode", error.into()))?;
    durable::write(path, &text)
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, Error> {
    match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| failed(path, "decode", error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, "read", error)),
    }
}

fn read_all<T: for<'de> Deserialize<'de>>(directory: &Path, uid: fn(&T) -> Uuid) -> Result<BTreeMap<Uuid, T>, Error> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(directory).map_err(|error| failed(directory, "list", error))? {
        let path = entry.map_err(|error| failed(directory, "list", error))?.path();
        if path.extension().is_some_and(|extension| extension == "json")
            && let Some(value) = read::<T>(&path)?
        {
            all.insert(uid(&value), value);
        }
    }
    Ok(all)
}

fn failed(path: &Path, verb: &'static str, source: std::io::Error) -> Error {
    Error { path: PathBuf::from(path), verb, source }
}
