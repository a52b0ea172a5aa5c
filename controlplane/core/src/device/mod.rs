//! Devices: what a host has that a VM can be given, as the host tells it; what is asked for; which exact piece was given.
//!
//! A device is the host's word and is stored as it was said. Who holds what of it is the plane's, in claims of [`Atom`]s.

mod atom;
mod gpu;
mod layout;
mod pool;
mod record;
mod request;

use serde::{Deserialize, Serialize};

pub use atom::{Atom, ParseAtomError};
pub use gpu::{BoardReport, FabricPartition, Gpu, MigInstance, MigProfile, Mode, VgpuType};
pub use layout::{DeviceLayout, FUNCTIONS_MAX, Layout};
pub use pool::{POOL_ID_MAX, Pool, PoolMatch};
pub use record::{Holder, Promise, Record};
pub use request::{Assignment, COUNT_MAX, PER_INSTANCE_MAX, Paths, REQUEST_ID_MAX, Request, Wanted};

use crate::Timestamp;
use crate::id::DeviceId;

/// One device of one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    pub id: DeviceId,
    pub kind: Kind,
    /// The host's word. A quarantine by an operator is the plane's, and stands beside it.
    pub state: State,
    pub reason: String,
    pub message: String,
    /// `10de:2330`
    pub pci_id: String,
    pub vendor_name: String,
    pub device_name: String,
    /// PCI: six hex digits.
    pub class: String,
    pub serial: String,
    pub slot_path: String,
    pub driver: String,
    pub iommu_group: Option<i32>,
    /// The others of its IOMMU group, bridges left out: given along, or it is not given.
    pub companions: Vec<DeviceId>,
    pub numa_node: Option<i32>,
    /// Of a virtual function: whose, and which.
    pub physical: Option<(DeviceId, u16)>,
    /// Of a physical function: how many virtual ones it can have, and has.
    pub functions_total: u16,
    pub functions_count: u16,
    pub gpu: Option<Gpu>,
    pub last_reset: Option<Reset>,
}

impl Device {
    /// Whether placement may take one for the other: what differs is only shown.
    #[must_use]
    pub fn places_like(&self, other: &Self) -> bool {
        self.placed() == other.placed()
    }

    /// Without what is only shown.
    fn placed(&self) -> Self {
        let gpu = self.gpu.clone().map(|gpu| Gpu {
            product_name: String::new(),
            uuid: String::new(),
            mig_enabled: false,
            mig_instances: Vec::new(),
            ..gpu
        });
        Self {
            gpu,
            vendor_name: String::new(),
            device_name: String::new(),
            functions_count: 0,
            last_reset: None,
            ..self.clone()
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Kind {
    Gpu,
    /// A PCI function that is neither a GPU nor virtual.
    Function,
    VirtualFunction,
    Usb,
}

impl Kind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gpu => "GPU",
            Self::Function => "FUNCTION",
            Self::VirtualFunction => "VIRTUAL_FUNCTION",
            Self::Usb => "USB",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Healthy, and ours to give; pieces of it may be held.
    Available,
    Foreign,
    Unhealthy,
    /// By the agent: a reset between two tenants left doubt.
    Quarantined,
    /// A write to it never returned.
    Stuck,
    /// Another card than the one remembered for its slot.
    Changed,
    /// Not seen now. Whoever holds it keeps it.
    Missing,
    /// As the host stands it cannot be given to a VM.
    Unusable,
}

impl State {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "AVAILABLE",
            Self::Foreign => "FOREIGN",
            Self::Unhealthy => "UNHEALTHY",
            Self::Quarantined => "QUARANTINED",
            Self::Stuck => "STUCK",
            Self::Changed => "CHANGED",
            Self::Missing => "MISSING",
            Self::Unusable => "UNUSABLE",
        }
    }
}

/// How it was cleaned between two holders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// `flr`, `bus`, …
    pub method: String,
    pub time: Timestamp,
    pub clean: bool,
    pub message: String,
}
