//! Resetting a device between two tenants, and looking whether it came back.
//!
//! ```text
//!  methods ─► next one that the kernel offers and the bus allows ─► write `reset` ─► readable? link back? ─yes─► clean
//!                ▲                                                                        │ no
//!                └────────────────────────────────────────────────────────────────────────┘   none left: doubt
//! ```
//! Which methods a device may be reset by, and in which order, is the plan's to say ([`crate::plan`]); that the bus is still
//! the device's own is looked at again here. Doubt means quarantine: that is for whoever reads the [`ResetRecord`].

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::access::{Access, Result};
use super::error::StepError;
use super::guard::{self, Culprit};
use super::standing::present;
use crate::error::IfPresent;
use crate::hostfs::HostFs;
use crate::pci::{Link, PciAddress};

/// What is kept of a reset. Times are microseconds since 1970, by the clock of whoever applied the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetRecord {
    /// A PCI address, or the USB port in which it was.
    pub device: String,
    /// The one that worked.
    pub method: Option<String>,
    pub started: i64,
    pub ended: i64,
    pub outcome: ResetOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ResetOutcome {
    /// Reset, and it answers as before.
    Clean,
    Doubtful {
        why: String,
    },
}

/// Resets by the first of `methods` that works, and says which. Leaves `reset_method` at that one.
pub fn run(access: &Access, address: PciAddress, methods: &[String]) -> Result<String> {
    let fs = &access.fs;
    let directory = present(fs, address)?;
    let method_file = format!("{directory}/reset_method");
    // A guest may have left it in a state in which it does not say so: it must afterwards.
    let before = Link::read(fs, &directory).unwrap_or(None);
    let Some(order) = fs.attribute(&method_file).if_present()? else {
        // Kernels before 5.15 choose for themselves.
        fs.write(&format!("{directory}/reset"), "1")?;
        came_back(access, &directory, before)?;
        return Ok("default".to_owned());
    };
    let offered: Vec<&str> = order.split_whitespace().collect();
    let mut tried = Vec::new();
    let mut worked = None;
    for method in methods {
        let attempt = || -> Result<()> {
            if !offered.contains(&method.as_str()) {
                return Err(StepError::new("this kernel does not offer it"));
            }
            if method.ends_with("bus") && own_bus(fs, address, &directory)? == Bus::Shared {
                whole_bus(fs, &directory)?;
                return came_back(access, &directory, before);
            }
            fs.write(&method_file, method)?;
            fs.write(&format!("{directory}/reset"), "1")?;
            came_back(access, &directory, before)
        };
        match attempt() {
            Ok(()) => {
                worked = Some(method.clone());
                break;
            }
            Err(error) => tried.push(error.context(method)),
        }
    }
    worked.ok_or_else(|| {
        let texts: Vec<&str> = tried.iter().map(|error| error.message.as_str()).collect();
        let texts = if texts.is_empty() { "no method is safe for it".to_owned() } else { texts.join("; ") };
        let last = tried.last();
        StepError {
            errno: last.and_then(|error| error.errno),
            ..StepError::new(format!("{address} was not reset: {texts}"))
        }
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bus {
    /// The function is alone on it.
    Own,
    /// With functions of its own IOMMU group: the audio function of the same card.
    Shared,
}

/// A function's own `bus` method is for one that is alone. The kernel lists it for the first function of a card all the same
/// (it had not seen the others yet), and answers EINVAL when it is chosen: then only the bridge can reset the bus.
fn whole_bus(fs: &HostFs, directory: &str) -> Result<()> {
    let by_bridge = format!("{directory}/../reset_subordinate");
    if !fs.has(&by_bridge)? {
        return Err(StepError::new("several functions are on its bus, and this kernel cannot reset those together"));
    }
    Ok(fs.write(&by_bridge, "1")?)
}

/// A bus reset reaches every function on the bus: none of them may be somebody else's, or have come into use since the plan.
fn own_bus(fs: &HostFs, address: PciAddress, directory: &str) -> Result<Bus> {
    let group = |path: &str| fs.link_name(&format!("{path}/iommu_group")).if_present();
    let own = group(directory)?;
    let prefix = address.to_string();
    let prefix = &prefix[..prefix.rfind(':').unwrap_or(0) + 1];
    let mut neighbours = BTreeSet::new();
    for name in fs.entries("/sys/bus/pci/devices")? {
        if !name.starts_with(prefix) || name == address.to_string() {
            continue;
        }
        let path = format!("/sys/bus/pci/devices/{name}");
        if own.is_none() || group(&path)? != own {
            return Err(StepError::new(format!("{name} is on the same bus")));
        }
        let driver = fs.link_name(&format!("{path}/driver")).if_present()?;
        if let Some(driver) = driver.filter(|driver| !driver.contains("vfio")) {
            return Err(StepError::new(format!("{name}, on the same bus, is on {driver}")));
        }
        neighbours.insert(name);
    }
    if neighbours.is_empty() {
        return Ok(Bus::Own);
    }
    match guard::holders(fs, &neighbours)?.into_iter().next() {
        Some(holder) => Err(StepError::new(format!("of the same bus, {}", Culprit::from(holder)))),
        None => Ok(Bus::Shared),
    }
}

fn came_back(access: &Access, directory: &str, before: Option<Link>) -> Result<()> {
    let deadline = Instant::now() + access.patience;
    loop {
        match answers(&access.fs, directory, before) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn answers(fs: &HostFs, directory: &str, before: Option<Link>) -> Result<()> {
    // `vendor` and `device` are the kernel's memory; `config` asks the device.
    let config = fs.read_bytes(&format!("{directory}/config"))?;
    let Some((ids, command)) = config.get(..4).zip(config.get(4..8)) else {
        return Err(StepError::new(format!("its configuration space has {} bytes", config.len())));
    };
    if command == [0xff; 4] {
        return Err(StepError::new("it does not answer any more: its configuration space reads as 0xffffffff"));
    }
    // The ids of a virtual function read as 0xffff on every one of them (SR-IOV 1.1, 3.4.1): the command register is all
    // that there is to see, and it is what the kernel waits for, too (`pci_dev_wait`).
    if !fs.has(&format!("{directory}/physfn"))? {
        let id = |file: &str| fs.parse(&format!("{directory}/{file}"), "an id", crate::bus::parse_hex::<u16>);
        let (vendor, device) = (id("vendor")?, id("device")?);
        let found = (u16::from_le_bytes([ids[0], ids[1]]), u16::from_le_bytes([ids[2], ids[3]]));
        if found != (vendor, device) {
            let words = format!("it was {vendor:04x}:{device:04x} and answers as {:04x}:{:04x}", found.0, found.1);
            return Err(StepError::new(words));
        }
    }
    match (before, Link::read(fs, directory)?) {
        (Some(before), Some(after)) if after.width >= before.width => Ok(()),
        (Some(before), after) => {
            let after = after.map_or_else(|| "no".to_owned(), |after| after.width.to_string());
            Err(StepError::new(format!("its link came back with {after} of {} lanes", before.width)))
        }
        (None, _) => Ok(()),
    }
}
