//! What the plane is told of the devices: facts in its words, and how each stands.

mod gpu;
mod state;

use std::collections::BTreeMap;

use croft_gpu::host::Host;
use croft_gpu::pci::{PciFunction, Sriov};
use croft_gpu::plan::{self, Wish};
use croft_gpu::usb::UsbDevice;
use croft_proto::v1;
use croft_proto::v1::device::{Kind, State};

use super::find::{self, Found};
use super::helper::Looked;
use super::obstacle::Obstacle;
use super::record::{Known, Record};
use crate::clock::Wall;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// False: there is nothing to be said of any device.
    pub seen: bool,
    /// Why there was no look; empty when there was, or none yet.
    pub why: String,
    pub devices: Vec<v1::Device>,
    pub layout_generation: i64,
    /// What of that layout is not so.
    pub problems: Vec<String>,
}

impl Report {
    /// What can stand in the way of an instance. The time of a reset does not: every try of a way home may write a new one.
    #[must_use]
    pub fn without_resets(&self) -> Report {
        let mut report = self.clone();
        report.devices.iter_mut().for_each(|device| device.last_reset = None);
        report
    }
}

/// `None`: there was no look yet.
pub(super) fn of(seen: Option<Result<&Looked, &String>>, record: &Record) -> Report {
    match seen {
        None => Report::default(),
        Some(Err(why)) => Report { why: why.clone(), ..Report::default() },
        Some(Ok(looked)) => Report { seen: true, devices: devices(&looked.host, record), ..Report::default() },
    }
}

fn devices(host: &Host, record: &Record) -> Vec<v1::Device> {
    let seen = find::all(host, record).map(|(id, found)| (id.clone(), one(host, record, &id, found)));
    let mut devices: BTreeMap<String, v1::Device> = seen.collect();
    for (id, known) in &record.known {
        // What is not found is listed as it was.
        if !devices.contains_key(id)
            && let Err(obstacle) = find::device(host, record, id)
        {
            devices.insert(id.clone(), missing(record, id, known, obstacle));
        }
    }
    devices.into_values().collect()
}

fn one(host: &Host, record: &Record, id: &str, found: Found<'_>) -> v1::Device {
    let known = record.known.get(id);
    let who = known.map_or_else(|| find::who(host, found), |known| known.who.clone());
    let mut device = lasting(host, id, found);
    if let Some(known) = known {
        device = with_what_it_told(device, &known.device);
    }
    device.serial = find::serial(&who);
    let (state, obstacle) = state::of(host, record, id, found);
    (device.state, device.reason, device.message) = (state.into(), String::new(), String::new());
    if let Some(Obstacle { reason, message }) = obstacle {
        (device.reason, device.message) = (reason.to_owned(), message);
    }
    if let Found::Function(function) = found {
        device.driver = function.driver.clone().unwrap_or_default();
        if let Sriov::Physical { functions, .. } = &function.sriov {
            device.functions_count = count(functions.len());
        }
    }
    if let Some(facts) = &mut device.gpu {
        gpu::set_up(facts, host, id, state);
    }
    device.last_reset = record.resets.get(id).map(|cleaned| v1::Reset {
        method: cleaned.method.clone(),
        time: Some(Wall(cleaned.time).timestamp()),
        clean: cleaned.clean,
        message: cleaned.message.clone(),
    });
    device
}

fn missing(record: &Record, id: &str, known: &Known, obstacle: Obstacle) -> v1::Device {
    let (state, obstacle) = state::marked(record, id).unwrap_or((State::Missing, obstacle));
    v1::Device {
        state: state.into(),
        reason: obstacle.reason.to_owned(),
        message: obstacle.message,
        serial: find::serial(&known.who),
        ..known.device.clone()
    }
}

/// What keeps a device that somebody holds from being started with, if anything does.
pub(super) fn ill(host: &Host, record: &Record, id: &str) -> Option<Obstacle> {
    let found = match find::device(host, record, id) {
        Ok(found) => found,
        Err(obstacle) => return Some(state::marked(record, id).map_or(obstacle, |(_, obstacle)| obstacle)),
    };
    let (state, obstacle) = state::of(host, record, id, found);
    // What others may have or use of a GPU is no matter of who holds another piece of it.
    obstacle.filter(|_| !matches!(state, State::Available | State::InUse | State::Foreign))
}

