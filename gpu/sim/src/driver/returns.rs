//! NVML's return codes, as far as the rules use them.

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("NVML return code {}: {self:?}", *self as u32)]
#[repr(u32)]
pub enum Return {
    Uninitialized = 1,
    InvalidArgument = 2,
    NotSupported = 3,
    NoPermission = 4,
    NotFound = 6,
    InsufficientSize = 7,
    Timeout = 10,
    GpuIsLost = 15,
    ResetRequired = 16,
    InUse = 19,
    Memory = 20,
    InsufficientResources = 23,
    VersionMismatch = 25,
    InvalidState = 29,
    Unknown = 999,
}
