//! What an instance asks for, and the exact piece that it was given.

use serde::{Deserialize, Serialize};

use super::{Atom, Kind};
use crate::id::{DeviceId, PoolId};

pub const REQUEST_ID_MAX: usize = 32;
/// Of one request.
pub const COUNT_MAX: i64 = 16;
/// Devices of one instance, counts included.
pub const PER_INSTANCE_MAX: usize = 32;

/// One device. A request with a count was spread into so many of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Unique in its instance: `gpu-0`.
    pub id: String,
    pub wanted: Wanted,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// `None`: any model that quota allows.
    Gpu {
        model: Option<String>,
    },
    Mig {
        profile: String,
        model: Option<String>,
    },
    Vgpu {
        type_name: String,
    },
    Pool {
        pool: PoolId,
    },
}

impl Wanted {
    /// A whole GPU or a slice of one: a guest that runs is not given it.
    #[must_use]
    pub fn is_gpu(&self) -> bool {
        !matches!(self, Self::Pool { .. })
    }

    /// As a user would write it on the command line.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Gpu { model: None } => "gpu".to_owned(),
            Self::Gpu { model: Some(model) } => format!("gpu {model}"),
            Self::Mig { profile, model: None } => format!("gpu mig={profile}"),
            Self::Mig { profile, model: Some(model) } => format!("gpu mig={profile} of {model}"),
            Self::Vgpu { type_name } => format!("gpu vgpu={type_name}"),
            Self::Pool { pool } => format!("device pool={pool}"),
        }
    }
}

/// Where a call wrote its requests, for refusals: of those that one count was spread into, all have the same place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths(Vec<String>);

impl Paths {
    #[must_use]
    pub fn new(paths: Vec<String>) -> Self {
        Self(paths)
    }

    /// Of the request at `at`. What no call wrote (an instance that is placed anew) is named by its place in the spec.
    #[must_use]
    pub fn of(&self, at: usize) -> String {
        self.0.get(at).cloned().unwrap_or_else(|| format!("instance.spec.devices[{at}]"))
    }
}

/// The exact piece. Its agent refuses a plan that does not match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Of the request.
    pub id: String,
    pub device: DeviceId,
    pub kind: Kind,
    /// PCI: six hex digits.
    pub class: String,
    /// Who it was: the agent refuses another card in the same slot.
    pub serial: String,
    pub pci_id: String,
    pub slot_path: String,
    pub pool: Option<PoolId>,
    /// GPUs only.
    pub model: String,
    /// Of `device`.
    pub atoms: Vec<Atom>,
    /// Given along, each with the atoms of its own.
    pub companions: Vec<(DeviceId, Vec<Atom>)>,
    /// Empty: whole.
    pub mig_profile: String,
    pub mig_start: u8,
    pub mig_size: u8,
    pub vgpu_type: String,
    /// A vGPU's virtual function, from 0.
    pub function_index: Option<u16>,
    /// Framebuffer that a time-sliced vGPU takes of the GPU's row.
    pub framebuffer_mib: i64,
    /// What it charges of `gpu_memory_mib`: nominal.
    pub charged_memory_mib: i64,
    pub fabric_partition: Option<i64>,
}

impl Assignment {
    /// A virtual function of a network card: it is given with a MAC address of ours.
    #[must_use]
    pub fn is_network_function(&self) -> bool {
        self.kind == Kind::VirtualFunction && self.class.starts_with("02")
    }
}
