//! USB devices that could be given, and their controllers.

use croft_gpu::usb::Kind;

use super::super::{Check, Found, count};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "usb",
    looks_at: "USB controllers and what is plugged into them",
    why: "dongles and security keys are given to instances by port and serial number",
    worst: Level::Warn,
    role: None,
    look,
};

fn look(facts: &Facts) -> Found {
    const USB: u32 = 0x0c03;
    let controllers = facts.devices.pci.devices.iter().filter(|function| function.class >> 8 == USB).count();
    let devices = facts.devices.usb.devices.iter().filter(|device| device.kind == Kind::Device).count();
    let mut findings = Vec::new();
    if controllers + devices > 0 {
        findings
            .push(Finding::ok("host", format!("{}, {}", count(controllers, "controller"), count(devices, "device"))));
    }
    for error in &facts.devices.usb.errors {
        let found = format!("not seen: {}", croft_gpu::chain(error));
        findings.push(Finding::warn(
            &error.device,
            found,
            "unplug it and plug it in again, then look at the kernel's log",
        ));
    }
    Ok(findings)
}
