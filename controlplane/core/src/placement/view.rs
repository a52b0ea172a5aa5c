//! A host as placement sees it: what is left after everything that is taken.

use std::collections::{BTreeMap, BTreeSet};

use super::device::{DeviceClaim, DeviceViews};
use super::{Pin, Placement};
use crate::host::{Capacity, Host, Resources, State};
use crate::id::HostId;
use crate::instance::rebuild;
use crate::instance::seed::FILES_FEATURE;
use crate::maintenance;
use crate::meta::Labels;

#[derive(Debug, Clone, PartialEq)]
pub struct HostView {
    pub id: HostId,
    /// The row's version: a commit against another one is refused and placed again.
    pub version: i64,
    pub labels: Labels,
    pub state: State,
    pub cordoned: bool,
    pub maintenance: Option<maintenance::Phase>,
    /// By its own word it can start nothing now.
    pub unready: Option<String>,
    pub capacity: Capacity,
    pub reserve: Resources,
    pub foreign: Resources,
    pub overhead_memory_mib: i64,
    pub cpu_overcommit_percent: i64,
    /// Of every instance claimed here: vCPUs (shared ones), ordinary memory with overhead, disk.
    pub claimed: Resources,
    /// Logical CPUs that one instance has to itself.
    pub dedicated: BTreeSet<i32>,
    /// (cell, page size in KiB) to MiB taken.
    pub huge_claimed: BTreeMap<(i32, i64), i64>,
    pub instances: i64,
    pub devices: DeviceViews,
    /// It has told of its devices since it started.
    pub devices_seen: bool,
    /// Its agent can give a guest what it joins a cluster with.
    pub seed_files: bool,
    /// Its agent can give an instance another root disk.
    pub rebuilds: bool,
}

/// What one instance takes of a host; stored as its claim and given back as it was taken.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Claim {
    /// vCPUs out of the shared ones: 0 for dedicated CPUs.
    pub shared: Resources,
    /// Logical CPUs that nobody else runs on: those that are pinned, and their siblings.
    pub dedicated: Vec<i32>,
    /// (cell, page size in KiB, MiB)
    pub huge: Vec<(i32, i64, i64)>,
    pub devices: Vec<DeviceClaim>,
}

impl HostView {
    /// Without its claims, which the caller adds with [`HostView::take`].
    #[must_use]
    pub fn empty(host: &Host, version: i64) -> Self {
        Self {
            id: host.id.clone(),
            version,
            labels: host.meta.labels.clone(),
            state: host.state,
            cordoned: host.cordoned,
            maintenance: host.maintenance.as_ref().map(|maintenance| maintenance.phase),
            unready: host.unready(),
            capacity: host.capacity.clone(),
            reserve: host.reserve,
            foreign: host.foreign,
            overhead_memory_mib: host.overhead_memory_mib,
            cpu_overcommit_percent: host.cpu_overcommit_percent,
            claimed: Resources::default(),
            dedicated: BTreeSet::new(),
            huge_claimed: BTreeMap::new(),
            instances: 0,
            devices: DeviceViews::default(),
            devices_seen: false,
            seed_files: host.can(FILES_FEATURE),
            rebuilds: host.can(rebuild::FEATURE),
        }
    }

    /// What `request` at `placement` takes here.
    #[must_use]
    pub fn claim(&self, request: &super::Request, placement: &Placement) -> Claim {
        let pins = &placement.pins;
        let huge: Vec<_> = match request.huge_page_kib {
            0 => Vec::new(),
            size => pins.iter().map(|pin| (pin.cell, size, pin.memory_mib)).collect(),
        };
        let own_memory = if huge.is_empty() { request.memory_mib } else { 0 };
        Claim {
            shared: Resources {
                vcpus: if request.cpu.dedicated { 0 } else { request.vcpus },
                memory_mib: own_memory + self.overhead_memory_mib,
                disk_gib: request.disk_gib,
            },
            dedicated: self.whole_cores(pins),
            huge,
            devices: placement.devices.iter().flat_map(|assignment| self.devices.claims(assignment)).collect(),
        }
    }

    /// The cores that `pins` touch, with every sibling: a core is never shared between a dedicated CPU and anybody else.
    #[must_use]
    pub fn whole_cores(&self, pins: &[Pin]) -> Vec<i32> {
        let pinned: BTreeSet<i32> = pins.iter().flat_map(|pin| pin.cpus.iter().copied()).collect();
        let cores = self.capacity.cells.iter().flat_map(|cell| &cell.cores);
        cores.filter(|core| core.iter().any(|cpu| pinned.contains(cpu))).flatten().copied().collect()
    }

    pub fn take(&mut self, claim: &Claim) {
        self.claimed = self.claimed + claim.shared;
        self.dedicated.extend(&claim.dedicated);
        for (cell, size, mib) in &claim.huge {
            *self.huge_claimed.entry((*cell, *size)).or_default() += mib;
        }
        self.devices.take(&claim.devices);
        self.instances += 1;
    }

    pub fn give_back(&mut self, claim: &Claim) {
        self.claimed = self.claimed - claim.shared;
        self.dedicated.retain(|cpu| !claim.dedicated.contains(cpu));
        for (cell, size, mib) in &claim.huge {
            *self.huge_claimed.entry((*cell, *size)).or_default() -= mib;
        }
        self.devices.give_back(&claim.devices);
        self.instances -= 1;
    }

    /// In-memory twin of a commit: the next request of the batch sees it.
    pub fn apply(&mut self, request: &super::Request, placement: &Placement) -> Claim {
        let claim = self.claim(request, placement);
        self.take(&claim);
        claim
    }

    /// vCPUs that may be placed on CPUs nobody has to himself, less the reserve and what foreign domains hold.
    #[must_use]
    pub fn shared_vcpus(&self) -> i64 {
        let cpus = self.capacity.vcpus - i64::try_from(self.dedicated.len()).unwrap_or(i64::MAX) - self.reserve.vcpus;
        (cpus.max(0) * self.cpu_overcommit_percent) / 100 - self.foreign.vcpus
    }

    /// What is left of what is shared; may be below zero after an operator shrank something.
    #[must_use]
    pub fn free(&self) -> Resources {
        Resources {
            vcpus: self.shared_vcpus() - self.claimed.vcpus,
            memory_mib: self.capacity.ordinary_memory_mib()
                - self.reserve.memory_mib
                - self.foreign.memory_mib
                - self.claimed.memory_mib,
            // What foreign domains and images hold is already missing from what the file system says is free; what
            // instances were promised and did not write yet is not.
            disk_gib: self.capacity.disk_gib - self.reserve.disk_gib - self.foreign.disk_gib - self.claimed.disk_gib,
        }
    }

    /// Huge page memory left in a cell, in MiB.
    #[must_use]
    pub fn huge_free_mib(&self, cell: i32, size_kib: i64) -> i64 {
        let total = self
            .capacity
            .cells
            .iter()
            .find(|candidate| candidate.id == cell)
            .and_then(|found| found.huge_pages.get(&size_kib))
            .map_or(0, |pages| pages * size_kib / 1024);
        total - self.huge_claimed.get(&(cell, size_kib)).copied().unwrap_or(0)
    }
}
