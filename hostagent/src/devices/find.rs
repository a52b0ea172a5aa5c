//! Finding in a look what the plane calls a device, and whether it is still the one that was meant.

use croft_gpu::host::Host;
use croft_gpu::identity::{Identity, Sameness};
use croft_gpu::pci::{PciAddress, PciFunction, Sriov};
use croft_gpu::plan::Reason;
use croft_gpu::plan::usb::{self, UsbIdentity};
use croft_gpu::usb::{Kind, UsbDevice};

use super::obstacle::Obstacle;
use super::record::{Known, Mark, Record, Who};
use crate::reasons;

/// What a board is made of and no guest has: bridges (NVSwitches among them), timers and interrupt controllers, the IOMMU,
/// the SMBus.
fn is_chassis(class: u32) -> bool {
    const BRIDGE: u32 = 0x06;
    class >> 16 == BRIDGE || matches!(class >> 8, 0x0800..=0x0804 | 0x0806 | 0x0c05)
}

const NETWORK: u32 = 0x02;

#[derive(Debug, Clone, Copy)]
pub(super) enum Found<'a> {
    Function(&'a PciFunction),
    Usb(&'a UsbDevice),
    /// A maker of mediated devices that is no PCI function.
    Maker,
}

/// Every device that is reported, each under one name: not the board's own parts, not hubs, and not the virtual functions of
/// GPUs, which are pieces of these.
pub(super) fn all<'a>(host: &'a Host, record: &Record) -> impl Iterator<Item = (String, Found<'a>)> {
    let functions = host.pci.devices.iter().filter(|function| is_reported(host, function));
    let functions = functions.map(|function| (function.address.to_string(), Found::Function(function)));
    let usb = host.usb.devices.iter().filter(|device| device.kind == Kind::Device);
    let usb = usb.filter_map(|device| Some((usb_name(host, record, device)?, Found::Usb(device))));
    functions.chain(usb).chain(host.mdev_parents.keys().map(|name| (name.clone(), Found::Maker)))
}

/// A USB device goes by its port; but one of which somebody holds something, or is still to do something, keeps the name that it
/// had then, wherever it is plugged in meanwhile. `None`: its port's name is kept by another.
fn usb_name(host: &Host, record: &Record, device: &UsbDevice) -> Option<String> {
    let is = |who: &Who| match who {
        Who::Usb(identity) => usb::find(&host.usb.devices, identity).is_ok_and(|found| std::ptr::eq(found, device)),
        Who::Pci(_) | Who::Named => false,
    };
    let mut kept = record.known.iter().filter(|(id, known)| record.is_spoken_for(id) && is(&known.who));
    if let Some((id, _)) = kept.next() {
        return Some(id.clone());
    }
    let port = usb::port_of(device)?;
    let anothers = record.is_spoken_for(&port) && record.known.contains_key(&port);
    (!anothers).then_some(port)
}

/// What is marked of a device, and of the card of which it is a function.
pub(super) fn marks<'r>(host: &Host, record: &'r Record, id: &str) -> impl Iterator<Item = (&'r String, &'r Mark)> {
    let address = id.parse::<PciAddress>().ok();
    let function = host.pci.devices.iter().find(|function| Some(function.address) == address);
    let card = function.and_then(|function| match function.sriov {
        Sriov::Virtual { physical } => Some(physical.to_string()),
        Sriov::None | Sriov::Physical { .. } => None,
    });
    let card = card.and_then(|card| record.marks.get_key_value(&card));
    record.marks.get_key_value(id).into_iter().chain(card)
}

fn is_reported(host: &Host, function: &PciFunction) -> bool {
    let of_gpu = match function.sriov {
        Sriov::Virtual { physical } => is_gpu(host, physical),
        Sriov::None | Sriov::Physical { .. } => false,
    };
    !is_chassis(function.class) && !of_gpu
}

pub(super) fn is_gpu(host: &Host, address: PciAddress) -> bool {
    host.gpus.devices.iter().any(|gpu| gpu.address == address)
}

/// Who it says it is now. A GPU's driver adds its UUID.
pub(super) fn who(host: &Host, found: Found<'_>) -> Who {
    match found {
        Found::Function(function) => {
            let gpu = host.gpus.devices.iter().find(|gpu| gpu.address == function.address);
            Who::Pci(gpu.map_or_else(|| Identity::of(function), |gpu| gpu.identity.clone()))
        }
        Found::Usb(device) => Who::Usb(UsbIdentity::of(device)),
        Found::Maker => Who::Named,
    }
}

/// The device, or why it is not to be had.
pub(super) fn device<'a>(host: &'a Host, record: &Record, id: &str) -> Result<Found<'a>, Obstacle> {
    let found = all(host, record).find(|(other, _)| other == id).map(|(_, found)| found);
    found.ok_or_else(|| {
        let why = match record.known.get(id).map(|known| &known.who) {
            Some(Who::Usb(identity)) => usb::find(&host.usb.devices, identity).err(),
            Some(Who::Pci(_) | Who::Named) | None => None,
        };
        missing(host, id, why.as_ref().map_or("it is not on this host now", |refusal| &refusal.message))
    })
}

/// A USB device that was looked for and is not plugged in. One that could not be read, or told from its twin, may be there.
pub(super) fn is_unplugged(host: &Host, record: &Record, id: &str) -> bool {
    let Some(Known { who: Who::Usb(identity), .. }) = record.known.get(id) else { return false };
    let found = usb::find(&host.usb.devices, identity);
    unread(host, id).is_none() && found.is_err_and(|refusal| refusal.reason == Reason::UsbNotFound)
}

