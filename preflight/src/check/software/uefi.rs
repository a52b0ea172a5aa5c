//! Is there firmware for guests that boot by UEFI?

use croft_gpu::FsError;
use serde_json::Value;

use super::super::{Check, Found};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "uefi",
    looks_at: "QEMU's firmware descriptions: one for UEFI on q35 without Secure Boot, and the file that it names",
    why: "libvirt chooses the firmware of UEFI images by these; without one such an instance is refused (FirmwareMissing), and only BIOS images boot",
    worst: Level::Warn,
    role: Some("libvirt"),
    look,
};

fn look(facts: &Facts) -> Found {
    for directory in ["/etc/qemu/firmware", "/usr/share/qemu/firmware"] {
        for name in facts.names(directory)?.iter().filter(|name| name.ends_with(".json")) {
            let text = facts.fs.read(&format!("{directory}/{name}"))?;
            if let Some(file) = suitable(facts, &text)? {
                return Ok(vec![Finding::ok("host", file)]);
            }
        }
    }
    Ok(vec![Finding::warn("host", "none for q35 without Secure Boot", "apt-get install ovmf").by("libvirt")])
}

/// The image that a description names, if it is one for us and is there.
fn suitable(facts: &Facts, text: &str) -> Result<Option<String>, FsError> {
    let Ok(described) = serde_json::from_str::<Value>(text) else { return Ok(None) };
    let has = |list: &Value, word: &str| list.as_array().is_some_and(|list| list.iter().any(|item| item == word));
    let targets = described["targets"].as_array().cloned().unwrap_or_default();
    let is_q35 = targets.iter().any(|target| {
        let machines = target["machines"].as_array().cloned().unwrap_or_default();
        target["architecture"] == "x86_64" && machines.iter().filter_map(Value::as_str).any(|name| name.contains("q35"))
    });
    let plain = !has(&described["features"], "secure-boot") && has(&described["interface-types"], "uefi");
    let Some(file) = described["mapping"]["executable"]["filename"].as_str() else { return Ok(None) };
    Ok((is_q35 && plain && facts.fs.has(file)?).then(|| file.to_owned()))
}
