//! Is the kernel new enough, and still the installed one?

use super::super::{Check, Found};
use crate::facts::{Facts, Version};
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "kernel",
    looks_at: "the running kernel's version (5.6 at least, tested from 6.1 on), its modules on the disk, /run/reboot-required",
    why: "the agent resolves paths as kernels do from 5.6 on; before 5.15 a device does not tell how it can be reset between tenants",
    worst: Level::Fail,
    role: None,
    look,
};

/// `openat2` with `RESOLVE_IN_ROOT`, by which every file of the host is reached.
const NEEDED: Version = Version(5, 6);
/// Debian 12's.
const TESTED: Version = Version(6, 1);

fn look(facts: &Facts) -> Found {
    let release = facts.kernel_release()?;
    let fix = "upgrade to Debian 12 or Ubuntu 24.04, or newer";
    let mut findings = vec![match Version::find(&release) {
        None => Finding::warn("host", format!("{release}: a version that cannot be read"), fix),
        Some(version) if version < NEEDED => Finding::fail("host", format!("{release}, and {NEEDED} is needed"), fix),
        Some(version) if version < TESTED => {
            Finding::warn("host", format!("{release}, older than what is tested ({TESTED})"), fix)
        }
        Some(_) => Finding::ok("host", release.clone()),
    }];
    let modules = format!("/lib/modules/{release}");
    if facts.fs.has("/lib/modules")? && !facts.fs.has(&modules)? {
        let reason = "what is not loaded yet cannot be loaded any more: vfio-pci, KVM, a GPU's driver";
        findings.push(
            Finding::warn(
                "host",
                format!("{modules} is not there: its kernel was replaced, or has no modules"),
                "reboot into the installed kernel",
            )
            .because(reason),
        );
    }
    if facts.fs.has("/run/reboot-required")? {
        findings.push(Finding::info("host", "updates wait for a reboot", "reboot before instances run here"));
    }
    Ok(findings)
}
