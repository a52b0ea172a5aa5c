//! Is this machine fit to be a host of Croft, and if not, what would make it so? Facts in, findings out.
//!
//! ```text
//!  Facts::here  ──►  the machine's files (HostFs), its devices, and what no file tells (asked)
//!  examine      ──►  every check of CHECKS over those facts: pure, the same on a tree of files
//! ```
//! Changes nothing and loads no module: files are read, a few programs are asked for their version, a vCPU of our own runs for
//! a moment where KVM is there already. Neither NVML nor libvirt is called, since both start or load things.
//! Needs no control plane. What may not be seen without root is a finding that says so, never a guess.

mod check;
mod facts;
mod finding;
pub mod kvm;
mod report;

pub use check::{CHECKS, Check};
pub use croft_gpu::HostFs;
pub use facts::{Asked, Clock, Disk, Facts, NvidiaModule, Plane, Question, User};
pub use finding::{Finding, Level};
pub use report::{Report, examine};
