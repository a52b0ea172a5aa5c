//! The rules of NVIDIA's driver: what it does and what it refuses, on the state of one host.
//!
//! Pure: no function here reads a file or waits. Whoever calls holds the lock of the state and saves it. What the kernel's files
//! answer is an [`Errno`]; what NVML answers is a [`Return`].

mod compute_instance;
mod events;
mod fabric;
mod gpu_instance;
mod lifecycle;
mod mig_mode;
mod returns;
mod vgpu;

pub use compute_instance::{
    COMPUTE_PROFILES, ComputeProfile, compute_profile, create_compute_instance, destroy_compute_instance, instance,
    remaining_compute_capacity,
};
pub use events::raise;
pub use fabric::{FabricError, activate_partition, deactivate_partition, fabric_partitions, tray};
pub use gpu_instance::{create_gpu_instance, destroy_gpu_instance, mig_shape, profile, remaining_capacity};
pub use lifecycle::{bound, reboot, reset, sriov_disabled, sriov_enabled, unbound};
pub use mig_mode::{Activation, set_mig_mode};
pub use returns::Return;
pub use rustix::io::Errno;
pub use vgpu::{
    add_mdev, creatable_types, is_own_parent, remove_mdev, set_heterogeneous, set_vgpu_type, supported_types,
};
