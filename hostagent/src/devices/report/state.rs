//! How a device stands. The first that holds: marked, not to be read, faulty, held by an instance, used by others, not to be
//! given as the host is built.

use croft_gpu::gpu::{Gpu, Mig, VgpuSupport};
use croft_gpu::host::{Fabric, Holder, Host, VgpuFunction};
use croft_gpu::pci::{PciAddress, PciFunction, Sriov};
use croft_gpu::plan::{self, Reason, Wish};
use croft_proto::v1::device::State;

use super::super::find::{self, Found};
use super::super::obstacle::{Obstacle, word};
use super::super::owners;
use super::super::record::{LayoutMode, MarkKind, Piece, Record};
use crate::reasons;

type Standing = (State, Option<Obstacle>);

pub(super) fn of(host: &Host, record: &Record, id: &str, found: Found<'_>) -> Standing {
    if let Some(message) = &record.corrupt {
        return (State::Quarantined, Some(Obstacle::new(reasons::JOURNAL_CORRUPT, message.clone())));
    }
    if let Some((state, obstacle)) = marked(record, id) {
        return (state, Some(obstacle));
    }
    match found {
        Found::Function(function) => of_function(host, record, id, function),
        Found::Usb(device) => of_usb(host, record, id, &device.port.to_string()),
        Found::Maker => (State::Available, None),
    }
}

pub(super) fn marked(record: &Record, id: &str) -> Option<(State, Obstacle)> {
    let mark = record.marks.get(id)?;
    let state = match mark.kind {
        MarkKind::Quarantined => State::Quarantined,
        MarkKind::Stuck { .. } => State::Stuck,
        MarkKind::Changed => State::Changed,
    };
    let reason = word(&mark.reason).unwrap_or(reasons::DEVICE_QUARANTINED);
    Some((state, Obstacle::new(reason, mark.message.clone())))
}

fn of_function(host: &Host, record: &Record, id: &str, function: &PciFunction) -> Standing {
    // A virtual function is of its card; but a card in quarantine takes nothing from anybody.
    if let Sriov::Virtual { physical } = function.sriov
        && let Some((state, obstacle)) = marked(record, &physical.to_string())
        && !(state == State::Quarantined && record.is_held(id))
    {
        return (state, Some(obstacle));
    }
    let gpu = host.gpus.devices.iter().find(|gpu| gpu.address == function.address);
    if let Some(fault) = gpu.and_then(|gpu| gpu.health.faults.first()) {
        let reason = word(&fault.reason).unwrap_or(reasons::DEVICE_FAULTY);
        return (State::Unhealthy, Some(Obstacle::new(reason, fault.message.clone())));
    }
    if let Some(why) = find::unread(host, id) {
        return (State::Missing, Some(Obstacle::new(reasons::DEVICE_MISSING, why)));
    }
    if record.holder_of_function(function.address).is_some() {
        return (State::InUse, None);
    }
    if owners::usb_devices(record, host).any(|(_, device)| device.controller.as_deref() == Some(id)) {
        let message = "an instance holds a USB device behind it".to_owned();
        return (State::InUse, Some(Obstacle::new(Reason::DeviceOwned.word(), message)));
    }
    if let Some(who) = strangers(host, record, function, gpu) {
        return (State::Foreign, Some(Obstacle::new(reasons::DEVICE_FOREIGN, who)));
    }
    let none = unproven(host, record, function, gpu).or_else(|| unfinished(record, function));
    let none = none.or_else(|| find::card_down(host, function));
    match none.or_else(|| useless(host, function, gpu)) {
        Some(obstacle) => (State::Unusable, Some(obstacle)),
        None => (State::Available, None),
    }
}

fn of_usb(host: &Host, record: &Record, id: &str, port: &str) -> Standing {
    if record.is_held(id) {
        return (State::InUse, None);
    }
    match held_by(host, port) {
        Some(who) => (State::Foreign, Some(Obstacle::new(reasons::DEVICE_FOREIGN, format!("{id} is used by {who}")))),
        None => (State::Available, None),
    }
}

/// Who uses it, or a piece of it, and is not an instance of Croft's.
fn strangers(host: &Host, record: &Record, function: &PciFunction, gpu: Option<&Gpu>) -> Option<String> {
    let address = function.address;
    if record.layout.modes.get(&address) == Some(&LayoutMode::Foreign) {
        return Some("the layout of this host leaves it to others".to_owned());
    }
    let persists = gpu.is_some_and(|gpu| gpu.persistence == Some(true));
    let daemon = |holder: &&Holder| persists && holder.command.starts_with("nvidia-persiste");
    let mut holders = host.holders.get(&address.to_string()).into_iter().flatten();
    if let Some(holder) = holders.find(|holder| !daemon(holder)) {
        return Some(format!("{address} is used by {}", who(holder)));
    }
    let gpu = gpu?;
    foreign_slice(host, record, function, gpu)
}

