//! The rules of NVIDIA's driver: what it does and what it refuses, on the state of one host.
//!
//! Pure: no function here reads a file or waits. Whoever calls holds the lock of the state and saves it. What the kernel's files
//! answer is an [`Errno`]; what NVML answers is a [`Return`].

mod lifecycle;
mod returns;
mod vgpu;

pub use lifecycle::{bound, reboot, reset, sriov_disabled, sriov_enabled, unbound};
pub use returns::Return;
pub use rustix::io::Errno;
pub use vgpu::{creatable_types, set_vgpu_type, supported_types};
