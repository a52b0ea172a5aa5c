//! Did firmware find room for the windows into each GPU's memory?

use croft_gpu::pci::PciFunction;
use croft_gpu::{FsError, IfPresent as _};

use super::super::{Check, Found, count};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "bar",
    looks_at: "where each GPU's base address registers lie, how large they are and could be (resizable BAR)",
    why: "a GPU with a window that has no address cannot be used, neither by the host nor by a guest",
    worst: Level::Fail,
    role: None,
    look,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    index: usize,
    start: u64,
    bytes: u64,
    assigned: bool,
}

fn look(facts: &Facts) -> Found {
    let (mut findings, mut above, mut largest) = (Vec::new(), 0, 0);
    for gpu in facts.gpus() {
        let windows = windows(facts, gpu)?;
        let lost: Vec<_> = windows.iter().filter(|window| !window.assigned).collect();
        if let [first, ..] = lost[..] {
            let found = format!("BAR {} ({}) has no address", first.index, size(first.bytes));
            let fix = "turn \"Above 4G decoding\" (and \"MMIO high size\") on in the firmware's setup, or boot with pci=realloc";
            findings.push(Finding::fail(gpu.address, found, fix));
            continue;
        }
        above += usize::from(windows.iter().any(|window| window.start >> 32 != 0));
        largest = largest.max(windows.iter().map(|window| window.bytes).max().unwrap_or(0));
        if let Some((window, most)) = resizable(facts, gpu, &windows)? {
            let found = format!("BAR {} is {} and could be {}", window.index, size(window.bytes), size(most));
            let fix = "if programs in guests shall reach all of its memory: turn \"Resizable BAR\" on in the firmware's setup";
            findings.push(
                Finding::info(gpu.address, found, fix)
                    .because("a small window works, with more copying for some programs"),
            );
        }
    }
    if above > 0 {
        let found = format!("{} above 4 GiB, the largest window {}", count(above, "GPU"), size(largest));
        findings.insert(0, Finding::ok("host", found));
    }
    Ok(findings)
}

fn windows(facts: &Facts, gpu: &PciFunction) -> Result<Vec<Window>, FsError> {
    let path = format!("/sys/bus/pci/devices/{}/resource", gpu.address);
    facts.fs.parse(&path, "a table of BARs", parse)
}

/// The first six lines are start, end and flags of a BAR each; flags 0: not in use.
fn parse(table: &str) -> Option<Vec<Window>> {
    /// <linux/ioport.h>: it has a size and was given no place.
    const UNSET: u64 = 0x2000_0000;
    let mut windows = Vec::new();
    for (index, line) in table.lines().take(6).enumerate() {
        let number = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
        let [start, end, flags] = line.split_whitespace().map(number).collect::<Option<Vec<_>>>()?[..] else {
            return None;
        };
        if flags != 0 {
            let bytes = end.checked_sub(start)?.checked_add(1)?;
            let assigned = flags & UNSET == 0 && start != 0;
            windows.push(Window { index, start, bytes, assigned });
        }
    }
    Some(windows)
}

/// The largest window, where the card offers a larger size for it.
fn resizable(facts: &Facts, gpu: &PciFunction, windows: &[Window]) -> Result<Option<(Window, u64)>, FsError> {
    let Some(window) = windows.iter().max_by_key(|window| window.bytes) else { return Ok(None) };
    let path = format!("/sys/bus/pci/devices/{}/resource{}_resize", gpu.address, window.index);
    // A bit for each size that it can have, from 1 MiB on.
    let sizes = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok().filter(|mask| *mask != 0);
    let Some(mask) = facts.fs.parse(&path, "a mask of sizes", sizes).if_present()? else { return Ok(None) };
    let most = 1_u64.checked_shl(20 + mask.ilog2()).unwrap_or(u64::MAX);
    Ok((most > window.bytes).then_some((*window, most)))
}

fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_without_a_place_is_known() {
        // As captured from an H100 in a virtual machine.
        let h100 = "0x0000102002000000 0x0000102002ffffff 0x000000000014220c\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                    0x0000100000000000 0x0000101fffffffff 0x000000000014220c\n";
        let windows = parse(h100).unwrap();
        assert_eq!((windows[1].index, size(windows[1].bytes), windows[1].assigned), (2, "128 GiB".to_owned(), true));
        let lost = "0x0000000000000000 0x0000001fffffffff 0x000000002014220c\n";
        assert!(!parse(lost).unwrap()[0].assigned);
        for garbage in ["x", "0x1 0x0 0x200", "0x0 0x1"] {
            assert_eq!(parse(garbage), None, "{garbage:?}");
        }
    }
}
