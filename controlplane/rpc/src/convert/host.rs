//! Hosts: what operators see of them, and what their agents say.

use std::collections::BTreeMap;

use croft_core::host::{Capacity, Cell, Host, Resources, State};
use croft_proto::v1;

use super::{drain, info, meta, time};

#[must_use]
pub fn out(host: &Host) -> v1::Host {
    v1::Host {
        name: host.name(),
        metadata: Some(meta::out(&host.meta)),
        state: state_out(host.state).into(),
        cordoned: host.cordoned,
        maintenance: host.maintenance.as_ref().map(drain::maintenance_out),
        epoch: host.epoch,
        lease_expire_time: host.lease_expire_time.map(time::out),
        capacity: Some(capacity_out(&host.capacity)),
        claimed: Some(resources_out(host.claimed)),
        foreign: Some(resources_out(host.foreign)),
        reserve: Some(resources_out(host.reserve)),
        overhead_memory_mib: host.overhead_memory_mib,
        info: Some(info::out(&host.info)),
        conditions: host.conditions.iter().map(meta::condition_out).collect(),
        cpu_overcommit_percent: i32::try_from(host.cpu_overcommit_percent).unwrap_or(i32::MAX),
    }
}

fn state_out(state: State) -> v1::host::State {
    match state {
        State::Enrolled => v1::host::State::Enrolled,
        State::Ready => v1::host::State::Ready,
        State::Unreachable => v1::host::State::Unreachable,
        State::Fenced => v1::host::State::Fenced,
    }
}

#[must_use]
pub fn resources_out(resources: Resources) -> v1::Resources {
    let Resources { vcpus, memory_mib, disk_gib } = resources;
    v1::Resources { vcpus, memory_mib, disk_gib }
}

/// As sent; operators' values are checked by the caller.
#[must_use]
pub fn resources_into(resources: v1::Resources) -> Resources {
    let v1::Resources { vcpus, memory_mib, disk_gib } = resources;
    Resources { vcpus, memory_mib, disk_gib }
}

#[must_use]
pub fn capacity_out(capacity: &Capacity) -> v1::Capacity {
    v1::Capacity {
        cells: capacity.cells.iter().map(cell_out).collect(),
        disk_gib: capacity.disk_gib,
        disk_free_gib: capacity.disk_free_gib,
        vcpus: capacity.vcpus,
        memory_mib: capacity.memory_mib,
    }
}

fn cell_out(cell: &Cell) -> v1::NumaCell {
    // Placement counts pages in all and keeps its own books of what is taken; what a host has free right now is not kept.
    let page = |(size_kib, total): (&i64, &i64)| v1::HugePages { size_kib: *size_kib, total: *total, free: 0 };
    v1::NumaCell {
        id: cell.id,
        cores: cell.cores.iter().map(|cpus| v1::CpuCore { cpus: cpus.clone() }).collect(),
        memory_mib: cell.memory_mib,
        huge_pages: cell.huge_pages.iter().map(page).collect(),
    }
}

/// No machine is larger. An agent that says so is broken, and placement, which adds and multiplies these numbers for
/// every host, must not overflow for one of them.
mod most {
    pub const VCPUS: i64 = 1 << 20;
    pub const MIB: i64 = 1 << 40;
    pub const GIB: i64 = 1 << 40;
    pub const CELLS: usize = 256;
    pub const PAGE_SIZES: usize = 8;
    pub const PAGE_KIB: i64 = 1 << 24;
    pub const PAGES: i64 = 1 << 26;
}

/// A host has neither less than nothing nor more than any machine has: such a number is brought to the nearest bound.
#[must_use]
pub fn capacity_into(capacity: v1::Capacity) -> Capacity {
    Capacity {
        cells: capacity.cells.into_iter().take(most::CELLS).map(cell_into).collect(),
        vcpus: capacity.vcpus.clamp(0, most::VCPUS),
        memory_mib: capacity.memory_mib.clamp(0, most::MIB),
        disk_gib: capacity.disk_gib.clamp(0, most::GIB),
        disk_free_gib: capacity.disk_free_gib.clamp(0, most::GIB),
    }
}

