//! What an instance may look like: every field, with its path in the error.

use super::seed;
use super::{ID_MAX, Spec};
use crate::meta::{Labels, check_labels};
use crate::validate::{Violations, is_dns_name};

pub const VCPUS_MAX: i64 = 512;
pub const MEMORY_MIN_MIB: i64 = 64;
pub const MEMORY_MAX_MIB: i64 = 64 * 1024 * 1024;
pub const DISK_MAX_GIB: i64 = 64 * 1024;
pub const INTERFACES_MAX: usize = 8;
pub const SSH_KEYS_MAX: usize = 64;
pub const STOP_TIMEOUT_MAX: std::time::Duration = std::time::Duration::from_secs(3600);
/// Page sizes that x86-64 and arm64 servers offer, in KiB.
pub const HUGE_PAGES_KIB: [i64; 4] = [64, 2048, 32 * 1024, 1024 * 1024];

/// Everything that can be said without looking at the store. Device requests were checked where they were read: only there is
/// known which of them one count was spread into.
pub fn check(id: &str, spec: &Spec, user_data: &str, labels: &Labels, violations: &mut Violations) {
    violations.check_slug(id, ID_MAX, "instance_id");
    check_labels("instance.metadata.labels", labels, violations);
    check_size(spec, violations);
    check_disks(spec, violations);
    check_interfaces(spec, violations);
    check_labels("instance.spec.host_selector", &spec.host_selector, violations);
    check_cloud_init(spec, user_data, violations);
}

fn check_size(spec: &Spec, violations: &mut Violations) {
    let range = |value: i64, least: i64, most: i64| (least..=most).contains(&value);
    violations.check(
        range(spec.vcpus, 1, VCPUS_MAX),
        "instance.spec.vcpus",
        format!("1 to {VCPUS_MAX}, not {}", spec.vcpus),
    );
    violations.check(
        range(spec.memory_mib, MEMORY_MIN_MIB, MEMORY_MAX_MIB),
        "instance.spec.memory_mib",
        format!("{MEMORY_MIN_MIB} to {MEMORY_MAX_MIB} MiB, not {}", spec.memory_mib),
    );
    let page = spec.huge_page_kib;
    if page != 0 {
        violations.check(
            HUGE_PAGES_KIB.contains(&page),
            "instance.spec.huge_page_kib",
            format!("0 or one of {HUGE_PAGES_KIB:?} KiB, not {page}"),
        );
        violations.check(
            page > 0 && (spec.memory_mib.saturating_mul(1024)) % page.max(1) == 0,
            "instance.spec.memory_mib",
            format!("a multiple of the huge page size, {page} KiB"),
        );
    }
}

fn check_disks(spec: &Spec, violations: &mut Violations) {
    violations.check(spec.disks.len() == 1, "instance.spec.disks", format!("one, not {}", spec.disks.len()));
    for (at, disk) in spec.disks.iter().enumerate() {
        violations.check(
            (1..=DISK_MAX_GIB).contains(&disk.size_gib),
            &format!("instance.spec.disks[{at}].size_gib"),
            format!("1 to {DISK_MAX_GIB} GiB, not {}", disk.size_gib),
        );
    }
}

fn check_interfaces(spec: &Spec, violations: &mut Violations) {
    violations.check(
        spec.interfaces.len() <= INTERFACES_MAX,
        "instance.spec.interfaces",
        format!("at most {INTERFACES_MAX}, not {}", spec.interfaces.len()),
    );
    for (at, interface) in spec.interfaces.iter().enumerate() {
        let twice = spec.interfaces[..at].contains(interface);
        violations.check(
            !twice,
            &format!("instance.spec.interfaces[{at}].network"),
            format!("networks/{} is there twice", interface.network),
        );
    }
}

fn check_cloud_init(spec: &Spec, user_data: &str, violations: &mut Violations) {
    let field = |name: &str| format!("instance.spec.cloud_init.{name}");
    if let Err(why) = seed::check_user_data(user_data) {
        violations.add(field("user_data"), why);
    }
    if let Err(why) = seed::check_network_config(&spec.cloud_init.network_config) {
        violations.add(field("network_config"), why);
    }
    let hostname = &spec.cloud_init.hostname;
    violations.check(
        hostname.is_empty() || is_dns_name(hostname, 253),
        &field("hostname"),
        "a DNS name in lower case, at most 253 characters",
    );
    let keys = &spec.cloud_init.ssh_authorized_keys;
    violations.check(keys.len() <= SSH_KEYS_MAX, &field("ssh_authorized_keys"), format!("at most {SSH_KEYS_MAX} keys"));
    for (at, key) in keys.iter().enumerate().take(SSH_KEYS_MAX) {
        violations.check(
            seed::is_public_key(key),
            &field(&format!("ssh_authorized_keys[{at}]")),
            "an OpenSSH public key on one line, for example `ssh-ed25519 AAAA… you@example`",
        );
    }
}
