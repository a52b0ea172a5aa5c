//! A stand-in for NVIDIA's `libnvidia-ml.so.1`, over the rules and the shared state of `croft_gpu_sim`.
//!
//! ```text
//!  croft-hostagent ── nvml-wrapper ──┐
//!  nvidia-ml-py, ctypes ─────────────┼─ dlopen ─► this library ─► croft_gpu_sim::driver ─► $CROFT_SIM_ROOT/run/croft-sim
//!  another process ──────────────────┘
//! ```
//! Every exported function has the type that NVIDIA's has: the compiler checks it against nvml-wrapper-sys. What of their
//! behaviour is captured from real boards, and what differs, says the README of this crate.
//!
//! Reads are answered from the state as it is between two changes; changes take the host's lock. Every function first looks
//! into `faults.json` under its own name. All that is unsafe is in `c`; the functions themselves see values that it vouches for.

mod c;
mod call;
mod handle;

mod compute_instance;
mod events;
mod fabric;
mod gpu_instance;
mod hardware;
mod heterogeneous;
mod identity;
mod mig;
mod system;
mod vgpu_instance;
mod vgpu_type;
