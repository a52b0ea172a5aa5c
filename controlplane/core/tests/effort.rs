//! What a request that is made to be hard may cost whoever waits behind it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use croft_core::device::{BoardReport, Device, Gpu, Kind, MigProfile, Mode, Request, State, VgpuType, Wanted};
use croft_core::host::{Capacity, Resources};
use croft_core::placement::HostView;
use croft_core::placement::device::{DeviceView, DeviceViews, Effort, Wishes, assign_within};

/// Memory slices, compute slices, starts.
const PROFILES: [(&str, u8, u8, &[u8]); 6] = [
    ("1g.10gb", 1, 1, &[0, 1, 2, 3, 4, 5, 6]),
    ("1g.20gb", 2, 1, &[0, 2, 4, 6]),
    ("2g.20gb", 2, 2, &[0, 2, 4]),
    ("3g.40gb", 4, 3, &[0, 4]),
    ("4g.40gb", 4, 4, &[0]),
    ("7g.80gb", 8, 7, &[0]),
];

fn gpu(at: usize) -> Device {
    let profile = |&(name, memory, compute, starts): &(&str, u8, u8, &[u8])| MigProfile {
        name: name.into(),
        memory_slices: memory,
        starts: starts.to_vec(),
        compute_slices: compute,
        memory_mib: i64::from(memory) * 10_240,
        max_count: 7,
    };
    let backed = |&(name, memory, ..): &(&str, u8, u8, &[u8])| VgpuType {
        name: format!("H100XM-{name}C"),
        framebuffer_mib: i64::from(memory) * 10_240,
        mig_profile: name.into(),
        max_count: 1,
    };
    Device {
        id: format!("0000:{at:02x}:00.0").as_str().into(),
        kind: Kind::Gpu,
        state: State::Available,
        reason: String::new(),
        message: String::new(),
        pci_id: "10de:2330".into(),
        vendor_name: String::new(),
        device_name: String::new(),
        class: "030200".into(),
        serial: format!("{at}"),
        slot_path: format!("slot-{at}"),
        driver: "nvidia".into(),
        iommu_group: Some(1),
        companions: Vec::new(),
        numa_node: Some(0),
        physical: None,
        functions_total: 16,
        functions_count: 0,
        gpu: Some(Gpu {
            model: "h100_sxm_80gb".into(),
            product_name: String::new(),
            uuid: format!("GPU-{at}"),
            memory_mib: 81_559,
            mode: Mode::Idle,
            mig_enabled: false,
            board: Some(BoardReport {
                memory_slices: 8,
                compute_slices: 7,
                profiles: PROFILES.iter().map(profile).collect(),
            }),
            mig_instances: Vec::new(),
            vgpu_framework: "vendor".into(),
            vgpu_types: PROFILES.iter().map(backed).collect(),
            heterogeneous_capable: false,
            fabric_partitions: Vec::new(),
        }),
        last_reset: None,
    }
}

/// `unlike`: with another virtual function taken of each, so that no card stands for the others.
fn host(gpus: usize, unlike: bool) -> HostView {
    let mut views: BTreeMap<_, _> =
        (0..gpus).map(gpu).map(|one| (one.id.clone(), DeviceView::new(Arc::new(one), false))).collect();
    for (at, view) in views.values_mut().enumerate().filter(|_| unlike) {
        let index = u16::try_from(15 - at % 16).unwrap();
        view.taken.insert(croft_core::device::Atom::Function(index));
    }
    HostView {
        id: "h1".into(),
        version: 1,
        labels: BTreeMap::new(),
        state: croft_core::host::State::Ready,
        cordoned: false,
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
    }
}

fn wishes(profiles: &[(&str, usize)]) -> Wishes {
    let all = profiles.iter().flat_map(|(profile, count)| std::iter::repeat_n(*profile, *count));
    let requests = all.enumerate().map(|(at, profile)| Request {
        id: format!("d-{at}"),
        wanted: Wanted::Mig { profile: profile.into(), model: None },
    });
    Wishes { requests: requests.collect(), ..Wishes::default() }
}

/// What fits, but for the last few, in ways that only trying finds out.
fn hard(gpus: usize) -> [Wishes; 4] {
    [
        wishes(&[("3g.40gb", 2 * gpus), ("1g.10gb", 32 - 2 * gpus)]),
        wishes(&[("3g.40gb", gpus), ("2g.20gb", 32 - gpus)]),
        wishes(&[("2g.20gb", 32)]),
        wishes(&[("1g.20gb", 32)]),
    ]
}

/// Some milliseconds a request when it is optimised; without a bound it is minutes.
#[test]
fn a_hard_request_keeps_nobody_waiting_on_however_many_hosts() {
    for (gpus, unlike) in [(8, false), (8, true), (16, false), (16, true)] {
        let host = host(gpus, unlike);
        for wishes in hard(gpus) {
            let (effort, start) = (Effort::default(), Instant::now());
            for _ in 0..10 {
                let _ = assign_within(&host, &wishes, &[], &effort);
            }
            let took = start.elapsed();
            assert!(took < Duration::from_secs(5), "{gpus} GPUs: {took:?} for {:?}", wishes.requests);
        }
    }
}

#[test]
fn what_only_going_back_finds_is_found() {
    let beside = |profiles: &[(&str, usize)]| {
        let wishes = wishes(profiles);
        assign_within(&host(2, false), &wishes, &[], &Effort::default()).map(|given| given.len())
    };
    assert_eq!(beside(&[("4g.40gb", 2), ("3g.40gb", 2)]), Ok(4));
    assert_eq!(beside(&[("3g.40gb", 1), ("4g.40gb", 1), ("7g.80gb", 1)]), Ok(3));
    assert!(beside(&[("4g.40gb", 2), ("3g.40gb", 3)]).is_err());
}
