//! Hosts: what they have, what is taken, and how far the plane can see them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::condition::{Condition, ConditionStatus};
use crate::id::HostId;
use crate::maintenance::Maintenance;
use crate::meta::Meta;

pub const ID_MAX: usize = 63;
/// How long the plane takes a host's word without hearing from it.
pub const LEASE: Duration = Duration::from_secs(30);
pub const HEARTBEAT: Duration = Duration::from_secs(5);
pub const DEFAULT_RESERVE: Resources = Resources { vcpus: 0, memory_mib: 1024, disk_gib: 10 };
pub const DEFAULT_OVERHEAD_MIB: i64 = 256;
pub const DEFAULT_OVERCOMMIT_PERCENT: i64 = 400;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    pub id: HostId,
    pub meta: Meta,
    pub state: State,
    pub cordoned: bool,
    pub maintenance: Option<Maintenance>,
    /// Raised by every fence; an agent with an older one first destroys what was fenced.
    pub epoch: i64,
    pub lease_expire_time: Option<Timestamp>,
    pub capacity: Capacity,
    pub claimed: Resources,
    pub foreign: Resources,
    pub reserve: Resources,
    pub overhead_memory_mib: i64,
    pub cpu_overcommit_percent: i64,
    /// `HostInfo` as the agent sent it, proto JSON: shown, never interpreted here.
    pub info: serde_json::Value,
    /// What the agent can do; kept apart from `info` because placement asks for it.
    pub features: Vec<String>,
    pub conditions: Vec<Condition>,
}

impl Host {
    #[must_use]
    pub fn name(&self) -> String {
        format!("hosts/{}", self.id)
    }

    /// Its agent says so.
    #[must_use]
    pub fn can(&self, feature: &str) -> bool {
        self.features.iter().any(|known| known == feature)
    }

    /// Why it cannot start anything now, by its own word, though it is heard from.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        unready(&self.conditions)
    }
}

/// ```text
///              first report           lease over
///  ENROLLED ──────────────► READY ◄───────────────► UNREACHABLE
///                             ▲      heard again         │
///                             │ comes back with          │ fence (also from READY)
///                             │ the new epoch            ▼
///                             └─────────────────────── FENCED
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    Enrolled,
    Ready,
    Unreachable,
    Fenced,
}

impl State {
    pub const ALL: [Self; 4] = [Self::Enrolled, Self::Ready, Self::Unreachable, Self::Fenced];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enrolled => "ENROLLED",
            Self::Ready => "READY",
            Self::Unreachable => "UNREACHABLE",
            Self::Fenced => "FENCED",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// The condition by which an agent says whether its hypervisor answers.
pub const HYPERVISOR_READY: &str = "HypervisorReady";

/// What conditions say against placing anything there.
#[must_use]
pub fn unready(conditions: &[Condition]) -> Option<String> {
    let fault = conditions.iter().find(|one| one.kind == HYPERVISOR_READY && one.status == ConditionStatus::False)?;
    Some(format!("its hypervisor does not answer ({})", fault.message))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    pub vcpus: i64,
    pub memory_mib: i64,
    pub disk_gib: i64,
}

impl std::ops::Add for Resources {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus + other.vcpus,
            memory_mib: self.memory_mib + other.memory_mib,
            disk_gib: self.disk_gib + other.disk_gib,
        }
    }
}

impl std::ops::Sub for Resources {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus - other.vcpus,
            memory_mib: self.memory_mib - other.memory_mib,
            disk_gib: self.disk_gib - other.disk_gib,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capacity {
    pub cells: Vec<Cell>,
    /// Logical CPUs online.
    pub vcpus: i64,
    pub memory_mib: i64,
    pub disk_gib: i64,
    pub disk_free_gib: i64,
}

/// A NUMA cell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cell {
    pub id: i32,
    /// Logical CPUs, grouped by the core that they share.
    pub cores: Vec<Vec<i32>>,
    pub memory_mib: i64,
    /// Page size in KiB to pages in all.
    pub huge_pages: BTreeMap<i64, i64>,
}

impl Capacity {
    /// Ordinary memory: what no huge page pool holds.
    #[must_use]
    pub fn ordinary_memory_mib(&self) -> i64 {
        let huge_kib: i64 = self.cells.iter().flat_map(|cell| &cell.huge_pages).map(|(size, n)| size * n).sum();
        self.memory_mib - huge_kib / 1024
    }
}
