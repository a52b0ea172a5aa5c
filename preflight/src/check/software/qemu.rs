//! QEMU: installed and new enough.

use super::super::{Check, Found};
use crate::facts::{Facts, Version};
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "qemu",
    looks_at: "qemu-system-x86_64 and its version (tested from 7.2 on)",
    why: "every instance is a process of it",
    worst: Level::Fail,
    role: Some("libvirt"),
    look,
};

/// Debian 12's.
const TESTED: Version = Version(7, 2);

fn look(facts: &Facts) -> Found {
    Ok(vec![match facts.version_of("qemu-system-x86_64") {
        None => Finding::fail("host", "not installed", "apt-get install qemu-system-x86").by("libvirt"),
        Some(Err(why)) => Finding::fail("host", why, "see that it runs: qemu-system-x86_64 --version"),
        Some(Ok(line)) => match Version::find(line) {
            Some(version) if version >= TESTED => Finding::ok("host", line),
            _ => {
                let fix = "upgrade to Debian 12 or Ubuntu 24.04, or newer";
                Finding::warn("host", format!("{line}, older than what is tested ({TESTED})"), fix)
            }
        },
    }])
}
