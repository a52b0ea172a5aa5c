//! What a desired object may need of an agent beyond the base: proto3 drops fields it does not know, and a VM that lacks
//! a part must not start. An agent names what it can do in `Hello.features`; these words never change their meaning.

/// Boots a kernel directly.
pub const KERNEL_BOOT: &str = "kernel-boot";
/// Attaches to a bridge of the host (and a VLAN on it).
pub const BRIDGE: &str = "bridge";
/// Backs memory with huge pages.
pub const HUGE_PAGES: &str = "huge-pages";
/// Places vCPUs and memory on the NUMA cells and CPUs that were assigned.
pub const NUMA_PINNING: &str = "numa-pinning";
/// Boots through a legacy BIOS.
pub const BIOS: &str = "bios";

pub const ALL: &[&str] = &[KERNEL_BOOT, BRIDGE, HUGE_PAGES, NUMA_PINNING, BIOS];
