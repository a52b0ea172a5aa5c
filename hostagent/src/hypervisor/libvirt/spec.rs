//! From a desired instance to a [`Domain`]: what the plane says, checked against what this host is.
//!
//! Pure, so that every refusal can be tested without a host. The plane has validated all of it; a host checks again what
//! would hurt *it*, because an agent may be older or newer than its plane.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use croft_proto::agent::v1::desired_image::Boot as DesiredBoot;
use croft_proto::agent::v1::desired_interface::Network as DesiredNetwork;
use croft_proto::agent::v1::{DesiredInstance, NumaPin};
use croft_proto::v1::image::Firmware;
use uuid::Uuid;

use super::domain::{Access, Boot, BridgeKind, Cell, CellCpus, Disk, Domain, DomainType, Interface, Link};
use super::network;
use super::paths::Paths;
use super::reasons::{CPU_UNAVAILABLE, SPEC_INVALID};
use super::record::{self, Record};
use crate::hypervisor::Error;
use crate::media::Ready;
use crate::media::overlay::Format;
use crate::reasons::HOST_TOO_SMALL;

/// What this host is, as far as a domain depends on it.
#[derive(Debug, Clone)]
pub struct Facts {
    pub domain_type: DomainType,
    /// CPUs of each NUMA cell; empty where the kernel knows no cells.
    pub cells: BTreeMap<u32, Vec<u32>>,
    /// All the memory that this host has.
    pub memory_mib: u64,
}

pub fn invalid(message: impl Into<String>) -> Error {
    Error::Refused { reason: SPEC_INVALID, message: message.into() }
}

/// The instance's uid.
pub fn uid(desired: &DesiredInstance) -> Result<Uuid, Error> {
    Uuid::parse_str(&desired.uid).map_err(|_| invalid(format!("the uid `{}` is not a UUID", desired.uid)))
}

/// What will be made for it.
pub fn record(desired: &DesiredInstance) -> Result<Record, Error> {
    let image = desired.image.as_ref().map(|image| &image.uid).filter(|uid| !uid.is_empty());
    let image =
        image.map(|uid| Uuid::parse_str(uid).map_err(|_| invalid(format!("the image's uid `{uid}` is not a UUID"))));
    let mut interfaces = Vec::new();
    for interface in &desired.interfaces {
        let network = match &interface.network {
            Some(DesiredNetwork::TenantNat(nat)) if nat.tenant_uid.is_empty() => {
                return Err(invalid(format!("interface {}: its network names no tenant", interface.mac)));
            }
            Some(DesiredNetwork::TenantNat(nat)) => record::Network::Tenant(nat.tenant_uid.clone()),
            Some(DesiredNetwork::Bridge(bridge)) => record::Network::Bridge(bridge_name(&bridge.bridge)?),
            None => return Err(invalid(format!("interface {}: it has no network", interface.mac))),
        };
        interfaces.push(record::Interface { mac: mac(&interface.mac)?, network });
    }
    let disk_generation = desired.disk_generation;
    Ok(Record { image: image.transpose()?, interfaces, disk_was_made: false, disk_generation })
}

/// Looks a bridge up, for a VLAN or none.
pub type InspectBridge<'a> = dyn Fn(&str, Option<u16>) -> Result<BridgeKind, Error> + 'a;

/// How a domain finds its links: the address reserved for a MAC, the kind of a bridge.
pub struct Links<'a> {
    pub address: &'a dyn Fn(&str) -> Option<Ipv4Addr>,
    pub bridge: &'a InspectBridge<'a>,
}

pub fn domain(
    desired: &DesiredInstance,
    ready: &Ready,
    facts: &Facts,
    paths: &Paths,
    links: &Links<'_>,
) -> Result<Domain, Error> {
    let uid = uid(desired)?;
    let vcpus = u32::try_from(desired.vcpus).ok().filter(|n| (1..=512).contains(n));
    let vcpus = vcpus.ok_or_else(|| invalid(format!("vcpus is {}, not 1 to 512", desired.vcpus)))?;
    let memory_mib = u64::try_from(desired.memory_mib).ok().filter(|mib| *mib > 0);
    let memory_mib = memory_mib.ok_or_else(|| invalid(format!("memory_mib is {}", desired.memory_mib)))?;
    if memory_mib > facts.memory_mib {
        let message = format!("it asks for {memory_mib} MiB of memory and this host has {} MiB", facts.memory_mib);
        return Err(Error::Refused { reason: HOST_TOO_SMALL, message });
    }
    let huge_page_kib = u64::try_from(desired.huge_page_kib).ok().filter(|kib| *kib > 0);
    if huge_page_kib.is_some_and(|kib| memory_mib * 1024 % kib != 0) {
        let page = desired.huge_page_kib;
        return Err(invalid(format!("memory_mib {memory_mib} is not a whole number of pages of {page} KiB")));
    }
    let interfaces = desired.interfaces.iter().map(|desired| {
        let mac = mac(&desired.mac)?;
        let link = match &desired.network {
            Some(DesiredNetwork::TenantNat(nat)) => Link::Tenant {
                network: network::Names::of(&nat.tenant_uid).network,
                ip: (links.address)(&mac)
                    .ok_or_else(|| invalid(format!("interface {mac}: no address was reserved")))?,
            },
            Some(DesiredNetwork::Bridge(bridge)) => {
                let vlan = vlan(bridge.vlan)?;
                let name = bridge_name(&bridge.bridge)?;
                Link::Bridge { kind: (links.bridge)(&name, vlan)?, bridge: name, vlan }
            }
            None => return Err(invalid(format!("interface {mac}: it has no network"))),
        };
        Ok(Interface { mac, link })
    });
    Ok(Domain {
        uid,
        generation: desired.generation,
        disk_generation: desired.disk_generation,
        tenant: desired.tenant.clone(),
        name: desired.name.clone(),
        domain_type: facts.domain_type,
        vcpus,
        memory_mib,
        huge_page_kib,
        cells: cells(&desired.numa, vcpus, facts)?,
        boot: boot(desired, ready, uid, paths)?,
        disks: disks(desired, ready, uid, paths)?,
        interfaces: interfaces.collect::<Result<_, Error>>()?,
        devices: Vec::new(),
        serial: paths.serial(uid),
        console_log: paths.console(uid),
    })
}

