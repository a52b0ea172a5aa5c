//! The words that this backend adds to [`crate::reasons`] and [`crate::media::reasons`].

/// The state directory cannot serve: not absolute, or too long a name.
pub const STATE_DIR_REFUSED: &str = "StateDirRefused";
/// The operator asked for a domain type that this machine cannot run.
pub const DOMAIN_TYPE_UNAVAILABLE: &str = "DomainTypeUnavailable";
/// The desired instance asks for what a domain cannot be.
pub const SPEC_INVALID: &str = "SpecInvalid";
/// libvirt does not take the definition.
pub const DEFINE_FAILED: &str = "DefineFailed";
/// The domain did not come up.
pub const START_FAILED: &str = "StartFailed";
/// No (free) huge pages of the size asked for.
pub const NO_HUGE_PAGES: &str = "NoHugePages";
/// No UEFI firmware is installed.
pub const FIRMWARE_MISSING: &str = "FirmwareMissing";
/// A CPU or NUMA cell that the instance was placed on is not there.
pub const CPU_UNAVAILABLE: &str = "CpuUnavailable";
/// A VLAN on a bridge that cannot carry one here.
pub const VLAN_UNSUPPORTED: &str = "VlanUnsupported";
/// A network or filter with our name is there and is not ours.
pub const NETWORK_CONFLICT: &str = "NetworkConflict";
/// libvirt could not make or change the tenant's network.
pub const NETWORK_FAILED: &str = "NetworkFailed";
/// No free subnet, or no free address in it.
pub const NO_SUBNET: &str = "NoSubnet";
/// The rules that keep tenants apart could not be put in force.
pub const FIREWALL_FAILED: &str = "FirewallFailed";
/// The domain must not run for this.
pub const STILL_RUNNING: &str = "StillRunning";
/// The domain must run for this.
pub const DOMAIN_NOT_RUNNING: &str = "DomainNotRunning";
/// The serial console's socket does not answer.
pub const CONSOLE_UNAVAILABLE: &str = "ConsoleUnavailable";
/// No connection to that port of the guest.
pub const GUEST_UNREACHABLE: &str = "GuestUnreachable";

pub const ALL: &[&str] = &[
    STATE_DIR_REFUSED,
    DOMAIN_TYPE_UNAVAILABLE,
    SPEC_INVALID,
    DEFINE_FAILED,
    START_FAILED,
    NO_HUGE_PAGES,
    FIRMWARE_MISSING,
    CPU_UNAVAILABLE,
    VLAN_UNSUPPORTED,
    NETWORK_CONFLICT,
    NETWORK_FAILED,
    NO_SUBNET,
    FIREWALL_FAILED,
    STILL_RUNNING,
    DOMAIN_NOT_RUNNING,
    CONSOLE_UNAVAILABLE,
    GUEST_UNREACHABLE,
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn every_word_has_a_page_and_one_meaning() {
        let words: Vec<&str> = [super::ALL, crate::media::reasons::ALL, crate::reasons::ALL].concat();
        let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors");
        for (at, word) in words.iter().enumerate() {
            assert!(!words[..at].contains(word), "{word} twice");
        }
        let ours = [super::ALL, crate::media::reasons::ALL].concat();
        let missing: Vec<_> = ours.iter().filter(|word| !pages.join(format!("{word}.md")).is_file()).collect();
        assert!(missing.is_empty(), "no page in docs/errors for {missing:?}");
    }
}
