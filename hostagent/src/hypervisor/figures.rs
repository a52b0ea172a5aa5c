//! What the domains that run have used, for graphs: counters since each was started, and what it was given.
//!
//! Nothing is decided by them. What a hypervisor does not tell of is `None` or not in the list, never 0.

use std::time::Duration;

use uuid::Uuid;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    pub uid: Uuid,
    pub vcpus: u64,
    /// Of host CPUs: the guest and its emulator.
    pub cpu: Duration,
    /// That its vCPUs were ready to run and had no host CPU: what a guest calls steal.
    pub cpu_wait: Option<Duration>,
    pub memory_bytes: u64,
    /// Of the host's memory that it has in hand.
    pub resident_bytes: Option<u64>,
    pub disks: Vec<Disk>,
    pub interfaces: Vec<Interface>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Disk {
    /// `vda`
    pub name: String,
    pub read: Io,
    pub written: Io,
    /// What the guest sees.
    pub capacity_bytes: Option<u64>,
    /// What it takes on the host.
    pub allocation_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Io {
    pub requests: u64,
    pub bytes: u64,
    /// That requests took, all added up.
    pub spent: Duration,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Interface {
    /// The host's end: `vnet3`.
    pub name: String,
    /// As the guest sees it: what the host's end sent is what the guest received.
    pub received: Traffic,
    pub sent: Traffic,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Traffic {
    pub bytes: u64,
    pub packets: u64,
    pub drops: u64,
    pub errors: u64,
}