/// The MAC address of a virtual function is set through its card, by one of the card's interfaces that is up. Croft does not
/// switch it on by itself: a host that nobody set up for that wire might take an address on it.
pub(super) fn card_down(host: &Host, function: &PciFunction) -> Option<Obstacle> {
    let Sriov::Virtual { physical } = function.sriov else { return None };
    let card = host.pci.devices.iter().find(|card| card.address == physical)?;
    let first = card.interfaces.first().filter(|_| card.interfaces.iter().all(|interface| !interface.up))?;
    let message = format!(
        "{} of {physical} is down, and its functions get no MAC address: `ip link set {} up`",
        first.name, first.name
    );
    (function.class >> 16 == NETWORK).then(|| Obstacle::new(reasons::DEVICE_CARD_DOWN, message))
}

fn missing(host: &Host, id: &str, otherwise: &str) -> Obstacle {
    match unread(host, id) {
        Some(why) => Obstacle::new(reasons::DEVICE_MISSING, format!("{id} could not be read: {why}")),
        None => Obstacle::new(reasons::DEVICE_MISSING, format!("{id}: {otherwise}")),
    }
}

/// The error that stands for the device in a look: it is there, and nothing is known of it.
pub(super) fn unread(host: &Host, id: &str) -> Option<String> {
    let mut errors = host.pci.errors.iter().chain(&host.usb.errors).chain(&host.gpus.errors).chain(&host.errors);
    let whole = if id.starts_with("usb-") { "usb" } else { "pci" };
    let is_of = |device: &str| device == whole || device.split_whitespace().any(|word| word == id);
    errors.find(|error| is_of(&error.device)).map(|error| croft_gpu::chain(error))
}

/// How what was found stands to what is remembered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    Same,
    /// It does not say who it is at the moment.
    Unproven,
    /// That very card, behind another port of the board.
    Moved(String),
    Other(String),
}

pub(super) fn likeness(known: &Who, now: &Who) -> Likeness {
    match (known, now) {
        (Who::Pci(then), Who::Pci(now)) => match then.compare(now) {
            Sameness::Same => Likeness::Same,
            Sameness::Unproven => Likeness::Unproven,
            Sameness::Swapped { remembered, found } => Likeness::Other(format!(
                "another card is in its slot: {} was remembered, {} is there",
                words(&remembered),
                words(&found)
            )),
            Sameness::Moved { remembered, found } => {
                let message = format!("it sits at {} now, and was at {}", found.slot_path, remembered.slot_path);
                if says_the_same(then, now) { Likeness::Moved(message) } else { Likeness::Other(message) }
            }
        },
        // Which device it is decides where it is looked for: what is found is the one.
        (Who::Usb(_), Who::Usb(_)) | (Who::Named, Who::Named) => Likeness::Same,
        (_, _) => Likeness::Other("it is a device of another kind now".to_owned()),
    }
}

/// Is what was found what is remembered? The message says how it differs.
pub(super) fn differs(known: &Known, now: &Who) -> Option<String> {
    match likeness(&known.who, now) {
        Likeness::Same | Likeness::Unproven => None,
        Likeness::Moved(message) | Likeness::Other(message) => Some(message),
    }
}

/// Does the hardware say anything of itself but what kind it is?
pub(super) fn says_who(who: &Who) -> bool {
    match who {
        Who::Pci(identity) => identity.serial.is_some() || identity.uuid.is_some(),
        Who::Usb(identity) => identity.serial.is_some(),
        Who::Named => false,
    }
}

/// By a word of the hardware itself, not by where it is.
pub(super) fn says_the_same(then: &Identity, now: &Identity) -> bool {
    let words = [(&then.serial, &now.serial), (&then.uuid, &now.uuid)];
    then.pci_id == now.pci_id
        && words.iter().any(|(then, now)| then.is_some() && then == now)
        && words.iter().all(|(then, now)| then.is_none() || now.is_none() || then == now)
}

/// A card that has not said who it is since the machine was switched on may be another one of its kind.
pub(super) fn unproven(record: &Record, boot_id: &str, id: &str) -> Option<Obstacle> {
    let known = record.known.get(id).filter(|known| known.proven != boot_id)?;
    let Who::Pci(identity) = &known.who else { return None };
    let message = format!(
        "{id} has not said yet who it is in this boot, and was {}: it does with its driver; or `croft device release` it if \
         you know that it is the same",
        words(identity)
    );
    Some(Obstacle::new(reasons::DEVICE_UNPROVEN, message))
}

pub(super) fn words(identity: &Identity) -> String {
    let serial = identity.uuid.as_ref().or(identity.serial.as_ref());
    serial.map_or_else(|| identity.pci_id.clone(), |serial| format!("{} ({serial})", identity.pci_id))
}

/// What the hardware says of itself, in the one word that the plane compares.
pub(super) fn serial(who: &Who) -> String {
    match who {
        Who::Pci(identity) => identity.uuid.clone().or_else(|| identity.serial.clone()),
        Who::Usb(identity) => identity.serial.clone(),
        Who::Named => None,
    }
    .unwrap_or_default()
}

/// What to remember once `now` was taken for the same.
pub(super) fn updated(then: &Who, now: Who) -> Who {
    match (then, now) {
        (Who::Pci(then), Who::Pci(now)) => Who::Pci(then.updated(&now)),
        // A stick keeps the port by which it goes.
        (Who::Usb(then), Who::Usb(now)) if then.is_same(&now) => Who::Usb(then.clone()),
        (_, now) => now,
    }
}
