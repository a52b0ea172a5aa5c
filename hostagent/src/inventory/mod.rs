//! What this machine is and has: CPUs, NUMA cells, memory, huge pages, PCI and USB devices, as its kernel tells them.
//!
//! A look always returns, and what it could not read is said in `info.probe_errors`. Such a field is left at what promises
//! nothing (no CPU, no page, no device, no memory), so that a failed look never offers what somebody may hold.
//!
//! Owns neither the disk (the media directory's owner knows that) nor the hypervisor nor foreign domains. Changes nothing.

mod cpu;
mod devices;
mod memory;
mod numa;
mod system;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::path::Path;

use croft_gpu::{HostFs, chain, pci, usb};
use croft_proto::agent::v1::HostObservation;
use croft_proto::v1::{Capacity, HostInfo};

/// Everything that can be read of the machine below `root`. Blocks: seconds, if a USB device is being reset meanwhile.
///
/// Fills `capacity` but for its disk, and of `info` what is the machine's own; the rest is for others to add.
#[must_use]
pub fn observe(root: &Path) -> HostObservation {
    let mut notes = Notes::default();
    let Some(fs) = notes.keep("host", HostFs::at(root)) else {
        let info = HostInfo { driver_flavour: "none".to_owned(), probe_errors: notes.0, ..HostInfo::default() };
        return HostObservation { info: Some(info), ..HostObservation::default() };
    };

    let online = cpu::online(&fs, &mut notes);
    let memory = notes.keep("memory", memory::read(&fs));
    let cells = numa::cells(&fs, &online, memory.as_ref(), &mut notes);
    let memory_mib = memory.map_or(0, |memory| memory::placeable_mib(&memory, &cells, &mut notes));
    let capacity =
        Capacity { cells, vcpus: i64::try_from(online.len()).unwrap_or(i64::MAX), memory_mib, ..Capacity::default() };

    let functions = notes.keep("PCI devices", pci::probe(&fs));
    let usb = notes.keep("USB devices", usb::probe(&fs));
    let info = HostInfo {
        boot_id: notes.keep("boot id", system::boot_id(&fs)).unwrap_or_default(),
        os: notes.keep("operating system", system::os(&fs)).unwrap_or_default(),
        kernel: notes.keep("kernel", system::kernel(&fs)).unwrap_or_default(),
        cpu_model: notes.keep("CPU model", cpu::model(&fs)).unwrap_or_default(),
        driver_flavour: system::driver_flavour(&fs, functions.as_ref(), &mut notes).to_owned(),
        pci_devices: devices::pci(functions, &mut notes),
        usb_devices: devices::usb(usb, &mut notes),
        probe_errors: notes.0,
        ..HostInfo::default()
    };
    HostObservation { capacity: Some(capacity), info: Some(info), ..HostObservation::default() }
}

/// What could not be read, in the words an operator gets.
#[derive(Debug, Default)]
struct Notes(Vec<String>);

impl Notes {
    fn keep<T, E: Error>(&mut self, what: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(what, &chain(&error))).ok()
    }

    fn add(&mut self, what: &str, why: &str) {
        self.0.push(format!("{what}: {why}"));
    }
}
