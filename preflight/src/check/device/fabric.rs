//! NVSwitch boards: is Fabric Manager there, of the driver's version, and in the mode that Croft works with?

use croft_gpu::host::Fabric;
use croft_gpu::{FsError, IfPresent as _};

use super::super::{Check, Found};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "fabric-manager",
    looks_at: "NVSwitches, FABRIC_MODE in fabricmanager.cfg, Fabric Manager's process, its version beside the driver's",
    why: "a whole GPU of a board with NVSwitch is given with a partition of the fabric, which only Fabric Manager's shared mode has",
    worst: Level::Fail,
    role: Some("gpu"),
    look,
};

const CONFIGURATION: &str = "/usr/share/nvidia/nvswitch/fabricmanager.cfg";
/// As far as the kernel keeps names of processes.
const PROCESS: &str = "nv-fabricmanage";

fn look(facts: &Facts) -> Found {
    if facts.devices.fabric == Fabric::None {
        return Ok(Vec::new());
    }
    let Some(text) = facts.fs.read(CONFIGURATION).if_present()? else {
        let found = "this board has NVSwitch, and Fabric Manager is not installed";
        return Ok(vec![
            Finding::fail("host", found, "install Fabric Manager of exactly the driver's version").by("gpu"),
        ]);
    };
    let mode = mode(&text);
    let mut findings = vec![match mode {
        Some("1") => Finding::ok("host", "shared NVSwitch mode (FABRIC_MODE=1)"),
        other => {
            let name = match other {
                None | Some("0") => "bare metal or full pass-through mode (FABRIC_MODE=0)".to_owned(),
                Some("2") => "vGPU mode (FABRIC_MODE=2)".to_owned(),
                Some(other) => format!("FABRIC_MODE={other}"),
            };
            let fix = format!("FABRIC_MODE=1 in {CONFIGURATION}, then restart nvidia-fabricmanager");
            Finding::fail("host", name, fix).by("gpu")
        }
    }];
    if !facts.processes()?.contains_key(PROCESS) {
        let fix = "systemctl enable --now nvidia-fabricmanager; its log says why it ended";
        findings.push(Finding::fail("host", "Fabric Manager does not run", fix).by("gpu"));
    }
    findings.extend(other_version(facts)?);
    Ok(findings)
}

/// The last one counts.
fn mode(text: &str) -> Option<&str> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs.filter(|(key, _)| key.trim() == "FABRIC_MODE").map(|(_, value)| value.trim()).next_back()
}

fn other_version(facts: &Facts) -> Result<Option<Finding>, FsError> {
    let Some(driver) = facts.attribute("/sys/module/nvidia/version")? else { return Ok(None) };
    Ok(match facts.version_of("nv-fabricmanager") {
        Some(Ok(line)) if line.split_whitespace().any(|word| word == driver) => None,
        Some(Ok(line)) => {
            let fix = "install Fabric Manager of exactly the driver's version";
            let reason = "Fabric Manager ends at once when its version is not exactly the driver's";
            Some(Finding::fail("host", format!("driver {driver}, and {line}"), fix).because(reason).by("gpu"))
        }
        Some(Err(why)) => Some(Finding::warn(
            "host",
            format!("its version is not seen: {why}"),
            "compare it with the driver's by hand",
        )),
        None => Some(Finding::warn(
            "host",
            "its program nv-fabricmanager is not among the system's programs",
            "install Fabric Manager of exactly the driver's version",
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::mode;

    #[test]
    fn the_last_mode_that_is_no_comment_counts() {
        assert_eq!(mode("# FABRIC_MODE=2\nFABRIC_MODE=0\n FABRIC_MODE = 1 \n"), Some("1"));
        assert_eq!(mode("FABRIC_MODE_RESTART=1\n"), None);
    }
}
