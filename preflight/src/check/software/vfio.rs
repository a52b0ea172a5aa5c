//! Can devices be handed over at all?

use croft_gpu::FsError;

use super::super::{Check, Found};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "vfio",
    looks_at: "the module vfio-pci: loaded, built in, or on the disk; kernel arguments that bind by id",
    why: "vfio-pci is the driver through which a guest has a device",
    worst: Level::Fail,
    role: None,
    look,
};

fn look(facts: &Facts) -> Found {
    let mut findings = vec![match found(facts)? {
        Some(found) => Finding::ok("host", found),
        None if facts.worth_giving().next().is_none() => {
            Finding::info("host", "the running kernel has no vfio-pci", "a distribution's kernel has it")
        }
        None => Finding::fail(
            "host",
            "the running kernel has no vfio-pci",
            "boot a distribution's kernel (linux-image-amd64)",
        ),
    }];
    let arguments = facts.kernel_arguments()?;
    if let Some(ids) =
        arguments.iter().find(|word| word.starts_with("vfio-pci.ids=") || word.starts_with("vfio_pci.ids="))
    {
        let reason = "it takes every card of those ids at boot, also those that the host needs, and a GPU that no driver of its own \
                      had cannot say who it is; Croft binds by address, when it is needed";
        findings.push(
            Finding::warn(
                "host",
                format!("the kernel argument {ids}"),
                "take it out of the kernel arguments and reboot",
            )
            .because(reason),
        );
    }
    Ok(findings)
}

fn found(facts: &Facts) -> Result<Option<&'static str>, FsError> {
    if facts.has_module("vfio_pci")? || facts.fs.has("/sys/bus/pci/drivers/vfio-pci")? {
        return Ok(Some("loaded"));
    }
    let release = facts.kernel_release()?;
    for (list, found) in [("modules.builtin", "built in"), ("modules.dep", "can be loaded")] {
        let text = facts.attribute(&format!("/lib/modules/{release}/{list}"))?.unwrap_or_default();
        if text.contains("/vfio-pci.ko") {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
