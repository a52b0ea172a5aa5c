//! Whose NVIDIA driver a machine runs: the vGPU host driver and the data-centre driver cannot share a kernel.

use crate::error::FsError;
use crate::hostfs::HostFs;
use crate::pci::PciFunction;

const NVIDIA: u16 = 0x10de;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// None is loaded. Whole GPUs pass to guests all the same.
    None,
    Datacenter,
    Vgpu,
}

impl Flavour {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Flavour::None => "none",
            Flavour::Datacenter => "datacenter",
            Flavour::Vgpu => "vgpu",
        }
    }
}

/// Only what is loaded counts. `None`: in doubt. `functions`: `None` where they could not be read.
pub fn flavour(fs: &HostFs, functions: Option<&[PciFunction]>) -> Result<Option<Flavour>, FsError> {
    if !fs.has("/sys/module/nvidia")? {
        return Ok(Some(Flavour::None));
    }
    if fs.has("/sys/module/nvidia_vgpu_vfio")? {
        return Ok(Some(Flavour::Vgpu));
    }
    let Some(functions) = functions else { return Ok(None) };
    for function in functions.iter().filter(|function| function.vendor == NVIDIA) {
        // The two ways in which the host driver offers vGPUs: mediated devices, and attributes of its own on each function.
        for offer in ["mdev_supported_types", "nvidia"] {
            if fs.has(&format!("/sys/bus/pci/devices/{}/{offer}", function.address))? {
                return Ok(Some(Flavour::Vgpu));
            }
        }
    }
    // The host driver's tools without its module: not loaded yet, or left over.
    for tool in ["/usr/lib/nvidia/sriov-manage", "/usr/bin/nvidia-vgpu-mgr", "/usr/bin/nvidia-vgpud"] {
        if fs.has(tool)? {
            return Ok(None);
        }
    }
    Ok(Some(Flavour::Datacenter))
}
