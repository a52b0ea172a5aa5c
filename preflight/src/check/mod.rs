//! The checks: one file each, a pure function over [`Facts`]. docs/preflight.md has them as a table, and a test compares.

mod device;
mod iommu;
mod machine;
mod site;
mod software;

use croft_gpu::{FsError, chain};

use crate::facts::{Facts, User};
use crate::finding::{Finding, Level};

/// What a check looked at; an error is a file that it needed and could not read.
type Found = Result<Vec<Finding>, FsError>;

#[derive(Debug)]
pub struct Check {
    /// Lower case with dashes; stable.
    pub id: &'static str,
    pub looks_at: &'static str,
    /// Why that matters to Croft; a finding may have a better reason.
    pub why: &'static str,
    /// No finding of it is worse.
    pub worst: Level,
    /// The role of the collection that does what some of its fixes say; `None`: all are a person's work.
    pub role: Option<&'static str>,
    look: fn(&Facts) -> Found,
}

/// In the order of the report.
pub const CHECKS: &[Check] = &[
    machine::kind::CHECK,
    machine::privilege::CHECK,
    machine::kvm::CHECK,
    machine::nested::CHECK,
    machine::huge_pages::CHECK,
    machine::cgroup::CHECK,
    machine::secure_boot::CHECK,
    machine::lockdown::CHECK,
    iommu::on::CHECK,
    iommu::mode::CHECK,
    iommu::remapping::CHECK,
    iommu::group::CHECK,
    iommu::acs::CHECK,
    device::numa::CHECK,
    device::bar::CHECK,
    device::sriov::CHECK,
    device::flavour::CHECK,
    device::busy::CHECK,
    device::mig::CHECK,
    device::vgpu::CHECK,
    device::fabric::CHECK,
    device::usb::CHECK,
    software::kernel::CHECK,
    software::vfio::CHECK,
    software::libvirt::CHECK,
    software::qemu::CHECK,
    software::uefi::CHECK,
    software::tpm::CHECK,
    software::tools::CHECK,
    software::guests::CHECK,
    software::others::CHECK,
    site::clock::CHECK,
    site::names::CHECK,
    site::ports::CHECK,
    site::plane::CHECK,
    site::disk::CHECK,
    site::boot::CHECK,
];

impl Check {
    pub(crate) fn run(&self, facts: &Facts) -> Vec<Finding> {
        let findings = (self.look)(facts).unwrap_or_else(|error| vec![unseen(&error, facts.asked.user)]);
        let finish = |finding: Finding| {
            let reason = if finding.reason.is_empty() { self.why.to_owned() } else { finding.reason };
            // What only could be worth knowing is not worse for being unseen.
            Finding { id: self.id, reason, level: finding.level.min(self.worst), ..finding }
        };
        findings.into_iter().map(finish).collect()
    }
}

/// Not seen is neither good nor bad.
fn unseen(error: &FsError, user: User) -> Finding {
    const EACCES: i32 = 13;
    const EPERM: i32 = 1;
    let refused = matches!(error.errno(), Some(EACCES | EPERM));
    let fix = match user {
        User::Other if refused => "run it as root: sudo croft host preflight",
        User::Other | User::Root => "see why that file cannot be read",
    };
    Finding::warn("host", format!("not seen: {}", chain(error)), fix)
}

/// `3 devices`, `1 device`
fn count(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}