fn boot(desired: &DesiredInstance, ready: &Ready, uid: Uuid, paths: &Paths) -> Result<Boot, Error> {
    let image = desired.image.as_ref().ok_or_else(|| invalid("it has no image"))?;
    match (&image.boot, image.firmware()) {
        (Some(DesiredBoot::Kernel(kernel)), _) => Ok(Boot::Kernel {
            kernel: ready.kernel.clone().ok_or_else(|| invalid("its kernel was not fetched"))?,
            initrd: ready.initrd.clone(),
            cmdline: kernel.cmdline.clone(),
        }),
        (Some(DesiredBoot::Disk(_)), Firmware::Bios) => Ok(Boot::Bios),
        (Some(DesiredBoot::Disk(_)), Firmware::Uefi | Firmware::Unspecified) => {
            Ok(Boot::Uefi { nvram: paths.nvram(uid) })
        }
        (None, _) => Err(invalid("its image has neither a disk nor a kernel")),
    }
}

fn disks(desired: &DesiredInstance, ready: &Ready, uid: Uuid, paths: &Paths) -> Result<Vec<Disk>, Error> {
    if desired.disks.len() > 1 {
        return Err(invalid(format!("{} disks; this agent makes one, the root disk", desired.disks.len())));
    }
    let backing = ready.disk.as_ref().map(|disk| (disk.path.clone(), disk.format));
    if backing.is_some() && desired.disks.is_empty() {
        return Err(invalid("its image has a disk and it asks for none"));
    }
    let root = desired.disks.first().map(|_| Disk {
        path: paths.disk(uid),
        format: Format::Qcow2,
        backing,
        access: Access::ReadWrite,
    });
    let seed = Disk { path: paths.seed(uid), format: Format::Raw, backing: None, access: Access::ReadOnly };
    Ok(root.into_iter().chain([seed]).collect())
}

/// Where the plane placed it, checked against the cells that there are.
fn cells(pins: &[NumaPin], vcpus: u32, facts: &Facts) -> Result<Vec<Cell>, Error> {
    let unavailable = |message: String| Err(Error::Refused { reason: CPU_UNAVAILABLE, message });
    if pins.is_empty() || facts.cells.is_empty() {
        return Ok(Vec::new());
    }
    let mut cells = Vec::new();
    let mut next = 0;
    for (at, pin) in pins.iter().enumerate() {
        let host_cell = u32::try_from(pin.cell).unwrap_or(u32::MAX);
        let Some(of_cell) = facts.cells.get(&host_cell) else {
            return unavailable(format!("it was placed on NUMA cell {}, which this host does not have", pin.cell));
        };
        let cpus: Vec<u32> = pin.cpus.iter().map(|cpu| u32::try_from(*cpu).unwrap_or(u32::MAX)).collect();
        if let Some(cpu) = cpus.iter().find(|cpu| !of_cell.contains(cpu)) {
            return unavailable(format!("it was placed on CPU {cpu}, which is not online in cell {host_cell}"));
        }
        // Without CPUs of its own a cell takes an even share of the vCPUs.
        let left = vcpus - next;
        let share = match cpus.len() {
            0 => left.div_ceil((pins.len() - at) as u32),
            given => given as u32,
        };
        if share == 0 || share > left {
            return Err(invalid(format!("its pins name more CPUs than its {vcpus} vCPUs")));
        }
        let cpus = if cpus.is_empty() { CellCpus::Any(of_cell.clone()) } else { CellCpus::Each(cpus) };
        let memory_mib = u64::try_from(pin.memory_mib).unwrap_or(0);
        cells.push(Cell { host_cell, vcpus: next..next + share, cpus, memory_mib });
        next += share;
    }
    if next != vcpus {
        return Err(invalid(format!("its pins name {next} CPUs for {vcpus} vCPUs")));
    }
    Ok(cells)
}

/// A unicast MAC address in its usual spelling.
pub fn mac(text: &str) -> Result<String, Error> {
    let wrong = || invalid(format!("`{text}` is not a unicast MAC address such as 02:00:00:00:00:01"));
    let octets: Vec<u8> = text
        .split(':')
        .map(|part| if part.len() == 2 { u8::from_str_radix(part, 16).map_err(|_| wrong()) } else { Err(wrong()) })
        .collect::<Result<_, _>>()?;
    if octets.len() != 6 || octets[0] & 1 != 0 || octets.iter().all(|octet| *octet == 0) {
        return Err(wrong());
    }
    Ok(text.to_ascii_lowercase())
}

fn vlan(id: i32) -> Result<Option<u16>, Error> {
    match id {
        0 => Ok(None),
        1..=4094 => Ok(u16::try_from(id).ok()),
        _ => Err(invalid(format!("VLAN {id} is not 1 to 4094"))),
    }
}

/// It becomes a path below /sys/class/net.
fn bridge_name(name: &str) -> Result<String, Error> {
    let fits = (1..16).contains(&name.len()) && name != "." && name != "..";
    if fits && name.chars().all(|c| c.is_ascii_graphic() && c != '/' && c != ':') {
        return Ok(name.to_owned());
    }
    Err(invalid(format!("`{name}` is not the name of a bridge")))
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
