//! Is there an IOMMU, and does the kernel use it?

use super::super::{Check, Found, count};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "iommu",
    looks_at: "firmware's DMAR or IVRS table, the kernel's IOMMUs and groups, the kernel arguments",
    why: "without an IOMMU a guest that has a device could read and write all memory of the host, so none is given",
    worst: Level::Fail,
    role: Some("kernel"),
    look,
};

/// By the ACPI table that announces it: its name, the arguments that turn it on, the one that turns it off.
const KINDS: [(&str, &str, &str, &str); 2] = [
    ("DMAR", "Intel VT-d", "intel_iommu=on iommu=pt", "intel_iommu=off"),
    ("IVRS", "AMD-Vi", "iommu=pt", "amd_iommu=off"),
];

fn look(facts: &Facts) -> Found {
    let groups = isolating_groups(facts)?.len();
    let units = facts.names("/sys/class/iommu")?;
    if groups > 0 {
        let units = if units.is_empty() { "unnamed".to_owned() } else { units.join(", ") };
        return Ok(vec![Finding::ok("host", format!("on: {}, {units}", count(groups, "group")))]);
    }
    let arguments = facts.kernel_arguments()?;
    let mut announced = None;
    for kind in KINDS {
        if facts.fs.has(&format!("/sys/firmware/acpi/tables/{}", kind.0))? {
            announced = Some(kind);
        }
    }
    let finding = match announced {
        Some((table, name, on, off)) => {
            let off = arguments.iter().find(|word| [off, "iommu=off"].contains(&word.as_str()));
            let (why, without) = match off {
                Some(off) => (format!("the kernel argument {off} keeps it off"), format!("without {off} and ")),
                None => ("the kernel has it off".to_owned(), String::new()),
            };
            let found = format!("firmware has {name} (table {table}), and {why}");
            Finding::fail("host", found, format!("boot {without}with {on}")).by("kernel")
        }
        None => Finding::fail(
            "host",
            "none: firmware has neither a DMAR nor an IVRS table",
            "turn VT-d or AMD-Vi (\"IOMMU\") on in the firmware's setup; a virtual machine needs a virtual one",
        ),
    };
    Ok(vec![match facts.worth_giving().next() {
        Some(_) => finding,
        None => Finding { level: Level::Warn, ..finding }.because(
            "no device of this host could be given to a guest; it has no GPU and nothing that makes virtual functions",
        ),
    }])
}

/// Numbers of IOMMU groups, without those that vfio makes up where no IOMMU is.
pub(super) fn isolating_groups(facts: &Facts) -> Result<Vec<String>, croft_gpu::FsError> {
    let mut groups = Vec::new();
    for group in facts.names("/sys/kernel/iommu_groups")? {
        if facts.attribute(&format!("/sys/kernel/iommu_groups/{group}/name"))?.as_deref() != Some("vfio-noiommu") {
            groups.push(group);
        }
    }
    Ok(groups)
}
