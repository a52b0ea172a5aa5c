//! Domains of libvirt's that are not Croft's.

use croft_gpu::IfPresent as _;

use super::super::{Check, Found};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "other-guests",
    looks_at: "the domains that libvirt keeps in /etc/libvirt/qemu and /run/libvirt/qemu, and Croft's mark in them",
    why: "Croft leaves them alone and counts what they hold as taken: that much of the host cannot be placed",
    worst: Level::Warn,
    role: None,
    look,
};

/// The namespace of the agent's metadata.
const MARK: &str = "https://croft.dev/libvirt/";

fn look(facts: &Facts) -> Found {
    let mut foreign = Vec::new();
    for directory in ["/run/libvirt/qemu", "/etc/libvirt/qemu"] {
        for file in facts.names(directory)? {
            let Some(name) = file.strip_suffix(".xml").filter(|name| !foreign.iter().any(|known| known == name)) else {
                continue;
            };
            // A domain that ended meanwhile has no file any more.
            if let Some(text) = facts.fs.read(&format!("{directory}/{file}")).if_present()?
                && !text.contains(MARK)
            {
                foreign.push(name.to_owned());
            }
        }
    }
    Ok(vec![match foreign[..] {
        [] => Finding::ok("host", "none"),
        _ => Finding::info("host", foreign.join(", "), "nothing, if they shall stay; else stop and undefine them"),
    }])
}
