//! NVIDIA's management library: what its GPUs say of themselves, and the verbs that change them.
//!
//! ```text
//!  child process                                      agent
//!  snapshot() ── NvmlSnapshot ── JSON on a pipe ────► Host::probe(fs, &NvmlSource)
//!  watch_events() ── GpuEvent, line by line ────────► health
//!  Nvml::open() … one verb … drop                     a step of a plan
//! ```
//! Every call here may hang with the driver, and mode changes fail while *any* process has the library open, so all of it is
//! written to run in a child that can be closed and killed. Nothing keeps a handle: a reset or a mode change invalidates them.
//!
//! Calls that nvml-wrapper has, and has right, go through it. GPU instances are called directly: it has no creation, no
//! destruction, and its list of placements is always empty (0.13 reserves the room and never counts it).

mod compute;
mod error;
mod events;
mod health;
mod mig;
mod name;
mod session;
mod snapshot;
mod vgpu;

pub use error::{NvmlError, code, meaning};
pub use events::{GpuEvent, GpuEventKind, watch_events};
pub use session::{MigMode, Nvml};
pub use snapshot::{NvmlGpu, NvmlSnapshot, NvmlSource, snapshot};
