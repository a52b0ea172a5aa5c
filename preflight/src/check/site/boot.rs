//! Room for a new initramfs.

use super::super::{Check, Found};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "boot-disk",
    looks_at: "free space in /boot, beside the largest initramfs there",
    why: "drivers and kernel arguments change the initramfs, which is written beside the old one: a full /boot leaves half of it",
    worst: Level::Fail,
    role: None,
    look,
};

/// Where there is none to go by: with NVIDIA's modules in it, an initramfs of Debian's comes near to this.
const TYPICAL_MIB: u64 = 128;

fn look(facts: &Facts) -> Found {
    let Some(disk) = facts.asked.disks.iter().find(|disk| disk.path == "/boot") else {
        return Ok(vec![Finding::warn("/boot", "not seen", "see that /boot can be read: df /boot")]);
    };
    let largest = match facts.asked.largest_initrd_mib {
        0 => TYPICAL_MIB,
        mib => mib,
    };
    let found = format!("{} MiB free; an initramfs takes {largest} MiB", disk.free_mib);
    let fix = "apt-get autoremove --purge removes old kernels";
    Ok(vec![match disk.free_mib {
        free if free < largest => Finding::fail("/boot", found, fix),
        free if free < 2 * largest => Finding::warn("/boot", found, fix),
        _ => Finding::ok("/boot", found),
    }])
}
