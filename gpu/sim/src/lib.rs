//! Simulated hosts: boards named after products, a kernel that answers when it is written to, and an NVIDIA driver with rules.
//!
//! ```text
//!  <root>/sys, /proc, /dev        files that `kernel` keeps true          read through croft_gpu::HostFs
//!  <root>/run/croft-sim/
//!      nvidia.json                the driver's state of every board       read through libnvidia-ml.so.1 (gpu/nvml-sim)
//!      hardware.json              what is plugged in; outlives a reboot
//!      kernel.json                what the kernel knows since it was booted; the tree is made from it
//!      lock                       held by whoever changes any of it
//!      faults.json                what is to go wrong
//!      clients/                   who has an NVML session open
//! ```
//! Everything is in files below one root, so that an agent, its helper processes and a test see the same host. A simulated
//! host refuses what hardware refuses. What it does is taken from captures and measurements; a number that nobody has seen
//! on the real thing is marked unverified where it stands.

#![forbid(unsafe_code)]

pub mod access;
pub mod boards;
pub mod clients;
pub mod driver;
pub mod faults;
pub mod kernel;
pub mod state;