fn cell_into(cell: v1::NumaCell) -> Cell {
    let pages = cell.huge_pages.into_iter().filter(|pages| (1..=most::PAGE_KIB).contains(&pages.size_kib));
    let pages = pages.map(|pages| (pages.size_kib, pages.total.clamp(0, most::PAGES)));
    Cell {
        id: cell.id,
        cores: cell.cores.into_iter().map(|core| core.cpus).collect(),
        memory_mib: cell.memory_mib.clamp(0, most::MIB),
        huge_pages: pages.take(most::PAGE_SIZES).collect::<BTreeMap<_, _>>(),
    }
}

/// What foreign domains hold, within the same bounds.
#[must_use]
pub fn foreign_into(resources: v1::Resources) -> Resources {
    let Resources { vcpus, memory_mib, disk_gib } = resources_into(resources);
    Resources {
        vcpus: vcpus.clamp(0, most::VCPUS),
        memory_mib: memory_mib.clamp(0, most::MIB),
        disk_gib: disk_gib.clamp(0, most::GIB),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use croft_core::meta::Labels;
    use croft_core::placement::HostView;
    use croft_core::placement::device::DeviceViews;

    use super::*;

    #[test]
    fn capacity_comes_back_as_it_went() {
        let capacity = Capacity {
            cells: vec![Cell {
                id: 1,
                cores: vec![vec![0, 4], vec![1, 5]],
                memory_mib: 2048,
                huge_pages: BTreeMap::from([(2048, 100), (1_048_576, 2)]),
            }],
            vcpus: 4,
            memory_mib: 4096,
            disk_gib: 100,
            disk_free_gib: 60,
        };
        assert_eq!(capacity_into(capacity_out(&capacity)), capacity);
        let resources = Resources { vcpus: 1, memory_mib: 2, disk_gib: 3 };
        assert_eq!(resources_into(resources_out(resources)), resources);
    }

    #[test]
    fn a_host_that_says_less_than_nothing_has_nothing() {
        let capacity = capacity_into(v1::Capacity { vcpus: -4, memory_mib: i64::MIN, ..Default::default() });
        assert_eq!((capacity.vcpus, capacity.memory_mib), (0, 0));
        assert_eq!(foreign_into(v1::Resources { vcpus: -1, ..Default::default() }), Resources::default());
    }

    #[test]
    fn a_host_that_says_more_than_any_machine_has_does_not_overflow_placement() {
        let page = |size_kib| v1::HugePages { size_kib, total: i64::MAX, free: 0 };
        let cell = v1::NumaCell {
            memory_mib: i64::MAX,
            huge_pages: (0..60).map(|bit| page(1 << bit)).collect(),
            ..Default::default()
        };
        let capacity = capacity_into(v1::Capacity {
            cells: vec![cell; 1000],
            vcpus: i64::MAX,
            memory_mib: i64::MAX,
            disk_gib: i64::MAX,
            disk_free_gib: i64::MAX,
        });
        let everything = v1::Resources { vcpus: i64::MAX, memory_mib: i64::MAX, disk_gib: i64::MAX };
        let host = HostView {
            id: "h1".into(),
            version: 1,
            labels: Labels::default(),
            state: State::Ready,
            cordoned: false,
            maintenance: None,
            unready: None,
            capacity,
            reserve: Resources::default(),
            foreign: foreign_into(everything),
            overhead_memory_mib: 0,
            cpu_overcommit_percent: 10_000,
            claimed: Resources::default(),
            dedicated: BTreeSet::new(),
            huge_claimed: BTreeMap::new(),
            instances: 0,
            devices: DeviceViews::default(),
            devices_seen: false,
            seed_files: false,
            rebuilds: false,
        };
        // Plain arithmetic, which panics in a test that overflows.
        assert!(host.free().vcpus > 0 && host.free().memory_mib < 0);
    }
}
