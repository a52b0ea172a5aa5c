//! What libvirt and QEMU would refuse, refused here: pure.

use croft_proto::agent::v1::DesiredInstance;
use uuid::Uuid;

use super::capacity::Capacity;
use super::state::{Domain, State};
use crate::hypervisor::Error;
use crate::hypervisor::libvirt::reasons::{CPU_UNAVAILABLE, DOMAIN_NOT_RUNNING, NO_HUGE_PAGES, STILL_RUNNING};
use crate::media::reasons::DISK_FULL;
use crate::reasons;

pub(super) fn may_define(
    wanted: &Domain,
    desired: &DesiredInstance,
    state: &State,
    capacity: &Capacity,
) -> Result<(), Error> {
    if let Some(known) = state.domains.get(&wanted.uid).filter(|known| known.title != wanted.title) {
        return Err(refused(
            reasons::DOMAIN_CONFLICT,
            format!("domain croft-{} is {}, not {}", wanted.uid, known.title, wanted.title),
        ));
    }
    let name = format!("croft-{}", wanted.uid);
    if state.host.foreign.iter().any(|foreign| foreign.name == name) {
        return Err(refused(reasons::DOMAIN_CONFLICT, format!("domain {name} is there and is not Croft's")));
    }
    if wanted.vcpus > capacity.vcpus {
        let message = format!("{} vCPUs on a host with {} CPUs", wanted.vcpus, capacity.vcpus);
        return Err(refused(reasons::HOST_TOO_SMALL, message));
    }
    if wanted.memory_mib > capacity.memory_mib {
        let message = format!("{} MiB on a host with {} MiB", wanted.memory_mib, capacity.memory_mib);
        return Err(refused(reasons::HOST_TOO_SMALL, message));
    }
    if desired.huge_page_kib > 0 {
        return Err(refused(NO_HUGE_PAGES, format!("no huge pages of {} KiB", desired.huge_page_kib)));
    }
    if let Some(pin) = desired.numa.iter().find(|pin| !capacity.has_cell(pin.cell)) {
        return Err(refused(CPU_UNAVAILABLE, format!("no NUMA cell {}", pin.cell)));
    }
    if let Some(cpu) = desired.numa.iter().flat_map(|pin| &pin.cpus).find(|cpu| !capacity.has_cpu(**cpu)) {
        return Err(refused(CPU_UNAVAILABLE, format!("no CPU {cpu}")));
    }
    if let Some(bridge) = wanted.bridges.iter().find(|bridge| !capacity.bridges.contains(bridge)) {
        return Err(refused(reasons::NETWORK_UNKNOWN, format!("no bridge {bridge}")));
    }
    has_room(wanted, state, capacity)
}

fn has_room(wanted: &Domain, state: &State, capacity: &Capacity) -> Result<(), Error> {
    if let Some(uid) = wanted.image {
        let Some(image) = state.images.get(&uid) else {
            return Err(failed(reasons::IMAGE_MISSING, format!("image {uid} is not on this host")));
        };
        if wanted.disk_gib < image.min_disk_gib {
            let message = format!("a disk of {} GiB for an image of {} GiB", wanted.disk_gib, image.min_disk_gib);
            return Err(refused(reasons::DISK_TOO_SMALL, message));
        }
    }
    let others = state.domains.values().filter(|domain| domain.uid != wanted.uid);
    let used: u64 = others.map(|domain| domain.disk_gib).sum::<u64>()
        + state.host.foreign.iter().map(|foreign| foreign.disk_gib).sum::<u64>();
    if used + wanted.disk_gib > capacity.disk_gib {
        let message =
            format!("a disk of {} GiB where {} of {} GiB are taken", wanted.disk_gib, used, capacity.disk_gib);
        return Err(refused(DISK_FULL, message));
    }
    Ok(())
}

pub(super) fn may_start(domain: &Domain, state: &State, capacity: &Capacity) -> Result<(), Error> {
    if let Some(image) = domain.image.filter(|image| !state.images.contains_key(image)) {
        return Err(failed(reasons::DISK_MISSING, format!("the disk's backing file, image {image}, is not there")));
    }
    let running = state.domains.values().filter(|other| other.power.is_on()).map(|other| other.memory_mib);
    let taken: u64 = running.chain(state.host.foreign.iter().map(|foreign| foreign.memory_mib)).sum();
    if taken + domain.memory_mib > capacity.memory_mib {
        return Err(failed(
            reasons::INSUFFICIENT_MEMORY,
            format!("can not allocate {} MiB: {taken} of {} MiB are taken", domain.memory_mib, capacity.memory_mib),
        ));
    }
    Ok(())
}

pub(super) fn may_remove(uid: Uuid, state: &State) -> Result<(), Error> {
    state.domains.get(&uid).map_or(Ok(()), must_be_off)
}

pub(super) fn must_be_off(domain: &Domain) -> Result<(), Error> {
    if domain.power.is_on() {
        return Err(failed(STILL_RUNNING, format!("domain {} runs", domain.uid)));
    }
    Ok(())
}

pub(super) fn must_be_on(domain: &Domain) -> Result<(), Error> {
    if domain.power.is_on() {
        return Ok(());
    }
    Err(failed(DOMAIN_NOT_RUNNING, format!("domain {} does not run", domain.uid)))
}

pub(super) fn refused(reason: &'static str, message: impl Into<String>) -> Error {
    Error::Refused { reason, message: message.into() }
}

pub(super) fn failed(reason: &'static str, message: impl Into<String>) -> Error {
    Error::Failed { reason, message: message.into() }
}