/// A piece of the GPU that exists, or is open, and that the journal gives to nobody.
fn foreign_slice(host: &Host, record: &Record, function: &PciFunction, gpu: &Gpu) -> Option<String> {
    let ours = |piece: Piece| record.pieces().any(|(_, _, held)| *held == piece);
    let functions: Vec<PciAddress> = match &function.sriov {
        Sriov::Physical { functions, .. } => functions.iter().map(|one| one.address).collect(),
        _ => Vec::new(),
    };
    for vf in functions.iter().copied().filter(|vf| !ours(Piece::Function(*vf))) {
        if let Some(VgpuFunction::Vendor { current: Some(current), .. }) = host.vgpus.get(&vf) {
            return Some(format!("{vf} carries a vGPU {} that no instance holds", current.name));
        }
        if let Some(who) = held_by(host, &vf.to_string()) {
            return Some(format!("{vf} is used by {who}"));
        }
    }
    let on_it = |parent: &str| parent.parse().is_ok_and(|at| at == function.address || functions.contains(&at));
    let mdevs = host.mdevs.iter().filter(|mdev| on_it(&mdev.parent));
    if let Some(mdev) = mdevs.into_iter().find(|mdev| !ours(Piece::Mdev(mdev.uuid.clone()))) {
        return Some(format!("{} carries the mediated device {} that no instance holds", mdev.parent, mdev.uuid));
    }
    let Mig::Supported(mig) = &gpu.mig else { return None };
    let held = |instance: &croft_gpu::gpu::GpuInstance| {
        record.pieces().any(|(_, _, piece)| match piece {
            Piece::GpuInstance { gpu: of, piece } => {
                *of == gpu.address && (&piece.profile, piece.placement) == (&instance.profile, instance.placement)
            }
            Piece::Function(_) | Piece::Mdev(_) => false,
        })
    };
    let stray = mig.instances.iter().find(|instance| !held(instance))?;
    Some(format!("its GPU instance {} at {} is no instance's", stray.profile, stray.placement.start))
}

/// A card that is silent after a boot, and what the look found that may be why.
fn unproven(host: &Host, record: &Record, function: &PciFunction, gpu: Option<&Gpu>) -> Option<Obstacle> {
    let Obstacle { reason, mut message } = find::unproven(record, &record.boot_id, &function.address.to_string())?;
    let silent = match gpu.map(|gpu| &gpu.mig) {
        Some(Mig::Unknown { why }) => Some(why.clone()),
        _ => None,
    };
    let causes = silent.into_iter().chain(useless(host, function, gpu).map(|obstacle| obstacle.message));
    causes.for_each(|why| message = format!("{message}; as this look found it: {why}"));
    Some(Obstacle::new(reason, message))
}

/// A GPU whose change of mode was cut short: brought back at the next look, and until then nothing can be made of it.
fn unfinished(record: &Record, function: &PciFunction) -> Option<Obstacle> {
    let off = function.driver.as_deref().is_none_or(|driver| driver == "pci-pf-stub");
    let message = || format!("a change of the mode of {} was cut short; the agent finishes it", function.address);
    let unfinished = off && record.modes.contains_key(&function.address);
    unfinished.then(|| Obstacle::new(Reason::DriverUnsuitable.word(), message()))
}

/// Why it cannot be given away as this host is built.
fn useless(host: &Host, function: &PciFunction, gpu: Option<&Gpu>) -> Option<Obstacle> {
    let address = function.address;
    if let (Some(_), Fabric::Unavailable { why }) = (gpu, &host.fabric) {
        let message = format!("whole GPUs of this host share NVSwitches: {why}");
        return Some(Obstacle::new(Reason::FabricManagerUnavailable.word(), message));
    }
    let refusal = plan::give_back(host, &Wish::Passthrough { address }).err()?;
    // Mediated devices have groups of their own, and need no IOMMU on the host.
    let cut = gpu.is_some_and(|gpu| gpu.vgpu == VgpuSupport::Mdev)
        || matches!(host.vgpus.get(&address), Some(VgpuFunction::Mdev { .. }));
    (!cut).then(|| refusal.into())
}

fn held_by(host: &Host, device: &str) -> Option<String> {
    host.holders.get(device)?.first().map(who)
}

fn who(holder: &Holder) -> String {
    if holder.pid == 0 {
        return format!("this host itself: {}", holder.file);
    }
    let unit = holder.unit.as_ref().map(|unit| format!(", {unit}")).unwrap_or_default();
    format!("{} (pid {}{unit}) by {}", holder.command, holder.pid, holder.file)
}
