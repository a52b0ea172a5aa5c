//! Carrying out a plan.
//!
//! ```text
//!  Applier ── Work ──► Executor ── request ──► helper process: look · guard · effect · read back ──► Access ──► the host
//!  steps in order,     a deadline; kill;       `helper_main`, `perform`                              files, NVML,
//!  undo in reverse     stuck or gone                                                                 Fabric Manager, tools
//! ```
//! - `applier`: forward, back, and the [`Outcome`].
//! - `executor`, `child`, `cgroup`, `helper`, `locks`, `lock_holder`, `work`: the process that can be given up, and what is said to and by it.
//! - `perform`, `standing`, `guard`, `effect`, `reset`, `reset_usb`: one step. `effect` is dull; the judgement is around it.
//!
//! Does not plan, remembers nothing beyond a plan (the journal is the caller's), and knows no owners: it holds to what the
//! plan says, and refuses a step when the host is no longer what the plan was made from.

mod access;
mod applier;
mod cgroup;
mod child;
mod effect;
mod error;
mod executor;
mod guard;
mod helper;
mod library;
mod lock_holder;
mod locks;
mod outcome;
mod perform;
mod reset;
mod reset_usb;
mod sriov_manage;
mod standing;
mod tools;
mod words;
mod work;

pub use access::{Access, FabricManager, NvmlVerbs, OpenNvml, Result, Site, Tools, UsbPorts};
pub use applier::{Applier, TakenBack};
pub use cgroup::Cgroup;
pub use child::ChildProcess;
pub use error::{Deferred, StepError};
pub use executor::{Carried, Ending, Executor, InProcess};
pub use guard::Culprit;
pub use helper::{die_with, helper_main, serve};
pub use library::Library;
pub use outcome::{Failure, Left, Outcome, Stuck, Undone};
pub use reset::{ResetOutcome, ResetRecord};
pub use reset_usb::HostUsb;
pub use tools::{HostTools, SRIOV_MANAGE};
pub use work::{Done, Found, Line, Remembered, Request, Standing, Work};
