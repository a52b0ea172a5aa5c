//! Secure Boot, and whether NVIDIA's driver may load under it.

use croft_gpu::IfPresent as _;

use super::super::{Check, Found};
use crate::facts::{Facts, NvidiaModule};
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "secure-boot",
    looks_at: "the EFI variable SecureBoot, and the signature of NVIDIA's module for the running kernel",
    why: "under Secure Boot the kernel takes signed modules only: an unsigned GPU driver installs and never loads",
    worst: Level::Fail,
    role: None,
    look,
};

const VARIABLE: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

fn look(facts: &Facts) -> Found {
    if !facts.fs.has("/sys/firmware/efi")? {
        return Ok(vec![Finding::ok("host", "none: not booted by EFI")]);
    }
    // Four bytes of attributes, then the value.
    let variable = facts.fs.read_bytes(VARIABLE).if_present()?;
    if variable.as_ref().and_then(|bytes| bytes.get(4)) != Some(&1) {
        return Ok(vec![Finding::ok("host", "off")]);
    }
    if facts.has_module("nvidia")? {
        return Ok(vec![Finding::ok("host", "on, and NVIDIA's driver is loaded under it")]);
    }
    Ok(vec![match &facts.asked.nvidia_module {
        None => Finding::ok("host", "on; NVIDIA's driver is not installed"),
        Some(NvidiaModule { signer: Some(signer) }) => Finding::info(
            "host",
            format!("on; NVIDIA's module is signed by {signer:?}, and not loaded"),
            "see that this key is enrolled: mokutil --list-enrolled; if not, mokutil --import and reboot",
        ),
        Some(NvidiaModule { signer: None }) => Finding::fail(
            "host",
            "on, and NVIDIA's module has no signature",
            "install the distribution's signed modules, or sign it with a key that mokutil --import enrolled",
        ),
    }])
}
