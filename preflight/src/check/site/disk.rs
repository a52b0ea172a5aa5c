//! Room for images and disks.

use super::super::{Check, Found};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "disk",
    looks_at: "free space and file system below /var/lib/croft",
    why: "images and instances' disks are kept there, and fetching images always leaves 5 GiB free",
    worst: Level::Fail,
    role: Some("storage"),
    look,
};

/// The agent's own reserve, and a small image.
const NEEDED_MIB: u64 = 8 << 10;
const USEFUL_MIB: u64 = 50 << 10;

fn look(facts: &Facts) -> Found {
    let Some(disk) = facts.asked.disks.iter().find(|disk| disk.path == "/var/lib/croft") else {
        return Ok(vec![Finding::warn("/var/lib/croft", "not seen", "see that /var/lib can be read: df /var/lib")]);
    };
    let kind = disk.kind.as_deref().unwrap_or("unknown file system");
    let found =
        format!("{} GiB free of {} ({kind}, at {})", disk.free_mib >> 10, disk.total_mib >> 10, disk.at.display());
    let fix = "give it a file system of its own";
    Ok(vec![match kind {
        "tmpfs" | "ramfs" => Finding::fail(disk.path, found, fix)
            .by("storage")
            .because("this is memory: instances' disks are gone after a reboot"),
        "nfs" | "nfs4" | "cifs" => Finding::warn(disk.path, found, fix)
            .by("storage")
            .because("the agent's journal must be on a disk that keeps what it says: use a local file system"),
        _ if disk.free_mib < NEEDED_MIB => Finding::fail(disk.path, found, fix).by("storage"),
        _ if disk.free_mib < USEFUL_MIB => Finding::warn(disk.path, found, fix).by("storage"),
        _ => Finding::ok(disk.path, found),
    }])
}
