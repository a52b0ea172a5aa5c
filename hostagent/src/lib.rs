//! The host agent: runs the instances that the control plane placed on this machine.

pub mod hypervisor;
pub mod inventory;
pub mod media;
pub mod reasons;
