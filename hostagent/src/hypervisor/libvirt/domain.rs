//! A domain as Croft defines it; [`super::definition`] writes its XML.
//!
//! One machine for everybody: q35, virtio, one serial console, a guest agent channel, entropy, and room for devices of the
//! host to come while it runs (a USB controller, free PCI Express ports). What a server guest has no use for and an attacker
//! might is left out: graphics, sound, memory balloon. The emulator never restarts a crashed
//! guest and nothing is ever autostarted: the driver of the instance decides.
//!
//! Pure: paths and addresses were made by others (`super::define`).

use std::path::PathBuf;

use uuid::Uuid;

use crate::hypervisor::HostDevice;
use crate::media::overlay::Format;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainType {
    Kvm,
    /// TCG.
    Qemu,
}

impl DomainType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Domain {
    pub uid: Uuid,
    pub generation: i64,
    pub disk_generation: i64,
    pub tenant: String,
    pub name: String,
    pub domain_type: DomainType,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub huge_page_kib: Option<u64>,
    /// Empty: floats over the host.
    pub cells: Vec<Cell>,
    pub boot: Boot,
    pub disks: Vec<Disk>,
    pub interfaces: Vec<Interface>,
    /// Found and bound by others.
    pub devices: Vec<HostDevice>,
    pub serial: PathBuf,
    pub console_log: PathBuf,
}

/// The part of a guest that lives on one NUMA cell of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    pub host_cell: u32,
    pub vcpus: std::ops::Range<u32>,
    pub cpus: CellCpus,
    pub memory_mib: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CellCpus {
    /// Each vCPU floats over these.
    Any(Vec<u32>),
    /// One host CPU per vCPU, in order.
    Each(Vec<u32>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// UEFI without Secure Boot, its variables in this file.
    Uefi {
        nvram: PathBuf,
    },
    Bios,
    Kernel {
        kernel: PathBuf,
        initrd: Option<PathBuf>,
        cmdline: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    pub path: PathBuf,
    pub format: Format,
    /// The image below, if any.
    pub backing: Option<(PathBuf, Format)>,
    pub access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    ReadWrite,
    ReadOnly,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub mac: String,
    pub link: Link,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// The tenant's NAT network; the guest may use this address and no other.
    Tenant {
        network: String,
        ip: std::net::Ipv4Addr,
    },
    Bridge {
        bridge: String,
        kind: BridgeKind,
        vlan: Option<u16>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BridgeKind {
    Linux,
    OpenVSwitch,
}

/// `0-3,8` from numbers in any order.
pub fn cpu_list(cpus: &[u32]) -> String {
    let mut cpus = cpus.to_vec();
    cpus.sort_unstable();
    cpus.dedup();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let text = |(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
#[path = "domain_tests.rs"]
mod tests;
