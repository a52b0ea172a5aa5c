//! Instances: what a user wants of a VM ([`Spec`], [`Intent`]) and what is ([`Status`]).
//!
//! [`machine`] turns one into the other's name; [`check`] refuses what cannot be.

pub mod check;
pub mod machine;
pub mod rebuild;
pub mod rest;
pub mod seed;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::condition::Condition;
use crate::device;
use crate::id::{HostId, ImageUid, InstanceUid, NetworkId, TenantId};
use crate::join;
use crate::meta::{Labels, Meta};
use crate::placement;
use crate::quota::{self, Charges};

pub use machine::State;

pub const ID_MAX: usize = 50;
pub const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(90);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    pub uid: InstanceUid,
    pub tenant: TenantId,
    pub id: String,
    pub meta: Meta,
    pub spec: Spec,
    pub intent: Intent,
    /// Where it is, and on which exact piece.
    pub placement: Option<placement::Placement>,
    /// How far it is with becoming a node; `None`: it joins no cluster.
    pub node: Option<join::machine::Node>,
    pub status: Status,
}

impl Instance {
    #[must_use]
    pub fn name(&self) -> String {
        format!("tenants/{}/instances/{}", self.tenant, self.id)
    }

    #[must_use]
    pub fn host(&self) -> Option<&HostId> {
        self.placement.as_ref().map(|placement| &placement.host)
    }

    /// A rebuild was asked for, and no host has said yet that the new disk is there.
    #[must_use]
    pub fn lacks_disk(&self) -> bool {
        let made = self.status.observed.as_ref().map_or(0, |seen| seen.disk_generation);
        made < self.intent.disk_generation
    }

    /// It is to be rebuilt on another host, and has not left this one.
    #[must_use]
    pub fn leaves_host(&self) -> bool {
        self.intent.away_from.is_some() && self.intent.away_from.as_ref() == self.host()
    }
}

/// The shape, fixed at creation but for the devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    pub vcpus: i64,
    pub memory_mib: i64,
    /// As the user named it.
    pub image: String,
    pub image_uid: ImageUid,
    pub disks: Vec<Disk>,
    pub interfaces: Vec<Interface>,
    pub cpu: Cpu,
    /// 0: ordinary memory.
    pub huge_page_kib: i64,
    pub cloud_init: CloudInit,
    pub host_selector: Labels,
    pub policy: placement::Policy,
    pub devices: Vec<device::Request>,
    /// The node of a Kubernetes cluster that it becomes; `None`: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<join::node::Wish>,
}

impl Spec {
    #[must_use]
    pub fn disk_gib(&self) -> i64 {
        self.disks.iter().map(|disk| disk.size_gib).sum()
    }

    /// What it takes of the quota of its tenant and every ancestor, for as long as it exists. Its devices are charged apart, by the
    /// exact pieces and for as long as it has them.
    #[must_use]
    pub fn charges(&self) -> Charges {
        [
            (quota::VCPUS, self.vcpus),
            (quota::MEMORY_MIB, self.memory_mib),
            (quota::DISK_GIB, self.disk_gib()),
            (quota::INSTANCES, 1),
        ]
        .into_iter()
        .filter(|(_, amount)| *amount > 0)
        .map(|(resource, amount)| (resource.to_owned(), amount))
        .collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub size_gib: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub network: NetworkId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cpu {
    pub dedicated: bool,
    pub single_numa_cell: bool,
}

/// The parts of the seed that may be shown. The user data itself is a secret of the store.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CloudInit {
    pub hostname: String,
    pub ssh_authorized_keys: Vec<String>,
    pub network_config: String,
    /// `sha256:…` of the user data; empty: none.
    pub user_data_digest: String,
}

/// What the user may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub power: Power,
    pub restart: Restart,
    pub stop_timeout: Duration,
    /// Raised by each start and stop.
    pub power_generation: i64,
    /// How long the stop of this `power_generation` may take, when the call said so.
    pub stop_timeout_once: Option<Duration>,
    pub reboot_generation: i64,
    pub reset_generation: i64,
    /// Raised by each rebuild: a root disk of a lower one is thrown away, and a new one made.
    #[serde(default)]
    pub disk_generation: i64,
    /// The host that it is to leave for another one, or has left and must not be placed on again; `None` once it is placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away_from: Option<HostId>,
    /// With `meta.delete_time`: pull the plug.
    pub delete_force: bool,
    /// Device requests that are to leave, with the generation that said so: only a host that answers to that one can say
    /// that they have left.
    pub detaching: BTreeMap<String, i64>,
    /// Digest of the seed that the host fetches.
    pub seed_digest: String,
}

impl Intent {
    /// Of one that is created, before its seed is known.
    #[must_use]
    pub fn first(power: Power, restart: Restart, stop_timeout: Duration) -> Self {
        Self {
            power,
            restart,
            stop_timeout,
            power_generation: 1,
            stop_timeout_once: None,
            reboot_generation: 0,
            reset_generation: 0,
            disk_generation: 0,
            away_from: None,
            delete_force: false,
            detaching: BTreeMap::new(),
            seed_digest: String::new(),
        }
    }

    #[must_use]
    pub fn effective_stop_timeout(&self) -> Duration {
        self.stop_timeout_once.unwrap_or(self.stop_timeout)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Power {
    Running,
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Restart {
    Always,
    OnFailure,
    Never,
}

/// What is, as the plane tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub state: State,
    pub state_time: Timestamp,
    /// One word; empty when all is well.
    pub reason: String,
    pub message: String,
    /// The last truth that the host told; `None` until it did.
    pub observed: Option<Observed>,
    pub observed_time: Option<Timestamp>,
}

impl Status {
    /// Of one that is created: no host has said anything yet.
    #[must_use]
    pub fn first(state: State, now: Timestamp) -> Self {
        Self {
            state,
            state_time: now,
            reason: String::new(),
            message: String::new(),
            observed: None,
            observed_time: None,
        }
    }
}

/// One truth from a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// Of the desired object that it answers to.
    pub generation: i64,
    pub phase: Phase,
    pub reason: String,
    pub message: String,
    pub conditions: Vec<Condition>,
    pub addresses: Vec<Address>,
    pub exit: Option<Exit>,
    pub start_time: Option<Timestamp>,
    pub restart_count: i64,
    pub power_generation: i64,
    pub reboot_generation: i64,
    pub reset_generation: i64,
    /// Of the root disk. Once told it is kept: a host that lost sight of the domain says 0.
    #[serde(default)]
    pub disk_generation: i64,
    /// Device requests that the guest has now.
    pub attached_devices: Vec<String>,
    /// Device requests that were to leave and have left: out of the guest, cleaned, on nobody's account.
    pub released_devices: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    Absent,
    Preparing,
    Starting,
    Running,
    Stopping,
    Off,
    Paused,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    pub ip: String,
    pub mac: String,
    pub source: String,
    /// Its host gave it to the guest; without that, it is the guest's own word.
    #[serde(default)]
    pub leased: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub kind: ExitKind,
    pub message: String,
    pub time: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExitKind {
    GuestPoweroff,
    Stopped,
    Killed,
    Crashed,
    HostShutdown,
}
