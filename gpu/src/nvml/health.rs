//! What is wrong with a GPU, as far as the driver counts it. Nothing here is cleared or acknowledged: a fault goes when the
//! hardware, a reset or a new card makes it go.
#![expect(unsafe_code, reason = "nvml-wrapper has no call for remapped rows; NVML's own is used")]

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};

use super::error::{NvmlError, code};
use super::session::{Nvml, call, if_supported};
use crate::gpu::{Fault, faults};
use crate::pci::Link;

impl Nvml {
    /// Faults, and what could not be asked.
    pub(super) fn faults(&self, device: &Device<'_>, link: Option<Link>) -> (Vec<Fault>, Vec<NvmlError>) {
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        let mut ask = |answer: Result<Vec<Fault>, NvmlError>| match if_supported(answer) {
            Ok(faults) => found.extend(faults.into_iter().flatten()),
            Err(error) => match of_error(&error) {
                Some(fault) => found.push(fault),
                None => errors.push(error),
            },
        };
        ask(uncorrected(device));
        ask(self.rows_or_pages(device));
        found.extend(link.and_then(faults::link));
        found.sort();
        found.dedup();
        (found, errors)
    }

    /// Ampere and newer put spare rows in the place of bad ones; older boards retire pages.
    fn rows_or_pages(&self, device: &Device<'_>) -> Result<Vec<Fault>, NvmlError> {
        let (mut corrected, mut uncorrected, mut pending, mut failed) = (0, 0, 0, 0);
        // SAFETY: a live device of this session; the numbers outlive the call.
        let told = unsafe {
            let (a, b, c, d) = (&raw mut corrected, &raw mut uncorrected, &raw mut pending, &raw mut failed);
            call!(self, nvmlDeviceGetRemappedRows(device.handle(), a, b, c, d))
        };
        if if_supported(told)?.is_some() {
            let mut found = Vec::new();
            if pending != 0 {
                let message = "a bad memory row waits for a reset of the GPU to be replaced";
                found.push(Fault::new(faults::ROW_REMAP_PENDING, message));
            }
            if failed != 0 {
                let message = format!("a bad memory row could not be replaced ({uncorrected} were before it)");
                found.push(Fault::new(faults::ROW_REMAP_FAILED, message));
            }
            return Ok(found);
        }
        let pending = device.are_pages_pending_retired();
        let pending = pending.map_err(|error| NvmlError::wrapped("nvmlDeviceGetRetiredPagesPendingStatus", error))?;
        let message = "a bad memory page waits for a reset of the GPU to be retired";
        Ok(pending.then(|| Fault::new(faults::PAGE_RETIREMENT_PENDING, message)).into_iter().collect())
    }
}

fn uncorrected(device: &Device<'_>) -> Result<Vec<Fault>, NvmlError> {
    // Volatile: since the driver was loaded. What an earlier boot saw was dealt with then.
    let count = device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile);
    let count = count.map_err(|error| NvmlError::wrapped("nvmlDeviceGetTotalEccErrors", error))?;
    let message = format!("{count} memory errors since the driver was loaded that ECC could not correct");
    Ok((count > 0).then(|| Fault::new(faults::ECC_UNCORRECTED, message)).into_iter().collect())
}

/// Answers that are no failure to ask but what was asked for.
pub(super) fn of_error(error: &NvmlError) -> Option<Fault> {
    match error.code() {
        Some(code::GPU_IS_LOST) => Some(Fault::new(faults::FELL_OFF_THE_BUS, error.to_string())),
        Some(code::RESET_REQUIRED) => Some(Fault::new(faults::GPU_RESET_REQUIRED, error.to_string())),
        _ => None,
    }
}

/// As the library sees it: its "max" is what card and slot can do together.
pub(super) fn link(device: &Device<'_>) -> Result<Option<Link>, NvmlError> {
    let now = device.current_pcie_link_width();
    let now = now.map_err(|error| NvmlError::wrapped("nvmlDeviceGetCurrPcieLinkWidth", error));
    let max = device.max_pcie_link_width();
    let max = max.map_err(|error| NvmlError::wrapped("nvmlDeviceGetMaxPcieLinkWidth", error));
    let (Some(now), Some(max)) = (if_supported(now)?, if_supported(max)?) else { return Ok(None) };
    let lanes = |width: u32| u8::try_from(width).ok().filter(|width| (1..=32).contains(width));
    Ok(lanes(now).zip(lanes(max)).map(|(width, max_width)| Link { width, max_width }))
}
