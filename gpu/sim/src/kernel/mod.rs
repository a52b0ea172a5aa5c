//! The kernel of a simulated host: the tree of files it keeps, and what it answers when one is written.
//!
//! ```text
//!  Hardware ──boot──► Machine ──tree──► <root>/sys, /proc/driver, /dev
//!  (hardware.json)    (kernel.json)        ▲ read by anybody, through croft_gpu::HostFs
//!                        ▲                 │ written through SimKernel only:
//!                        └──── a rule ◄────┘   bind sriov mdev vgpu reset usb; refuses, waits, or changes the Machine
//! ```
//! The Machine is what counts; files are made from it. Facts about GPUs are the driver's (`crate::driver`), and the files that
//! show them follow. Every refusal is the errno of a real kernel, tried on one or read in its source. Who has a device open is
//! said by links in the simulated `/proc/PID/fd` ([`SimHost::hold`], [`SimHost::open_vfio`]).
//!
//! Not simulated: interrupts, DMA, power states, hot-plug of cards other than by removal and rescan, and uevents.

mod bind;
mod boot;
mod drivers;
mod dump;
mod hardware;
mod host;
mod machine;
mod mdev;
mod presets;
mod processes;
mod reset;
mod session;
mod shape;
mod sriov;
mod sriov_manage;
#[cfg(test)]
mod tests;
mod tree;
mod usb;
mod vgpu;
mod view;
mod write;

pub use dump::dump;
pub use hardware::{Hardware, Iommu, Isolation, Slot, UsbPlug, Vfio};
pub use host::{SimHost, scratch};
pub use presets::PRESETS;
pub use processes::Process;
pub(crate) use processes::holders;
pub(crate) use session::follow;
pub use sriov_manage::{SriovManageError, sriov_manage};
pub use usb::reset as usb_reset;
pub use write::SimKernel;
