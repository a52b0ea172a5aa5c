//! What a host says of a GPU beyond its being a PCI function.

use croft_gpu_geometry::{Board, BoardError, Media, Profile};
use serde::{Deserialize, Serialize};

use crate::id::DeviceId;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Croft's word for it, by which quota counts: `h100_sxm_80gb`. Empty: not in the agent's table, and not placed on.
    pub model: String,
    pub product_name: String,
    pub uuid: String,
    pub memory_mib: i64,
    /// What it is set up for on the host now. What it is promised for is the plane's row.
    pub mode: Mode,
    pub mig_enabled: bool,
    /// `None`: it has no MIG.
    pub board: Option<BoardReport>,
    pub mig_instances: Vec<MigInstance>,
    /// `none`, `dormant`, `mdev`, `vendor`
    pub vgpu_framework: String,
    pub vgpu_types: Vec<VgpuType>,
    pub heterogeneous_capable: bool,
    pub fabric_partitions: Vec<FabricPartition>,
}

impl Gpu {
    /// What its time-sliced vGPUs share, in the nominal sizes of their types: four of 20 GiB fit on an 80 GiB board, though its
    /// memory is some MiB short of that.
    #[must_use]
    pub fn shared_framebuffer_mib(&self) -> i64 {
        let shared = self.vgpu_types.iter().filter(|one| one.mig_profile.is_empty());
        let most = shared.map(|one| one.framebuffer_mib.saturating_mul(one.max_count)).max();
        most.unwrap_or(0).max(self.memory_mib)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Mode {
    #[default]
    Idle,
    Passthrough,
    Vgpu,
    MigVgpu,
    /// Left to others, never touched.
    Foreign,
}

impl Mode {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "IDLE",
            Self::Passthrough => "PASSTHROUGH",
            Self::Vgpu => "VGPU",
            Self::MigVgpu => "MIG_VGPU",
            Self::Foreign => "FOREIGN",
        }
    }
}

/// The board's two rulers and what divides them, as the driver lists them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardReport {
    pub memory_slices: u8,
    pub compute_slices: u8,
    pub profiles: Vec<MigProfile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigProfile {
    /// `2g.20gb`, `1g.10gb+me`
    pub name: String,
    pub memory_slices: u8,
    pub starts: Vec<u8>,
    pub compute_slices: u8,
    pub memory_mib: i64,
    pub max_count: i64,
}

impl BoardReport {
    /// `Err`: it contradicts itself, and nothing is placed on it.
    pub fn board(&self) -> Result<Board, BoardError> {
        let profile = |profile: &MigProfile| Profile {
            name: profile.name.clone(),
            memory_slices: profile.memory_slices,
            starts: profile.starts.clone(),
            compute_slices: profile.compute_slices,
            media: Media::of(&profile.name),
        };
        Board::new(self.memory_slices, self.compute_slices, self.profiles.iter().map(profile).collect())
    }

    #[must_use]
    pub fn profile(&self, name: &str) -> Option<&MigProfile> {
        self.profiles.iter().find(|profile| profile.name == name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigInstance {
    pub profile: String,
    pub start: u8,
    pub size: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VgpuType {
    /// `H100XM-2-20C`
    pub name: String,
    pub framebuffer_mib: i64,
    /// MIG-backed: the GPU instance below it. Empty: time-sliced.
    pub mig_profile: String,
    /// Per GPU; MIG-backed ones per GPU instance.
    pub max_count: i64,
}

/// A set of GPUs that NVSwitch connects with each other and with nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FabricPartition {
    pub id: i64,
    pub gpus: Vec<DeviceId>,
}
