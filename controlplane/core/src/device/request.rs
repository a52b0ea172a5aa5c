//! What an instance asks for, and the exact piece that it was given.

use serde::{Deserialize, Serialize};

use super::{Atom, Kind, POOL_ID_MAX};
use crate::id::{DeviceId, PoolId};
use crate::quota::device::{is_model, is_profile};
use crate::validate::{Violations, is_slug};

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

/// What can be said of `requests` without knowing any device. `field`: of the list.
pub fn check_requests(field: &str, requests: &[Request], violations: &mut Violations) {
    violations.check(
        requests.len() <= PER_INSTANCE_MAX,
        field,
        format!("at most {PER_INSTANCE_MAX} devices, counts included, not {}", requests.len()),
    );
    for (at, request) in requests.iter().enumerate().take(PER_INSTANCE_MAX) {
        violations.check_slug(&request.id, REQUEST_ID_MAX, &format!("{field}[{at}].id"));
        let twice = requests[..at].iter().any(|earlier| earlier.id == request.id);
        violations.check(!twice, &format!("{field}[{at}].id"), format!("`{}` is there twice", request.id));
        let model = |model: &Option<String>| model.as_deref().is_none_or(is_model);
        let (good, part, wanted) = match &request.wanted {
            Wanted::Gpu { model: named } => (model(named), "gpu.model", MODEL),
            Wanted::Mig { profile, .. } if !is_profile(profile) => (false, "mig.profile", "a MIG profile, `2g.20gb`"),
            Wanted::Mig { model: named, .. } => (model(named), "mig.model", MODEL),
            Wanted::Vgpu { type_name } => (is_profile(type_name), "vgpu.type", "a vGPU type, `H100XM-2-20C`"),
            Wanted::Pool { pool } => (is_slug(pool.as_str(), POOL_ID_MAX), "pool.pool", "`pools/…`"),
        };
        violations.check(good, &format!("{field}[{at}].{part}"), wanted);
    }
}

const MODEL: &str = "a model as `croft gpu list` shows it, `h100_sxm_80gb`";

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
