//! What simulated guests use: each idles along at the same pace, counted from when this process opened the machine.

use std::time::Duration;

use super::state::{Domain, PowerState};
use crate::hypervisor::figures::{Disk, Figures, Interface, Io, Traffic};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// `None`: it does not run.
pub(super) fn of(domain: &Domain, age: Duration) -> Option<Figures> {
    if domain.power != PowerState::Running {
        return None;
    }
    let ticks = u64::try_from(age.as_millis()).unwrap_or(u64::MAX) / 100;
    let io = |requests: u64| Io { requests, bytes: requests * 4096, spent: Duration::from_micros(requests * 200) };
    let traffic = |packets: u64| Traffic { packets, bytes: packets * 300, drops: 0, errors: 0 };
    let memory_bytes = domain.memory_mib * MIB;
    let interface = |(at, _): (usize, &String)| Interface {
        name: format!("sim{at}"),
        received: traffic(ticks * 2),
        sent: traffic(ticks),
    };
    Some(Figures {
        uid: domain.uid,
        vcpus: domain.vcpus,
        // A twentieth of each vCPU.
        cpu: Duration::from_millis(ticks * 5 * domain.vcpus),
        cpu_wait: Some(Duration::from_micros(ticks * 50)),
        memory_bytes,
        resident_bytes: Some(memory_bytes / 2),
        disks: vec![Disk {
            name: "vda".to_owned(),
            read: io(ticks),
            written: io(ticks * 2),
            capacity_bytes: Some(domain.disk_gib * GIB),
            allocation_bytes: Some(domain.disk_gib * GIB / 4),
        }],
        interfaces: domain.macs.iter().enumerate().map(interface).collect(),
    })
}