/// What of a device does not change while it is plugged in.
pub(super) fn lasting(host: &Host, id: &str, found: Found<'_>) -> v1::Device {
    // The plane knows which host it is.
    let name = format!("hosts/-/devices/{id}");
    let serial = find::serial(&find::who(host, found));
    match found {
        Found::Function(function) => v1::Device { name, serial, ..of_function(host, function) },
        Found::Usb(device) => v1::Device { name, serial, ..of_usb(device) },
        Found::Maker => {
            let facts = gpu::of_maker(id, host.mdev_parents.get(id).map_or(&[], Vec::as_slice), host);
            v1::Device {
                name,
                kind: Kind::Gpu.into(),
                device_name: id.to_owned(),
                iommu_group: -1,
                numa_node: -1,
                functions_total: facts.1,
                gpu: Some(facts.0),
                ..v1::Device::default()
            }
        }
    }
}

/// A GPU that is passed through has lost the driver that knows it: what it told before still holds. So does the group of a
/// device that nobody can plan on for the moment.
pub(super) fn with_what_it_told(mut now: v1::Device, then: &v1::Device) -> v1::Device {
    if now.companions.is_empty() && now.iommu_group == then.iommu_group {
        now.companions.clone_from(&then.companions);
    }
    let (Some(new), Some(old)) = (&now.gpu, &then.gpu) else { return now };
    let tells = !new.product_name.is_empty() || old.product_name.is_empty();
    let gpu =
        if tells { new.clone() } else { v1::Gpu { fabric_partitions: new.fabric_partitions.clone(), ..old.clone() } };
    v1::Device { gpu: Some(gpu), ..now }
}

fn of_function(host: &Host, function: &PciFunction) -> v1::Device {
    let number = |number: Option<u32>| number.and_then(|number| i32::try_from(number).ok()).unwrap_or(-1);
    let address = function.address;
    let (mut physical, mut function_index, mut functions_total) = (String::new(), 0, 0);
    match &function.sriov {
        Sriov::None => {}
        Sriov::Physical { total, .. } => functions_total = i32::from(*total),
        Sriov::Virtual { physical: of } => {
            physical = of.to_string();
            function_index = index_of(host, function).map_or(0, i32::from);
        }
    }
    let gpu = gpu::of_function(host, function);
    if let Some((_, Some(made))) = &gpu {
        functions_total = *made;
    }
    let kind = match (&gpu, function.is_virtual()) {
        (Some(_), _) => Kind::Gpu,
        (None, true) => Kind::VirtualFunction,
        (None, false) => Kind::Function,
    };
    let companions = match plan::give_back(host, &Wish::Passthrough { address }) {
        Ok(Some(Wish::Return { homes })) => homes.into_keys().filter(|other| *other != address).collect(),
        _ => Vec::new(),
    };
    v1::Device {
        kind: kind.into(),
        id: function.id(),
        vendor_name: function.vendor_name.clone().unwrap_or_default(),
        device_name: function.device_name.clone().unwrap_or_default(),
        class: format!("{:06x}", function.class),
        slot_path: function.slot_path.clone(),
        iommu_group: number(function.iommu_group),
        companions: companions.iter().map(ToString::to_string).collect(),
        numa_node: number(function.numa_node),
        physical,
        function_index,
        functions_total,
        gpu: gpu.map(|(gpu, _)| gpu),
        ..v1::Device::default()
    }
}

fn index_of(host: &Host, function: &PciFunction) -> Option<u16> {
    let Sriov::Virtual { physical } = function.sriov else { return None };
    let physical = host.pci.devices.iter().find(|other| other.address == physical)?;
    let Sriov::Physical { functions, .. } = &physical.sriov else { return None };
    functions.iter().find(|one| one.address == function.address).map(|one| one.index)
}

fn of_usb(device: &UsbDevice) -> v1::Device {
    v1::Device {
        kind: Kind::Usb.into(),
        id: format!("{:04x}:{:04x}", device.vendor, device.product),
        vendor_name: device.vendor_name.clone().unwrap_or_default(),
        device_name: device.product_name.clone().unwrap_or_default(),
        iommu_group: -1,
        numa_node: -1,
        ..v1::Device::default()
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
