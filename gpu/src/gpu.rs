//! One GPU, as its driver and sysfs tell it together. Data only: [`crate::host`] puts it together.

pub mod faults;

use croft_gpu_geometry::Placement;
use serde::{Deserialize, Serialize};

use crate::identity::Identity;
use crate::pci::PciAddress;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    pub address: PciAddress,
    /// `10de:2330`
    pub pci_id: String,
    /// Croft's word for the model (`h100_sxm_80gb`), from [`crate::model`]; `None`: not in the table.
    pub model: Option<String>,
    /// As the driver calls it: `NVIDIA H100 80GB HBM3`. `None` while no NVIDIA driver holds it.
    pub name: Option<String>,
    pub identity: Identity,
    /// The number on the board's sticker, which the driver knows.
    pub board_serial: Option<String>,
    pub memory_mib: Option<u64>,
    /// Which files `/dev/nvidia{minor}` and `/proc/driver/nvidia/capabilities/gpu{minor}` are its.
    pub minor: Option<u32>,
    pub mig: Mig,
    pub vgpu: VgpuSupport,
    /// What a vGPU host driver can make of this board, whether or not it fits now.
    pub vgpu_types: Vec<SupportedVgpu>,
    /// May its vGPUs differ in framebuffer size? `None`: the driver would not say, or makes no vGPUs.
    pub heterogeneous: Option<bool>,
    /// Could they? By the driver's word; false where it has none.
    pub heterogeneous_capable: bool,
    pub persistence: Option<bool>,
    pub health: Health,
}

/// What MIG is on this GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mig {
    /// The driver answers that this board has none.
    Unsupported,
    /// No NVIDIA driver holds the function, or it would not say: nothing is known, and nothing may be carved.
    Unknown {
        why: String,
    },
    Supported(MigState),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigState {
    pub current: bool,
    /// Differs from `current` until a reset or reboot.
    pub pending: bool,
    pub memory_slices: u8,
    pub compute_slices: u8,
    /// In the order of the driver's profile enumeration. Readable with MIG off on newer drivers only; else empty.
    pub profiles: Vec<GpuInstanceProfile>,
    pub instances: Vec<GpuInstance>,
}

/// A kind of GPU instance, by its name on this board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuInstanceProfile {
    /// `2g.20gb`, `1g.10gb+me`
    pub name: String,
    /// Differs between boards and drivers: used for the next call, never stored.
    pub id: u32,
    pub compute_slices: u8,
    pub memory_mib: u64,
    pub multiprocessors: u32,
    /// The most of them at once: `1g.10gb+me` lists seven placements and allows one.
    pub max_count: u32,
    pub placements: Vec<Span>,
    /// Free now, by the driver's word. `None`: it would not say (MIG off, old driver).
    pub remaining: Option<u32>,
}

/// A run of memory slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span {
    pub start: u8,
    pub size: u8,
}

impl From<Placement> for Span {
    fn from(Placement { start, size }: Placement) -> Self {
        Self { start, size }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuInstance {
    /// Made up by the driver, neither dense nor ordered; another one after every re-creation.
    pub id: u32,
    pub profile: String,
    pub placement: Span,
    pub compute_instances: Vec<u32>,
}

/// How this GPU's driver makes vGPUs. Seen on its functions, never guessed from versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VgpuSupport {
    /// No vGPU host driver: neither files on any function nor the driver's own word.
    None,
    /// The driver makes vGPUs; how shows when its virtual functions are there.
    Dormant,
    /// `mdev_supported_types` on the function itself (Turing and older) or on each virtual function.
    Mdev,
    /// `nvidia/current_vgpu_type` on each virtual function.
    Vendor,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SupportedVgpu {
    /// Local to this card and driver.
    pub id: u32,
    /// `H100XM-2-20C`, without the driver's prefix (`NVIDIA `, `GRID `).
    pub name: String,
    pub framebuffer_mib: u64,
    /// The GPU instance below a MIG-backed one; `None`: time-sliced.
    pub mig_profile: Option<String>,
    /// Per GPU; of a MIG-backed one per GPU instance, where the driver says so.
    pub max_count: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Empty: nothing is wrong that can be seen.
    pub faults: Vec<Fault>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fault {
    /// One of [`faults::ALL`].
    pub reason: String,
    pub message: String,
}
