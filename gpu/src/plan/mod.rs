//! Planning: what is there, and what is wished for, to the steps between them, or the reason why there are none. Pure.
//!
//! ```text
//!  Host (one look) ─┐
//!  Owners (journal) ├─► plan ─► Plan { steps }    carried out by `crate::apply`, one by one
//!  Wish ────────────┘        └► Refusal           says who stands in the way, and what would help
//! ```
//! A wish that is true already gives a plan without steps, so that planning again after a crash goes on where it stopped.
//! Never plans anything on a device that an error names, that somebody else owns, or that is held open by a process that
//! is not the owner's.

mod refusal;
mod step;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::gpu::Span;
use crate::host::Host;
use crate::pci::PciAddress;

pub use refusal::Refusal;
pub use step::Step;

/// What is to be true of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "snake_case")]
pub enum Wish {
    /// On vfio-pci with every companion of its IOMMU group: a whole GPU, a NIC, a virtual function, an NVMe drive.
    Passthrough { address: PciAddress },
    /// Back on the driver that it had; `driver` `None`: bound to nobody.
    Return { address: PciAddress, driver: Option<String> },
    /// So many virtual functions of an ordinary SR-IOV device, unbound, for guests. 0: none.
    VirtualFunctions { physical: PciAddress, count: u16 },
    Mdev { parent: PciAddress, type_name: String, uuid: String },
    NoMdev { uuid: String },
    /// A time-sliced vGPU on one of NVIDIA's virtual functions, or, with `gpu_instance`, one backed by that GPU instance.
    Vgpu { function: PciAddress, type_name: String, gpu_instance: Option<MigPiece> },
    /// And the GPU instance below it, if there was one and no other vGPU stands on it.
    NoVgpu { function: PciAddress, gpu_instance: Option<MigPiece> },
    /// The GPU's mode; its neighbours are not touched.
    Mode { gpu: PciAddress, mode: Mode },
    FabricPartition { id: u32, active: bool },
}

/// A GPU instance by what does not change when it is made anew.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MigPiece {
    pub profile: String,
    pub placement: Span,
}

/// What a GPU is set up for when nobody holds any of it. Passthrough has no mode of its own: it is a wish for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// On the host's driver, no virtual functions, MIG off.
    Idle,
    /// Virtual functions on, MIG off: time-sliced vGPUs.
    Vgpu,
    /// MIG on, then virtual functions on: MIG-backed vGPUs.
    MigVgpu,
}

/// Who holds which piece, by the word of the agent's journal. A piece that is not listed is nobody's that we know of,
/// which is not yet "free": processes are looked at, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// Function or mdev UUID to the uid of the instance.
    pub functions: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub steps: Vec<Step>,
}
