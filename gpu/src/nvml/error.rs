//! What can go wrong between us and NVIDIA's management library.

use serde::{Deserialize, Serialize};

/// Return codes that decide something. NVML has more of them: see [`meaning`].
pub mod code {
    pub const INVALID_ARGUMENT: u32 = 2;
    pub const NOT_SUPPORTED: u32 = 3;
    pub const NO_PERMISSION: u32 = 4;
    pub const NOT_FOUND: u32 = 6;
    pub const INSUFFICIENT_SIZE: u32 = 7;
    pub const DRIVER_NOT_LOADED: u32 = 9;
    pub const TIMEOUT: u32 = 10;
    pub const GPU_IS_LOST: u32 = 15;
    pub const RESET_REQUIRED: u32 = 16;
    pub const IN_USE: u32 = 19;
    pub const INSUFFICIENT_RESOURCES: u32 = 23;
    pub const ARGUMENT_VERSION_MISMATCH: u32 = 25;
}

/// Can be sent from the process that asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum NvmlError {
    /// There is none on this host.
    #[error("no NVML library: {why}")]
    NoLibrary { why: String },
    /// There is one, and it cannot be used.
    #[error("cannot load the NVML library: {why}")]
    Load { why: String },
    #[error("this driver's NVML library has no {call}")]
    NoCall { call: String },
    #[error("{call}: {} (NVML {code})", meaning(*code))]
    Refused { call: String, code: u32 },
    /// An answer that cannot be, or a wish that means nothing on this board.
    #[error("{call}: {why}")]
    Odd { call: String, why: String },
}

impl NvmlError {
    /// NVML's own word, where it gave one.
    #[must_use]
    pub fn code(&self) -> Option<u32> {
        match self {
            NvmlError::Refused { code, .. } => Some(*code),
            NvmlError::NoLibrary { .. } | NvmlError::Load { .. } | NvmlError::NoCall { .. } | NvmlError::Odd { .. } => {
                None
            }
        }
    }

    /// This board, or this driver, has no such thing at all.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self, NvmlError::NoCall { .. } | NvmlError::Refused { code: code::NOT_SUPPORTED, .. })
    }

    pub(super) fn refused(call: &str, code: u32) -> NvmlError {
        NvmlError::Refused { call: call.to_owned(), code }
    }

    pub(super) fn odd(call: &str, why: impl Into<String>) -> NvmlError {
        NvmlError::Odd { call: call.to_owned(), why: why.into() }
    }

    /// What the wrapper's safe calls say. It has no word for codes newer than itself, and keeps their number.
    pub(super) fn wrapped(call: &'static str, error: nvml_wrapper::error::NvmlError) -> NvmlError {
        use nvml_wrapper::error::NvmlError as Wrapped;
        match error {
            Wrapped::LibloadingError(error) => {
                let why = error.to_string();
                // dlopen has no codes, only this text; the C library translates it for nobody who did not ask.
                match why.contains("No such file or directory") {
                    true => NvmlError::NoLibrary { why },
                    false => NvmlError::Load { why },
                }
            }
            Wrapped::FailedToLoadSymbol(_) => NvmlError::NoCall { call: call.to_owned() },
            Wrapped::Utf8Error(_)
            | Wrapped::NulError(_)
            | Wrapped::StringTooLong { .. }
            | Wrapped::IncorrectBits(_)
            | Wrapped::SetReleaseFailed
            | Wrapped::GetPciInfoFailed
            | Wrapped::PciInfoToCFailed => NvmlError::odd(call, error.to_string()),
            other => NvmlError::refused(call, other.into()),
        }
    }
}

/// `nvmlErrorString`, without asking a library that may be the one that is broken.
#[must_use]
pub fn meaning(code: u32) -> &'static str {
    match code {
        1 => "the library is not initialised",
        code::INVALID_ARGUMENT => "an argument is invalid",
        code::NOT_SUPPORTED => "not supported by this GPU, its mode or its driver",
        code::NO_PERMISSION => "no permission",
        code::NOT_FOUND => "not found",
        code::INSUFFICIENT_SIZE => "the buffer is too small",
        8 => "the external power cables are not attached",
        code::DRIVER_NOT_LOADED => "the NVIDIA driver is not loaded",
        code::TIMEOUT => "timed out",
        11 => "the kernel found a problem with the GPU's interrupts",
        12 => "a shared library is missing",
        13 => "a function is missing in a shared library",
        14 => "the infoROM is corrupt",
        code::GPU_IS_LOST => "the GPU fell off the bus or cannot be reached",
        code::RESET_REQUIRED => "the GPU must be reset first",
        17 => "the operating system blocks the GPU",
        18 => "the library and the loaded driver are of different versions",
        code::IN_USE => "in use",
        20 => "out of memory",
        21 => "no data",
        22 => "not possible while ECC is on",
        code::INSUFFICIENT_RESOURCES => "not enough room on the GPU",
        24 => "the frequency is not supported",
        code::ARGUMENT_VERSION_MISMATCH => "the driver does not know this version of an argument",
        26 => "the call is no longer supported",
        27 => "not ready",
        28 => "no such GPU",
        29 => "not possible in this state",
        30 => "the reset is not supported",
        _ => "an error that the driver does not explain",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_survives_the_wrapper_even_if_it_is_newer() {
        for code in [2, 3, 9, 15, 19, 23, 25, 30, 999] {
            let wrapped = nvml_wrapper::error::NvmlError::from(code);
            assert_eq!(NvmlError::wrapped("nvmlX", wrapped), NvmlError::refused("nvmlX", code));
        }
        let error = NvmlError::refused("nvmlDeviceSetMigMode", code::IN_USE);
        assert_eq!(error.to_string(), "nvmlDeviceSetMigMode: in use (NVML 19)");
        assert_eq!(error.code(), Some(19));
    }
}
