//! Planning: what is there, and what is wished for, to the steps between them, or the reason why there are none. Pure.
//!
//! ```text
//!  Host (one look) ─┐
//!  Owners (journal) ├─► plan ─► Plan { steps }    carried out by `crate::apply`, one by one
//!  Wish ────────────┘        └► Refusal           says who stands in the way, and what would help
//! ```
//! A wish that is true already gives a plan without steps, so that planning again after a crash goes on where it stopped.
//! The steps of a plan, undone in reverse, lead back to where it began: what a step would wipe on the side (GPU instances, a
//! flag) is taken away by a step of its own before.
//!
//! Never plans anything on a device that an error names, that somebody else owns, or that a process holds open. A change that
//! a whole GPU feels is refused while any piece of it is in use, the asker's own too.

mod driver;
mod fabric;
mod give_back;
mod look;
mod mdev;
mod mig;
mod mode;
mod passthrough;
mod refusal;
mod reset;
mod sriov;
mod step;
mod type_name;
pub mod usb;
mod vgpu;

#[cfg(test)]
mod model;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::gpu::Span;
use crate::host::Host;
use crate::pci::PciAddress;

pub use give_back::give_back;
pub use refusal::{Reason, Refusal};
pub use reset::ladder;
pub use step::Step;
pub use type_name::TypeName;

/// What is to be true of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "snake_case")]
pub enum Wish {
    /// On vfio-pci with every companion of its IOMMU group: a whole GPU, a NIC, a virtual function, an NVMe drive. A GPU is
    /// made idle before (no virtual functions, MIG off).
    Passthrough {
        address: PciAddress,
    },
    /// The functions that a passthrough took, back where each was; cleaned on the way.
    Return {
        homes: BTreeMap<PciAddress, Home>,
    },
    /// So many virtual functions of an ordinary SR-IOV device. `autoprobe`: they find the host's drivers by themselves, which
    /// those for guests must not.
    VirtualFunctions {
        physical: PciAddress,
        count: u16,
        #[serde(default)]
        autoprobe: bool,
    },
    /// `parent`: a PCI address, or the name of a maker that is no PCI function (`mtty`). `type_name`: name or id of the type. With `gpu_instance`: backed by that piece of the parent's GPU.
    Mdev {
        parent: String,
        type_name: String,
        uuid: String,
        gpu_instance: Option<MigPiece>,
    },
    /// And no GPU instance below it, unless other vGPUs stand on that.
    NoMdev {
        parent: String,
        uuid: String,
        gpu_instance: Option<MigPiece>,
    },
    /// A time-sliced vGPU on one of NVIDIA's virtual functions, or, with `gpu_instance`, one backed by that GPU instance.
    Vgpu {
        function: PciAddress,
        type_name: String,
        gpu_instance: Option<MigPiece>,
    },
    /// And no GPU instance below it, unless other vGPUs stand on that.
    NoVgpu {
        function: PciAddress,
        gpu_instance: Option<MigPiece>,
    },
    /// The GPU's mode; its neighbours are not touched.
    Mode {
        gpu: PciAddress,
        mode: Mode,
    },
    FabricPartition {
        id: u32,
        active: bool,
    },
    /// Plugged in, for a guest: QEMU takes it from its driver and gives it back by itself.
    Usb {
        device: usb::UsbIdentity,
    },
    /// Cleaned after a guest, if it is still plugged in: without power it keeps nothing but what it is meant to keep.
    NoUsb {
        device: usb::UsbIdentity,
    },
}

impl Wish {
    /// Does it only give back what another wish took?
    fn gives_back(&self) -> bool {
        match self {
            Wish::Return { .. } | Wish::NoMdev { .. } | Wish::NoVgpu { .. } | Wish::NoUsb { .. } => true,
            Wish::FabricPartition { active, .. } => !active,
            Wish::Passthrough { .. }
            | Wish::VirtualFunctions { .. }
            | Wish::Mdev { .. }
            | Wish::Vgpu { .. }
            | Wish::Mode { .. }
            | Wish::Usb { .. } => false,
        }
    }
}

/// Where a function belongs while no guest has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// `None`: bound to nobody.
    pub driver: Option<String>,
    pub driver_override: Option<String>,
    /// Of a GPU on NVIDIA's driver.
    pub persistence: Option<bool>,
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
    /// Virtual functions on, MIG off: time-sliced vGPUs of one framebuffer size.
    Vgpu,
    /// The same, of several sizes (heterogeneous).
    VgpuMixed,
    /// MIG on, then virtual functions on: MIG-backed vGPUs.
    MigVgpu,
}

/// Who holds which piece, by the word of the agent's journal, and who asks. A piece that is not listed is nobody's that we
/// know of, which is not yet "free": processes are looked at, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// For whom the wish is: the word that stands for it below. `None`: the host itself.
    pub asker: Option<String>,
    /// Function or mdev UUID to its owner.
    pub functions: BTreeMap<String, String>,
    pub gpu_instances: Vec<OwnedInstance>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedInstance {
    pub gpu: PciAddress,
    pub piece: MigPiece,
    pub owner: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub steps: Vec<Step>,
}

/// The steps from what `host` shows to what is wished.
///
/// What gives the wish back is to be asked of [`give_back`] before the first step, and remembered.
pub fn plan(host: &Host, owners: &Owners, wish: &Wish) -> Result<Plan, Refusal> {
    let look = look::Look { host, owners, gives_back: wish.gives_back() };
    let steps = match wish {
        Wish::Passthrough { address } => passthrough::plan(look, *address),
        Wish::Return { homes } => give_back::plan_return(look, homes),
        Wish::VirtualFunctions { physical, count, autoprobe } => sriov::plan(look, *physical, *count, *autoprobe),
        Wish::Mdev { parent, type_name, uuid, gpu_instance } => {
            mdev::plan(look, parent, type_name, uuid, gpu_instance.as_ref())
        }
        Wish::NoMdev { parent, uuid, gpu_instance } => mdev::plan_none(look, parent, uuid, gpu_instance.as_ref()),
        Wish::Vgpu { function, type_name, gpu_instance } => {
            vgpu::plan(look, *function, type_name, gpu_instance.as_ref())
        }
        Wish::NoVgpu { function, gpu_instance } => vgpu::plan_none(look, *function, gpu_instance.as_ref()),
        Wish::Mode { gpu, mode } => mode::plan(look, *gpu, *mode),
        Wish::FabricPartition { id, active } => fabric::plan(look, *id, *active),
        Wish::Usb { device } => usb::plan(look, device),
        Wish::NoUsb { device } => usb::plan_none(look, device),
    }?;
    Ok(Plan { steps })
}
