//! `sriov-manage`, and what it leaves behind when it does not come to its end.
//!
//! ```text
//!  -d: functions off nvidia ─┐
//!  -e: ──────────────────────┴► unbindLock ─► off nvidia ─► on pci-pf-stub ─► count ─► off it ─► on nvidia ─► -e: functions on
//! ```
//! The tool goes on when a part of it fails, and may be killed anywhere. So the GPU is put back on its driver before it is run,
//! and functions that it left without one are bound here: run again, it finds their number right and does nothing.

use std::collections::BTreeMap;
use std::thread;

use rustix::io::Errno;

use super::access::{Access, Result};
use super::effect::unbind;
use super::error::StepError;
use super::standing;
use super::work::Remembered;
use crate::error::IfPresent;
use crate::hostfs::HostFs;
use crate::pci::PciAddress;

/// The driver under which the tool changes the number.
const STUB: &str = "pci-pf-stub";

/// Every virtual function of a GPU on its driver, or none; the GPU on its driver in any case.
pub fn run(access: &Access, gpu: PciAddress, enable: bool) -> Result<()> {
    let fs = &access.fs;
    home(fs, gpu)?;
    if is_run(fs, gpu, enable)? {
        // One that was cut short may have turned it on since the plan turned it off.
        let refused = set_persistence(access, &[(gpu, false)].into());
        refused.into_iter().next().map_or(Ok(()), |(_, _, error)| Err(error))?;
        tool(access, gpu, enable)?;
    }
    if enable {
        for function in standing::functions(fs, gpu)? {
            if off_drivers(fs, function)? {
                take_off_stub(fs, function)?;
                bind(fs, function)?;
            }
        }
    }
    Ok(())
}

/// Is the function where only a tool cut short leaves it: on no driver, or on the stub?
pub fn off_drivers(fs: &HostFs, function: PciAddress) -> Result<bool> {
    Ok(standing::driver(fs, function)?.is_none_or(|driver| driver == STUB))
}

fn take_off_stub(fs: &HostFs, function: PciAddress) -> Result<()> {
    if standing::driver(fs, function)?.as_deref() == Some(STUB) { unbind(fs, function) } else { Ok(()) }
}

/// Back on nvidia, if the tool left it elsewhere; with the GPU's id, which the stub would take all of its kind by, forgotten.
fn home(fs: &HostFs, gpu: PciAddress) -> Result<()> {
    if !off_drivers(fs, gpu)? {
        return Ok(());
    }
    take_off_stub(fs, gpu)?;
    let id = |file: &str| fs.attribute(&format!("{}/{file}", standing::directory(gpu)));
    let ids = format!("{} {}", id("vendor")?.trim_start_matches("0x"), id("device")?.trim_start_matches("0x"));
    match fs.write(&format!("/sys/bus/pci/drivers/{STUB}/remove_id"), &ids) {
        // It was not there: cut short before it came, or after it went.
        Err(error) if error.errno() == Some(Errno::NODEV.raw_os_error()) => {}
        removed => drop(removed.if_present()?),
    }
    bind(fs, gpu)?;
    match standing::driver(fs, gpu)?.as_deref() {
        Some("nvidia") => Ok(()),
        _ => Err(StepError::new(format!("{gpu} was left without a driver, and nvidia does not take it"))),
    }
}

/// Without an override for the moment, which would stay if this were cut short in its turn.
fn bind(fs: &HostFs, function: PciAddress) -> Result<()> {
    Ok(fs.write("/sys/bus/pci/drivers/nvidia/bind", &function.to_string())?)
}

/// It fails while anybody has an NVML session open, and monitoring opens one every few seconds: so it is tried again.
fn tool(access: &Access, gpu: PciAddress, enable: bool) -> Result<()> {
    const TRIES: u32 = 5;
    for _ in 1..TRIES {
        match access.tools.sriov_manage(gpu, enable) {
            Err(error) if error.errno == Some(Errno::BUSY.raw_os_error()) => thread::sleep(access.patience / 2),
            result => return result,
        }
    }
    access.tools.sriov_manage(gpu, enable)
}

/// Where the number of functions is right the tool does nothing.
fn is_run(fs: &HostFs, gpu: PciAddress, enable: bool) -> Result<bool> {
    Ok(standing::functions(fs, gpu)?.is_empty() == enable)
}

/// Which GPUs have it on: the tool turns it on for all of them, also when it fails. Of this one it is off, as the plan has made
/// it.
pub fn persistence(access: &Access, gpu: PciAddress, enable: bool) -> Result<Vec<Remembered>> {
    let mut found = Vec::new();
    if !is_run(&access.fs, gpu, enable)? {
        return Ok(found);
    }
    let names = access.fs.entries("/proc/driver/nvidia/gpus").if_present()?.unwrap_or_default();
    let mut others = names.iter().filter_map(|name| name.parse().ok()).filter(|other| *other != gpu).peekable();
    if others.peek().is_some() {
        let nvml = again(|| access.nvml.open())?;
        for gpu in others {
            // One that does not even say it, having fallen off its bus, has nothing to be put back.
            if let Ok(on) = again(|| nvml.persistence(gpu)) {
                found.push(Remembered::Persistence { gpu, on });
            }
        }
    }
    found.push(Remembered::Persistence { gpu, on: false });
    Ok(found)
}

/// In one session: to open one takes seconds where no GPU has it on. Returns those of which it could not be set; one that
/// refuses keeps none of the others from theirs.
pub fn set_persistence(access: &Access, wanted: &BTreeMap<PciAddress, bool>) -> Vec<(PciAddress, bool, StepError)> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let nvml = match again(|| access.nvml.open()) {
        Ok(nvml) => nvml,
        Err(error) => {
            let refused = |(gpu, on): (&PciAddress, &bool)| (*gpu, *on, error.clone().context(naming(*gpu)));
            return wanted.iter().map(refused).collect();
        }
    };
    let refused = wanted.iter().filter_map(|(gpu, on)| {
        // A GPU that was left without its driver does not answer: what is read after the step says so.
        let differs = again(|| nvml.persistence(*gpu)).is_ok_and(|now| now != *on);
        let error = differs.then(|| again(|| nvml.set_persistence(*gpu, *on)).err()).flatten()?;
        Some((*gpu, *on, error.context(naming(*gpu))))
    });
    refused.collect()
}

fn naming(gpu: PciAddress) -> String {
    format!("persistence of {gpu}")
}

/// Neighbours are to be left as they were, and there is no second chance to see how that was.
fn again<T>(call: impl Fn() -> Result<T>) -> Result<T> {
    call().or_else(|_| call()).or_else(|_| call())
}
