//! The device library: what PCI functions and USB devices a Linux host has, and which pieces a GPU can be cut into.
//!
//! ```no_run
//! let fs = croft_gpu::HostFs::at("/")?;
//! let inventory = croft_gpu::pci::probe(&fs)?;
//! for function in &inventory.devices {
//!     println!("{} {:?}", function.address, function.driver);
//! }
//! for error in &inventory.errors {
//!     eprintln!("{}", croft_gpu::chain(error));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Reaches the kernel only through a [`HostFs`], so that a directory can stand for a host. Refuses to guess: what could
//! not be read is an error that names the device, never a device that is missing or a field that looks free.

mod apart;
pub mod apply;
mod bus;
mod error;
pub mod fabric;
mod flavour;
pub mod gpu;
mod holders;
pub mod host;
mod hostfs;
pub mod identity;
mod kernel_use;
pub mod model;
mod names;
pub mod nvml;
pub mod pci;
pub mod plan;
mod seat;
pub mod uevent;
pub mod usb;
mod vgpu;

pub use bus::Inventory;
pub use croft_gpu_geometry as geometry;
pub use error::{FsError, IfPresent, ProbeCause, ProbeError, chain};
pub use flavour::{Flavour, flavour};
pub use hostfs::{HostFs, Kernel, Node};
