//! Who has a device open: asked before an effect that would wait for them in the kernel, for ever if need be, or pull the
//! device from under them; and asked again after a failure, to name them.

use std::collections::BTreeSet;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::access::Result;
use super::error::StepError;
use super::standing;
use super::words;
use crate::error::IfPresent;
use crate::holders::Files;
use crate::host::Holder;
use crate::hostfs::HostFs;
use crate::kernel_use;
use crate::pci::PciAddress;
use crate::plan::Step;

/// Somebody or something that keeps a step from working.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "culprit", rename_all = "snake_case")]
pub enum Culprit {
    Process {
        pid: u32,
        command: String,
        unit: Option<String>,
        file: String,
    },
    /// Another function of the same IOMMU group, on a driver that keeps the group from being given to a guest.
    Peer {
        address: PciAddress,
        driver: String,
    },
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Of the kernel itself: the file says what for.
            Culprit::Process { pid: 0, file, .. } => write!(f, "the host uses {file}"),
            Culprit::Process { pid, command, unit: Some(unit), file } => {
                write!(f, "{command} (pid {pid}, {unit}) has {file} open")
            }
            Culprit::Process { pid, command, unit: None, file } => write!(f, "{command} (pid {pid}) has {file} open"),
            Culprit::Peer { address, driver } => write!(f, "{address}, of the same IOMMU group, is on {driver}"),
        }
    }
}

impl From<Holder> for Culprit {
    fn from(Holder { pid, command, unit, file }: Holder) -> Culprit {
        Culprit::Process { pid, command, unit, file }
    }
}

/// How long somebody who was just told to let go (the persistence daemon, a guest that was destroyed) may take to do so.
const LETTING_GO: Duration = Duration::from_secs(2);

/// Passes when the step's effect would neither wait for a process nor take something away from one.
pub fn nobody_has_it_open(step: &Step, fs: &HostFs) -> Result<()> {
    let devices = taken_away(step, fs)?;
    if devices.is_empty() {
        return Ok(());
    }
    let deadline = Instant::now() + LETTING_GO;
    loop {
        let mut holders = holders(fs, &devices)?;
        // Of those that are named a disk is claimed anyway. Here alone: a try takes the disk for a moment from whoever comes for
        // it, and that is fair only of one that is about to be taken away.
        if holders.is_empty() {
            let claims = kernel_use::claims(fs, &devices)?.into_iter();
            holders.extend(claims.map(|(_, file)| Holder { pid: 0, command: "kernel".to_owned(), unit: None, file }));
        }
        if holders.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let holders: Vec<String> = holders.into_iter().map(|holder| Culprit::from(holder).to_string()).collect();
            let words = format!("did not {}: {}", words::of(step), holders.join("; "));
            return Err(StepError::errno(words, Errno::BUSY));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// What a step takes out of somebody's hands. NVIDIA's driver waits in `remove` until the last handle is closed, vfio-pci
/// too, and `sriov_numvfs` for every guest that has a function; a reset waits for nobody.
fn taken_away(step: &Step, fs: &HostFs) -> Result<BTreeSet<String>> {
    let mut devices = BTreeSet::new();
    match step {
        Step::Unbind { address, .. } | Step::Reset { address, .. } => {
            devices.insert(address.to_string());
            // With the physical function's driver its virtual functions go, unasked.
            devices.extend(standing::functions(fs, *address)?.iter().map(PciAddress::to_string));
        }
        Step::SetVirtualFunctions { physical, to: 0, .. } => {
            devices.extend(standing::functions(fs, *physical)?.iter().map(PciAddress::to_string));
        }
        Step::SriovManage { gpu, enable } => {
            let functions = standing::functions(fs, *gpu)?;
            // Where their number is right the tool is not run, and what it left off its driver is nobody's.
            if functions.is_empty() == *enable {
                devices.insert(gpu.to_string());
                devices.extend(functions.iter().map(PciAddress::to_string));
            }
        }
        Step::ClearVgpuType { function, .. } => {
            devices.insert(function.to_string());
        }
        Step::RemoveMdev { uuid, .. } => {
            devices.insert(uuid.clone());
        }
        Step::ResetUsb { port, .. } => {
            devices.insert(port.to_string());
        }
        _ => {}
    }
    Ok(devices)
}

/// Who may be the reason that a step failed. Reads only what does not wait for the device. What cannot be found out is
/// left out: this explains a failure, and decides nothing.
pub fn culprits(step: &Step, fs: &HostFs) -> Vec<Culprit> {
    let mut devices = BTreeSet::new();
    let mut culprits = Vec::new();
    if let Some(address) = words::device(step).and_then(|device| device.parse::<PciAddress>().ok()) {
        devices.insert(address.to_string());
        devices.extend(standing::functions(fs, address).unwrap_or_default().iter().map(PciAddress::to_string));
        if let Step::Bind { driver, .. } | Step::Unbind { driver, .. } = step {
            let peers = peers(fs, address);
            devices.extend(peers.iter().map(|(peer, _)| peer.to_string()));
            // A group that is open keeps host drivers away, and a host driver keeps the group from being opened.
            let in_the_way = |peer: &String| is_vfio(driver) && !is_vfio(peer);
            culprits.extend(peers.into_iter().filter_map(|(address, driver)| {
                driver.filter(in_the_way).map(|driver| Culprit::Peer { address, driver })
            }));
        }
    }
    match step {
        Step::CreateMdev { uuid, .. } | Step::RemoveMdev { uuid, .. } => drop(devices.insert(uuid.clone())),
        Step::ResetUsb { port, .. } => drop(devices.insert(port.to_string())),
        _ => {}
    }
    culprits.extend(holders(fs, &devices).unwrap_or_default().into_iter().map(Culprit::from));
    culprits.sort();
    culprits
}

/// Who has one of these open, beside this process.
pub(super) fn holders(fs: &HostFs, devices: &BTreeSet<String>) -> Result<BTreeSet<Holder>> {
    let mut errors = Vec::new();
    let minors = crate::holders::nvidia_minors(fs, &mut errors);
    let files = Files::read(fs, &minors, &mut errors);
    let mut all = crate::holders::find(fs, &files, &mut errors);
    // Somebody may have mounted it since the plan was made.
    kernel_use::find(fs, &mut all, &mut errors);
    all.retain(|device, _| devices.contains(device));
    if let Some(error) = errors.into_iter().next() {
        // Who was not seen may be there all the same.
        return Err(error.into());
    }
    let own = std::process::id();
    Ok(all.into_values().flatten().filter(|holder| holder.pid != own).collect())
}

fn peers(fs: &HostFs, address: PciAddress) -> Vec<(PciAddress, Option<String>)> {
    let group = format!("{}/iommu_group/devices", standing::directory(address));
    let names = fs.entries(&group).unwrap_or_default();
    let peers = names.iter().filter_map(|name| name.parse().ok()).filter(|peer| *peer != address);
    peers
        .map(|peer| {
            let driver = fs.link_name(&format!("{}/driver", standing::directory(peer))).if_present();
            (peer, driver.unwrap_or_default())
        })
        .collect()
}

/// Drivers beside which the group can be given away (`driver_managed_dma`).
fn is_vfio(driver: &str) -> bool {
    driver.contains("vfio") || ["pci-stub", "pcieport"].contains(&driver)
}
