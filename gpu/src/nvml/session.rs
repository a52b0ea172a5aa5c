//! One session with the library, and what needs no GPU instance.

use std::path::Path;

use nvml_wrapper::Device;

use super::error::NvmlError;
use crate::pci::PciAddress;

/// Asks the library by its C name, and turns what it returns into a result. The caller answers for the arguments.
macro_rules! call {
    ($nvml:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match &$nvml.inner.lib().$function {
            Ok(function) => $crate::nvml::session::check(stringify!($function), {
                let code: u32 = function($($argument),*);
                code
            }),
            Err(_) => Err($crate::nvml::NvmlError::NoCall { call: stringify!($function).to_owned() }),
        }
    };
}
pub(super) use call;

pub(super) fn check(call: &str, code: u32) -> Result<(), NvmlError> {
    if code == 0 { Ok(()) } else { Err(NvmlError::refused(call, code)) }
}

/// What a board or driver lacks is `None`; every other failure stays one.
pub(super) fn if_supported<T>(result: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_unsupported() => Ok(None),
        Err(error) => Err(error),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigMode {
    pub current: bool,
    /// Differs until a reset or a reboot.
    pub pending: bool,
}

/// An open library. While it is, `sriov-manage` and changes of the MIG mode may fail with "in use", for everybody.
#[derive(Debug)]
pub struct Nvml {
    pub(super) inner: nvml_wrapper::Nvml,
}

impl Nvml {
    /// `None`: `libnvidia-ml.so.1`, where the system keeps its libraries.
    pub fn open(library: Option<&Path>) -> Result<Nvml, NvmlError> {
        let mut builder = nvml_wrapper::Nvml::builder();
        if let Some(library) = library {
            builder.lib_path(library.as_os_str());
        }
        let inner = builder.init().map_err(|error| NvmlError::wrapped("nvmlInit_v2", error))?;
        Ok(Nvml { inner })
    }

    /// `580.159.04`
    pub fn driver_version(&self) -> Result<String, NvmlError> {
        self.inner.sys_driver_version().map_err(|error| NvmlError::wrapped("nvmlSystemGetDriverVersion", error))
    }

    /// Every GPU that the driver holds, in its own order; an error stands for one that would not say where it is.
    pub fn gpus(&self) -> Result<Vec<Result<PciAddress, NvmlError>>, NvmlError> {
        let count = self.inner.device_count().map_err(|error| NvmlError::wrapped("nvmlDeviceGetCount_v2", error))?;
        let address = |index| {
            let device = self.inner.device_by_index(index);
            address(&device.map_err(|error| NvmlError::wrapped("nvmlDeviceGetHandleByIndex_v2", error))?)
        };
        Ok((0..count).map(address).collect())
    }

    pub(super) fn device(&self, gpu: PciAddress) -> Result<Device<'_>, NvmlError> {
        let device = self.inner.device_by_pci_bus_id(gpu.to_string());
        device.map_err(|error| NvmlError::wrapped("nvmlDeviceGetHandleByPciBusId_v2", error))
    }

    pub fn persistence(&self, gpu: PciAddress) -> Result<bool, NvmlError> {
        let on = self.device(gpu)?.is_in_persistent_mode();
        on.map_err(|error| NvmlError::wrapped("nvmlDeviceGetPersistenceMode", error))
    }

    pub fn set_persistence(&self, gpu: PciAddress, on: bool) -> Result<(), NvmlError> {
        let done = self.device(gpu)?.set_persistent(on);
        done.map_err(|error| NvmlError::wrapped("nvmlDeviceSetPersistenceMode", error))
    }

    /// Refused as not supported by a board without MIG.
    pub fn mig_mode(&self, gpu: PciAddress) -> Result<MigMode, NvmlError> {
        mig_mode(&self.device(gpu)?)
    }

    /// `Ok` means accepted. Whether it is in effect says the number: 0, or the code of what keeps it from it
    /// (`code::IN_USE`, `code::RESET_REQUIRED`). Handles and minor numbers may change: look at the GPU anew.
    pub fn set_mig_mode(&self, gpu: PciAddress, on: bool) -> Result<u32, NvmlError> {
        let status = self.device(gpu)?.set_mig_mode(on);
        status.map_err(|error| NvmlError::wrapped("nvmlDeviceSetMigMode", error))
    }
}

pub(super) fn mig_mode(device: &Device<'_>) -> Result<MigMode, NvmlError> {
    let mode = device.mig_mode().map_err(|error| NvmlError::wrapped("nvmlDeviceGetMigMode", error))?;
    Ok(MigMode { current: mode.current != 0, pending: mode.pending != 0 })
}

pub(super) fn address(device: &Device<'_>) -> Result<PciAddress, NvmlError> {
    const CALL: &str = "nvmlDeviceGetPciInfo_v3";
    let info = device.pci_info().map_err(|error| NvmlError::wrapped(CALL, error))?;
    let odd = || NvmlError::odd(CALL, format!("`{}` is no PCI address", info.bus_id));
    let byte = |number: u32| u8::try_from(number).map_err(|_| odd());
    // The library knows physical functions only, and they are the function 0.
    let address = PciAddress { domain: info.domain, bus: byte(info.bus)?, device: byte(info.device)?, function: 0 };
    if address.device < 32 { Ok(address) } else { Err(odd()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvml::code;

    #[test]
    fn a_library_that_is_not_there_is_told_from_one_that_is_broken() {
        let missing = Nvml::open(Some(Path::new("/nonexistent/libnvidia-ml.so.1"))).unwrap_err();
        assert!(matches!(missing, NvmlError::NoLibrary { .. }), "{missing:?}");
        let directory = tempfile::tempdir().unwrap();
        let broken = directory.path().join("libnvidia-ml.so.1");
        std::fs::write(&broken, "not a library").unwrap();
        let broken = Nvml::open(Some(&broken)).unwrap_err();
        assert!(matches!(broken, NvmlError::Load { .. }), "{broken:?}");
        assert_eq!(missing.code(), None);
    }

    #[test]
    fn only_what_is_not_supported_is_nothing() {
        assert_eq!(if_supported::<()>(Err(NvmlError::refused("x", code::NOT_SUPPORTED))), Ok(None));
        assert_eq!(if_supported::<()>(Err(NvmlError::NoCall { call: "x".into() })), Ok(None));
        let lost = NvmlError::refused("x", code::GPU_IS_LOST);
        assert_eq!(if_supported::<()>(Err(lost.clone())), Err(lost));
    }
}
