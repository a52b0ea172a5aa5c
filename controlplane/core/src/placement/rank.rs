//! Which of the hosts that fit is best. The order of the fields is the policy.

use std::cmp::Reverse;

use super::{HostView, Placement, Policy, Request};
use crate::device::{self, Assignment, Mode, Wanted};

/// Greater is better.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// Pieces of GPUs that others opened already: an untouched GPU is opened last.
    joins: usize,
    /// Hosts with GPUs are left to those that ask for one.
    spares: bool,
    /// Thousandths of the scarcest resource left after the request: as they are to spread, reversed to pack.
    room: i64,
    /// Fewer neighbours to spread, more to pack.
    neighbours: i64,
    /// So that equal hosts have an order.
    id: Reverse<String>,
}

/// What [`score`] cannot pass on this host, however well it is placed there.
#[must_use]
pub fn at_best(host: &HostView, request: &Request) -> Score {
    let cut = |request: &&device::Request| matches!(request.wanted, Wanted::Mig { .. } | Wanted::Vgpu { .. });
    let slices = request.devices.requests.iter().filter(cut).count();
    let opened = slices > 0 && host.devices.0.values().any(|view| view.mode != Mode::Idle);
    scored(host, request, if opened { slices } else { 0 })
}

#[must_use]
pub fn score(host: &HostView, request: &Request, placement: &Placement) -> Score {
    let held = |one: &&Assignment| host.devices.0.get(&one.device).is_some_and(|view| view.mode != Mode::Idle);
    scored(host, request, placement.devices.iter().filter(held).count())
}

fn scored(host: &HostView, request: &Request, joins: usize) -> Score {
    let spares = request.devices.requests.is_empty() && host.devices.0.values().all(|view| view.gpu().is_none());
    let room = room(host, request);
    let id = Reverse(host.id.0.clone());
    match request.policy {
        Policy::Spread => Score { joins, spares, room, neighbours: -host.instances, id },
        Policy::Pack => Score { joins, spares, room: -room, neighbours: host.instances, id },
    }
}

fn room(host: &HostView, request: &Request) -> i64 {
    let free = host.free();
    let thousandths = |left: i64, all: i64| left.saturating_mul(1000) / all.max(1);
    let vcpus = thousandths(free.vcpus - request.vcpus, host.shared_vcpus());
    let memory = thousandths(free.memory_mib - request.memory_mib, host.capacity.memory_mib);
    let disk = thousandths(free.disk_gib - request.disk_gib, host.capacity.disk_gib);
    vcpus.min(memory).min(disk)
}
