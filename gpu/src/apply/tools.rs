//! `sriov-manage` of a real host.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::access::{Result, Tools};
use super::error::StepError;
use crate::pci::PciAddress;

/// Where every package of the vGPU host driver puts it.
pub const SRIOV_MANAGE: &str = "/usr/lib/nvidia/sriov-manage";

#[derive(Debug)]
pub struct HostTools {
    sriov_manage: PathBuf,
}

impl HostTools {
    #[must_use]
    pub fn at(sriov_manage: impl Into<PathBuf>) -> HostTools {
        HostTools { sriov_manage: sriov_manage.into() }
    }
}

impl Default for HostTools {
    fn default() -> HostTools {
        HostTools::at(SRIOV_MANAGE)
    }
}

impl Tools for HostTools {
    fn sriov_manage(&self, gpu: PciAddress, enable: bool) -> Result<()> {
        let flag = if enable { "-e" } else { "-d" };
        let name = format!("{} {flag} {gpu}", self.sriov_manage.display());
        // It ends in this helper's process group, so that the deadline reaches it too.
        let output = Command::new(&self.sriov_manage)
            .arg(flag)
            .arg(gpu.to_string())
            .stdin(Stdio::null())
            .output()
            .map_err(|error| StepError::from(error).context(&name))?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        // Its exit status is documented nowhere; its own words are believed against it.
        if output.status.success() && !said.contains("unbindLock") {
            return Ok(());
        }
        let said: Vec<&str> = said.split_whitespace().collect();
        let said: String = said.join(" ").chars().take(400).collect();
        let error = format!("{name} ended with {}: {said}", output.status);
        if said.contains("unbindLock") {
            return Err(StepError::errno(error, rustix::io::Errno::BUSY));
        }
        Err(StepError::new(error))
    }
}
