//! The words for what can be wrong with a device. Each has a page in `docs/errors`.

pub use super::Fault;
use crate::pci::Link;

pub const XID_ERROR: &str = "XidError";
pub const FELL_OFF_THE_BUS: &str = "FellOffTheBus";
pub const ECC_UNCORRECTED: &str = "EccUncorrected";
pub const ROW_REMAP_PENDING: &str = "RowRemapPending";
pub const ROW_REMAP_FAILED: &str = "RowRemapFailed";
pub const PAGE_RETIREMENT_PENDING: &str = "PageRetirementPending";
pub const LINK_DEGRADED: &str = "LinkDegraded";
pub const GPU_RESET_REQUIRED: &str = "GpuResetRequired";
/// The driver holds the function, and does not know it as a GPU, or does not answer.
pub const DRIVER_SILENT: &str = "DriverSilent";

pub const ALL: &[&str] = &[
    XID_ERROR,
    FELL_OFF_THE_BUS,
    ECC_UNCORRECTED,
    ROW_REMAP_PENDING,
    ROW_REMAP_FAILED,
    PAGE_RETIREMENT_PENDING,
    LINK_DEGRADED,
    GPU_RESET_REQUIRED,
    DRIVER_SILENT,
];

impl Fault {
    #[must_use]
    pub fn new(reason: &str, message: impl Into<String>) -> Fault {
        Fault { reason: reason.to_owned(), message: message.into() }
    }
}

/// Is the link narrower than card and slot allow?
#[must_use]
pub fn link(link: Link) -> Option<Fault> {
    let message = format!("{} of {} PCI Express lanes work", link.width, link.max_width);
    link.is_degraded().then(|| Fault::new(LINK_DEGRADED, message))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_fault_has_its_page() {
        let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors");
        for reason in ALL {
            let page = std::fs::read_to_string(pages.join(format!("{reason}.md"))).unwrap_or_default();
            assert!(
                page.starts_with(&format!("# {reason}\n")),
                "docs/errors/{reason}.md is missing, or has another title"
            );
        }
    }

    #[test]
    fn a_narrow_link_is_a_fault() {
        let found = link(Link { width: 8, max_width: 16 }).unwrap();
        assert_eq!((found.reason.as_str(), found.message.as_str()), (LINK_DEGRADED, "8 of 16 PCI Express lanes work"));
        assert_eq!(link(Link { width: 16, max_width: 16 }), None);
    }
}
