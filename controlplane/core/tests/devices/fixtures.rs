//! Boards, hosts and wishes to place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use croft_core::device::{
    Assignment, BoardReport, Device, Gpu, Kind, MigProfile, Mode, PoolMatch, Request, State, VgpuType, Wanted,
};
use croft_core::host::{Capacity, Resources};
use croft_core::id::PoolId;
use croft_core::placement::device::{DeviceView, DeviceViews, Wishes, assign};
use croft_core::placement::fit::{Failure, Predicate};
use croft_core::placement::{self, HostView};

fn profile(name: &str, memory_slices: u8, starts: &[u8], compute_slices: u8, memory_mib: i64) -> MigProfile {
    MigProfile { name: name.into(), memory_slices, starts: starts.to_vec(), compute_slices, memory_mib, max_count: 7 }
}

fn board() -> BoardReport {
    let profiles = vec![
        profile("1g.10gb", 1, &[0, 1, 2, 3, 4, 5, 6], 1, 9984),
        profile("1g.10gb+me", 1, &[0, 1, 2, 3, 4, 5, 6], 1, 9984),
        profile("1g.20gb", 2, &[0, 2, 4, 6], 1, 20096),
        profile("2g.20gb", 2, &[0, 2, 4], 2, 20096),
        profile("3g.40gb", 4, &[0, 4], 3, 40448),
        profile("4g.40gb", 4, &[0], 4, 40448),
        profile("7g.80gb", 8, &[0], 7, 81152),
    ];
    BoardReport { memory_slices: 8, compute_slices: 7, profiles }
}

fn types() -> Vec<VgpuType> {
    let backed = |name: &str, gib: i64, mig_profile: &str| VgpuType {
        name: format!("H100XM-{name}"),
        framebuffer_mib: gib * 1024,
        mig_profile: mig_profile.into(),
        max_count: 1,
    };
    let shared = |gib: i64| VgpuType {
        name: format!("H100XM-{gib}C"),
        framebuffer_mib: gib * 1024,
        mig_profile: String::new(),
        max_count: 80 / gib,
    };
    vec![
        backed("1-10C", 10, "1g.10gb"),
        backed("1-10CME", 10, "1g.10gb+me"),
        backed("1-20C", 20, "1g.20gb"),
        backed("2-20C", 20, "2g.20gb"),
        backed("3-40C", 40, "3g.40gb"),
        backed("4-40C", 40, "4g.40gb"),
        backed("7-80C", 80, "7g.80gb"),
        shared(20),
        shared(40),
    ]
}

pub fn device(id: &str, kind: Kind) -> Device {
    Device {
        id: id.into(),
        kind,
        state: State::Available,
        reason: String::new(),
        message: String::new(),
        pci_id: "8086:10c9".into(),
        vendor_name: String::new(),
        device_name: String::new(),
        class: "020000".into(),
        serial: format!("serial of {id}"),
        slot_path: format!("slot of {id}"),
        driver: "igb".into(),
        iommu_group: Some(1),
        companions: Vec::new(),
        numa_node: Some(0),
        physical: None,
        functions_total: 0,
        functions_count: 0,
        gpu: None,
        last_reset: None,
    }
}

pub fn h100(id: &str, framework: &str) -> Device {
    let gpu = Gpu {
        model: "h100_sxm_80gb".into(),
        product_name: "NVIDIA H100 80GB HBM3".into(),
        uuid: format!("GPU-{id}"),
        memory_mib: 81559,
        mode: Mode::Idle,
        mig_enabled: false,
        board: Some(board()),
        mig_instances: Vec::new(),
        vgpu_framework: framework.into(),
        vgpu_types: if framework == "none" { Vec::new() } else { types() },
        heterogeneous_capable: false,
        fabric_partitions: Vec::new(),
    };
    Device { pci_id: "10de:2330".into(), functions_total: 16, gpu: Some(gpu), ..device(id, Kind::Gpu) }
}

pub fn host(devices: Vec<Device>) -> HostView {
    let views = devices.into_iter().map(|one| (one.id.clone(), DeviceView::new(Arc::new(one), false))).collect();
    HostView {
        id: "h1".into(),
        version: 1,
        labels: BTreeMap::new(),
        state: croft_core::host::State::Ready,
        cordoned: false,
        maintenance: None,
        unready: None,
        capacity: Capacity::default(),
        reserve: Resources::default(),
        foreign: Resources::default(),
        overhead_memory_mib: 0,
        cpu_overcommit_percent: 100,
        claimed: Resources::default(),
        dedicated: BTreeSet::new(),
        huge_claimed: BTreeMap::new(),
        instances: 0,
        devices: DeviceViews(views),
        devices_seen: true,
        seed_files: false,
        rebuilds: false,
    }
}

pub fn wishes(wanted: &[Wanted]) -> Wishes {
    let requests = wanted.iter().enumerate();
    Wishes {
        requests: requests.map(|(at, wanted)| Request { id: format!("d-{at}"), wanted: wanted.clone() }).collect(),
        ..Wishes::default()
    }
}

pub fn any_gpu() -> Wanted {
    Wanted::Gpu { model: None }
}

pub fn mig(profile: &str) -> Wanted {
    Wanted::Mig { profile: profile.into(), model: None }
}

pub fn vgpu(name: &str) -> Wanted {
    Wanted::Vgpu { type_name: name.into() }
}

/// Places and takes, as one commit does.
pub fn give(host: &mut HostView, wanted: &[Wanted]) -> Result<Vec<Assignment>, Failure> {
    let given = assign(host, &wishes(wanted), &[])?;
    for one in &given {
        let claims = host.devices.claims(one);
        host.devices.take(&claims);
    }
    Ok(given)
}

pub fn predicate(result: Result<Vec<Assignment>, Failure>) -> Predicate {
    result.expect_err("refused").predicate
}

pub fn nic() -> (Vec<Device>, Wishes) {
    let mut physical = device("0000:01:00.0", Kind::Function);
    physical.functions_total = 7;
    let function = |index: u16| {
        let mut function = device(&format!("0000:01:10.{index}"), Kind::VirtualFunction);
        function.pci_id = "8086:10ca".into();
        function.physical = Some((physical.id.clone(), index));
        function
    };
    let functions: Vec<_> = [0, 1].map(function).into();
    let of = |kind, id: &str| PoolMatch {
        kind,
        ids: vec![id.to_owned()],
        classes: Vec::new(),
        devices: Vec::new(),
        host_selector: BTreeMap::new(),
    };
    let pools: BTreeMap<PoolId, PoolMatch> =
        [("nic-vf".into(), of(Kind::VirtualFunction, "8086:10ca")), ("nic".into(), of(Kind::Function, "8086:10c9"))]
            .into();
    let wishes = Wishes { pools: Arc::new(pools), ..Wishes::default() };
    (functions.into_iter().chain([physical]).collect(), wishes)
}

/// With room for plain instances.
pub fn roomy(id: &str, devices: Vec<Device>) -> HostView {
    let capacity = Capacity { vcpus: 16, memory_mib: 65536, disk_gib: 100, disk_free_gib: 100, ..Capacity::default() };
    HostView { id: id.into(), capacity, ..host(devices) }
}

pub fn plain(wishes: Wishes) -> placement::Request {
    placement::Request {
        vcpus: 1,
        memory_mib: 1024,
        disk_gib: 1,
        huge_page_kib: 0,
        cpu: Default::default(),
        host_selector: BTreeMap::new(),
        policy: placement::Policy::Spread,
        devices: wishes,
        joins: false,
        rebuilt: false,
        away_from: None,
    }
}
