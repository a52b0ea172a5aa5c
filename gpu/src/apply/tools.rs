//! `sriov-manage` of a real host.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};

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

impl HostTools {
    /// It is in this helper's process group, so that the deadline reaches it too. But it writes to memory: a pipe to a helper
    /// that was killed would end it half-way.
    fn run(&self, flag: &str, gpu: PciAddress) -> io::Result<(ExitStatus, String)> {
        let mut output = File::from(memfd_create("sriov-manage", MemfdFlags::CLOEXEC)?);
        let status = Command::new(&self.sriov_manage)
            .arg(flag)
            .arg(gpu.to_string())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?)
            .status()?;
        let mut said = Vec::new();
        output.rewind()?;
        output.read_to_end(&mut said)?;
        Ok((status, String::from_utf8_lossy(&said).into_owned()))
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
        let (status, said) = self.run(flag, gpu).map_err(|error| StepError::from(error).context(&name))?;
        // Its exit status is documented nowhere; its own words are believed against it.
        if status.success() && !said.contains("unbindLock") {
            return Ok(());
        }
        let said: Vec<&str> = said.split_whitespace().collect();
        let said: String = said.join(" ").chars().take(400).collect();
        let error = format!("{name} ended with {status}: {said}");
        if said.contains("unbindLock") {
            return Err(StepError::errno(error, rustix::io::Errno::BUSY));
        }
        Err(StepError::new(error))
    }
}
