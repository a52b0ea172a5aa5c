//! What a desired object may need of an agent beyond the base: proto3 drops fields it does not know, and a VM that lacks
//! a part must not start. An agent names what it can do in `Hello.features`; these words never change their meaning.

/// Boots a kernel directly.
pub const KERNEL_BOOT: &str = "boot.kernel";
/// Attaches to a bridge of the host (and a VLAN on it).
pub const BRIDGE: &str = "network.bridge";
/// Backs memory with huge pages.
pub const HUGE_PAGES: &str = "memory.huge-pages";
/// Places vCPUs and memory on the NUMA cells and CPUs that were assigned.
pub const NUMA_PINNING: &str = "numa.pin";
/// Boots through a legacy BIOS.
pub const BIOS: &str = "firmware.bios";

/// Holds the devices that were assigned before it starts the VM, and gives them back clean.
pub const DEVICES: &str = "devices.v1";

/// Puts files beside the texts of a seed, and replaces them under a guest that runs.
pub const SEED_FILES: &str = croft_core::instance::seed::FILES_FEATURE;

/// Makes another root disk when it is told a higher count of it.
pub const REBUILD: &str = croft_core::instance::rebuild::FEATURE;

pub const ALL: &[&str] = &[KERNEL_BOOT, BRIDGE, HUGE_PAGES, NUMA_PINNING, BIOS, DEVICES, SEED_FILES, REBUILD];

#[cfg(test)]
mod tests {
    use super::*;

    /// The agent is another crate, and another program: only the words are shared.
    #[test]
    fn the_agent_of_this_version_can_do_all_of_it() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../hostagent/src/features.rs");
        let agent = std::fs::read_to_string(path).unwrap();
        for feature in ALL {
            assert!(agent.contains(&format!("\"{feature}\"")), "croft-hostagent does not claim {feature}");
        }
    }
}
