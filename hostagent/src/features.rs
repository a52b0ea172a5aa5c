//! What this agent can do. A desired object lists what it needs (`required_features`); one that lists something else is
//! refused, because proto3 drops fields that a reader does not know, and a VM without its device must not start.
//!
//! Names are added, never changed or given another meaning.

/// In the Hello, and in the host's info.
pub const ALL: &[&str] = &[
    "boot.disk",
    "boot.kernel",
    "devices.v1",
    "disk.rebuild",
    "firmware.bios",
    "firmware.uefi",
    "memory.huge-pages",
    "network.bridge",
    "network.tenant-nat",
    "numa.pin",
    "seed.files",
    "seed.nocloud",
];
