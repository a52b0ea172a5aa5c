//! What is installed, and what else works on this machine.

pub(super) mod guests;
pub(super) mod kernel;
pub(super) mod libvirt;
pub(super) mod others;
pub(super) mod qemu;
pub(super) mod tools;
pub(super) mod tpm;
pub(super) mod uefi;
pub(super) mod vfio;
