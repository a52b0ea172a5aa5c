//! Placement of devices: exact pieces, never two owners, and refusals that name the culprit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use croft_core::device::{
    Assignment, Atom, BoardReport, Device, FabricPartition, Gpu, Kind, MigProfile, Mode, PoolMatch, Request, State,
    VgpuType, Wanted,
};
use croft_core::host::{Capacity, Cell, Resources};
use croft_core::id::{DeviceId, PoolId};
use croft_core::instance::Cpu;
use croft_core::placement::device::{Catalogue, DeviceView, DeviceViews, Wishes, assign};
use croft_core::placement::fit::{Failure, Predicate};
use croft_core::placement::{self, HostView, Pin};
use proptest::prelude::*;

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

fn device(id: &str, kind: Kind) -> Device {
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

fn h100(id: &str, framework: &str) -> Device {
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

fn host(devices: Vec<Device>) -> HostView {
    let views = devices.into_iter().map(|one| (one.id.clone(), DeviceView::new(Arc::new(one), false))).collect();
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

fn wishes(wanted: &[Wanted]) -> Wishes {
    let requests = wanted.iter().enumerate();
    Wishes {
        requests: requests.map(|(at, wanted)| Request { id: format!("d-{at}"), wanted: wanted.clone() }).collect(),
        ..Wishes::default()
    }
}

fn any_gpu() -> Wanted {
    Wanted::Gpu { model: None }
}

fn mig(profile: &str) -> Wanted {
    Wanted::Mig { profile: profile.into(), model: None }
}

fn vgpu(name: &str) -> Wanted {
    Wanted::Vgpu { type_name: name.into() }
}

/// Places and takes, as one commit does.
fn give(host: &mut HostView, wanted: &[Wanted]) -> Result<Vec<Assignment>, Failure> {
    let given = assign(host, &wishes(wanted), &[])?;
    for one in &given {
        let claims = host.devices.claims(one);
        host.devices.take(&claims);
    }
    Ok(given)
}

fn predicate(result: Result<Vec<Assignment>, Failure>) -> Predicate {
    result.expect_err("refused").predicate
}

#[test]
fn a_whole_gpu_takes_every_atom_and_shuts_out_slices() {
    let mut host = host(vec![h100("0000:41:00.0", "dormant")]);
    let given = give(&mut host, &[any_gpu()]).unwrap();
    let atoms: Vec<String> = given[0].atoms.iter().map(Atom::to_string).collect();
    assert_eq!(atoms.len(), 1 + 16 + 8 + 7 + 1, "{atoms:?}");
    assert_eq!(given[0].charged_memory_mib, 81559);
    assert_eq!(predicate(give(&mut host, &[any_gpu()])), Predicate::DeviceTaken);
    assert_eq!(predicate(give(&mut host, &[mig("1g.10gb")])), Predicate::GpuMode);
    assert_eq!(predicate(give(&mut host, &[vgpu("H100XM-20C")])), Predicate::GpuMode);
}

#[test]
fn slices_fill_a_gpu_before_they_open_another_and_keep_room_for_large_ones() {
    let mut host = host(vec![h100("0000:41:00.0", "vendor"), h100("0000:42:00.0", "vendor")]);
    let first = give(&mut host, &[mig("1g.10gb")]).unwrap().remove(0);
    assert_eq!(first.mig_start, 6, "where it leaves 3g and 2g most room");
    assert_eq!((first.function_index, first.vgpu_type.as_str()), (Some(0), "H100XM-1-10C"));
    let second = give(&mut host, &[mig("4g.40gb")]).unwrap().remove(0);
    assert_eq!(second.device, first.device);
    assert_eq!(second.function_index, Some(1));
    let whole = give(&mut host, &[any_gpu()]).unwrap().remove(0);
    assert_ne!(whole.device, first.device, "the other one was left whole");
    assert_eq!(predicate(give(&mut host, &[mig("7g.80gb")])), Predicate::MigGeometry);
    assert_eq!(predicate(give(&mut host, &[vgpu("H100XM-20C")])), Predicate::GpuMode, "never both kinds on one GPU");
}

#[test]
fn several_slices_of_one_request_are_found_in_whatever_order() {
    let mut host = host(vec![h100("0000:41:00.0", "vendor")]);
    let given = give(&mut host, &[mig("1g.10gb"), mig("2g.20gb"), mig("4g.40gb")]).unwrap();
    let ids: Vec<_> = given.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["d-0", "d-1", "d-2"], "answered in the order of the requests");
    assert_eq!(given[2].mig_start, 0);
}

#[test]
fn time_sliced_vgpus_share_framebuffer_of_one_size() {
    let mut host = host(vec![h100("0000:41:00.0", "vendor")]);
    for _ in 0..2 {
        give(&mut host, &[vgpu("H100XM-20C")]).unwrap();
    }
    assert_eq!(predicate(give(&mut host, &[vgpu("H100XM-40C")])), Predicate::Framebuffer);
    let third = give(&mut host, &[vgpu("H100XM-20C")]).unwrap().remove(0);
    assert_eq!(third.atoms, [Atom::Function(2)]);
    // Nominal sizes count: four of 20480 fit, though the board's 81559 MiB are 361 short of that.
    give(&mut host, &[vgpu("H100XM-20C")]).unwrap();
    assert_eq!(predicate(give(&mut host, &[vgpu("H100XM-20C")])), Predicate::Framebuffer);
}

#[test]
fn what_is_given_back_is_free_and_the_gpu_idle() {
    let mut host = host(vec![h100("0000:41:00.0", "vendor")]);
    let untouched = host.clone();
    let given = give(&mut host, &[vgpu("H100XM-20C")]).unwrap();
    let claims = host.devices.claims(&given[0]);
    host.devices.give_back(&claims);
    assert_eq!(host, untouched);
    give(&mut host, &[mig("7g.80gb")]).unwrap();
}

#[test]
fn a_host_without_the_vgpu_driver_gives_whole_gpus_only() {
    let mut host = host(vec![h100("0000:41:00.0", "none")]);
    assert_eq!(predicate(give(&mut host, &[mig("2g.20gb")])), Predicate::DeviceFlavour);
    let unknown = give(&mut host, &[mig("9g.90gb")]).unwrap_err();
    assert!(unknown.message.contains("9g.90gb"), "{unknown:?}");
    give(&mut host, &[any_gpu()]).unwrap();
}

#[test]
fn a_group_is_given_whole_or_the_peer_is_named() {
    let (mut gpu, mut audio) = (h100("0000:41:00.0", "none"), device("0000:41:00.1", Kind::Function));
    gpu.companions = vec![audio.id.clone()];
    audio.companions = vec![gpu.id.clone()];
    let mut both = host(vec![gpu.clone(), audio.clone()]);
    let given = give(&mut both, &[any_gpu()]).unwrap();
    assert_eq!(given[0].companions, [(audio.id.clone(), vec![Atom::Whole])]);
    assert_eq!(both.devices.0[&audio.id].taken.len(), 1);

    audio.state = State::Foreign;
    audio.driver = "ahci".into();
    let refused = give(&mut host(vec![gpu.clone(), audio]), &[any_gpu()]).unwrap_err();
    assert_eq!(refused.predicate, Predicate::IommuGroup);
    assert!(refused.message.contains("0000:41:00.1 (driver ahci)"), "{}", refused.message);
    gpu.iommu_group = None;
    assert_eq!(predicate(give(&mut host(vec![gpu]), &[any_gpu()])), Predicate::IommuGroup);
}

#[test]
fn unhealthy_quarantined_and_missing_devices_are_not_placed_on() {
    for state in [State::Unhealthy, State::Stuck, State::Missing, State::Changed, State::Quarantined, State::Foreign] {
        let mut gpu = h100("0000:41:00.0", "vendor");
        (gpu.state, gpu.reason) = (state, "GpuXid".into());
        gpu.message = "Xid 79 while croft-0198 of another tenant had it".into();
        let refused = give(&mut host(vec![gpu]), &[any_gpu()]).unwrap_err();
        assert_eq!(refused.predicate, Predicate::DeviceHealth);
        assert!(refused.message.contains(&format!("{} (GpuXid)", state.as_str())), "{}", refused.message);
        assert!(!refused.message.contains("croft-0198"), "tenants read this: {}", refused.message);
    }
    let mut kept = host(vec![h100("0000:41:00.0", "vendor")]);
    kept.devices.0.values_mut().for_each(|view| view.quarantined = true);
    assert!(give(&mut kept, &[mig("1g.10gb")]).unwrap_err().message.contains("croft device release"));
}

fn nic() -> (Vec<Device>, Wishes) {
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

#[test]
fn a_function_and_its_virtual_functions_exclude_each_other() {
    let (devices, pools) = nic();
    let wish = |pool: &str| Wishes {
        requests: vec![Request { id: "n".into(), wanted: Wanted::Pool { pool: pool.into() } }],
        ..pools.clone()
    };
    let mut host = host(devices);
    let take = |host: &mut HostView, pool: &str| {
        let given = assign(host, &wish(pool), &[])?.remove(0);
        let claims = host.devices.claims(&given);
        host.devices.take(&claims);
        Ok::<_, Failure>(given)
    };
    let one = take(&mut host, "nic-vf").unwrap();
    let physical: DeviceId = "0000:01:00.0".into();
    assert_eq!(host.devices.0[&physical].taken, [Atom::Function(0)].into());
    assert_eq!(take(&mut host, "nic").unwrap_err().predicate, Predicate::DeviceTaken);
    let claims = host.devices.claims(&one);
    host.devices.give_back(&claims);
    take(&mut host, "nic").unwrap();
    let refused = take(&mut host, "nic-vf").unwrap_err();
    assert!(refused.message.contains("0000:01:00.0, which is taken whole"), "{}", refused.message);
    assert_eq!(take(&mut host, "none").unwrap_err().predicate, Predicate::Pool);
}

#[test]
fn an_nvswitch_board_gives_partitions() {
    let ids = ["0000:41:00.0", "0000:42:00.0", "0000:43:00.0", "0000:44:00.0"];
    let pair = |id, at: usize| FabricPartition { id, gpus: vec![ids[at].into(), ids[at + 1].into()] };
    let all = FabricPartition { id: 0, gpus: ids.map(Into::into).into() };
    let gpus = ids.map(|id| {
        let mut gpu = h100(id, "none");
        gpu.gpu.as_mut().unwrap().fabric_partitions = vec![all.clone(), pair(1, 0), pair(2, 2)];
        gpu
    });
    let mut host = host(gpus.into());
    let first = give(&mut host, &[any_gpu(), any_gpu()]).unwrap();
    assert_eq!(first.iter().map(|one| one.fabric_partition).collect::<Vec<_>>(), [Some(1), Some(1)]);
    let refused = give(&mut host, &[any_gpu(), any_gpu(), any_gpu()]).unwrap_err();
    assert!(refused.message.contains("no partition of 3"), "{}", refused.message);
    assert!(
        give(&mut host, &[any_gpu(), any_gpu(), any_gpu(), any_gpu()]).unwrap_err().message.contains("partition 0")
    );
    assert_eq!(give(&mut host, &[any_gpu(), any_gpu()]).unwrap()[0].fabric_partition, Some(2));
}

#[test]
fn a_gpu_near_the_pinned_cpus_comes_first() {
    let (near, mut far) = (h100("0000:81:00.0", "none"), h100("0000:41:00.0", "none"));
    far.numa_node = Some(1);
    let host = host(vec![near, far]);
    let pin = Pin { cell: 0, vcpus: 1, cpus: Vec::new(), memory_mib: 1 };
    assert_eq!(assign(&host, &wishes(&[any_gpu()]), &[pin]).unwrap()[0].device.as_str(), "0000:81:00.0");
}

#[test]
fn a_pinned_guest_goes_to_the_cell_where_its_gpu_is() {
    let mut far = h100("0000:81:00.0", "none");
    far.numa_node = Some(1);
    let mut host = roomy("h1", vec![far]);
    host.capacity.cells = [0, 1]
        .map(|id| Cell { id, cores: vec![vec![2 * id, 2 * id + 1]], memory_mib: 32768, ..Cell::default() })
        .into();
    let pinned = |wanted: &[Wanted]| placement::Request {
        cpu: Cpu { dedicated: false, single_numa_cell: true },
        ..plain(wishes(wanted))
    };
    let cells = |wanted: &[Wanted]| -> Vec<i32> {
        let placement = placement::place([&host], &pinned(wanted)).unwrap();
        placement.pins.iter().map(|pin| pin.cell).collect()
    };
    assert_eq!((cells(&[]), cells(&[any_gpu()])), (vec![0], vec![1]));
}

#[test]
fn only_models_that_quota_has_room_for() {
    let host = host(vec![h100("0000:41:00.0", "none")]);
    let mut wishes = wishes(&[any_gpu()]);
    wishes.allowed_models = [("d-0".to_owned(), ["l40s_48gb".to_owned()].into())].into();
    let refused = assign(&host, &wishes, &[]).unwrap_err();
    assert!(refused.message.contains("l40s_48gb"), "{}", refused.message);
}

#[test]
fn a_gpu_that_is_kept_for_one_use_is_given_for_no_other() {
    let kept = |mode| {
        let mut host = host(vec![h100("0000:41:00.0", "vendor")]);
        host.devices.0.values_mut().for_each(|view| view.kept_for = Some(mode));
        host
    };
    for (mode, wanted, given) in [
        (Mode::Idle, any_gpu(), true),
        (Mode::Idle, mig("1g.10gb"), false),
        (Mode::Vgpu, vgpu("H100XM-20C"), true),
        (Mode::Vgpu, mig("1g.10gb"), false),
        (Mode::MigVgpu, any_gpu(), false),
        (Mode::Foreign, any_gpu(), false),
    ] {
        let result = give(&mut kept(mode), std::slice::from_ref(&wanted));
        assert_eq!(result.is_ok(), given, "{mode:?} {wanted:?}");
        if let Err(failure) = result {
            assert_eq!(failure.predicate, Predicate::GpuMode);
            assert!(failure.message.contains(mode.as_str()), "{}", failure.message);
        }
    }
    let (mut gpu, mut peer) = (h100("0000:41:00.0", "none"), h100("0000:42:00.0", "none"));
    (gpu.companions, peer.companions) = (vec![peer.id.clone()], vec![gpu.id.clone()]);
    let mut group = host(vec![gpu, peer]);
    group.devices.0.get_mut(&DeviceId::from("0000:42:00.0")).unwrap().kept_for = Some(Mode::Foreign);
    assert!(give(&mut group, &[any_gpu()]).is_err(), "not along with another one either");
}

#[test]
fn no_gpu_goes_along_uncharged() {
    let (mut gpu, mut audio) = (h100("0000:41:00.0", "none"), device("0000:41:00.1", Kind::Function));
    let (mut peer, alone) = (h100("0000:42:00.0", "none"), h100("0000:43:00.0", "none"));
    (gpu.companions, peer.companions) = (vec![peer.id.clone()], vec![gpu.id.clone()]);
    let refused = give(&mut host(vec![gpu.clone(), peer.clone()]), &[any_gpu()]).unwrap_err();
    assert_eq!(refused.predicate, Predicate::IommuGroup);
    assert!(refused.message.contains("another GPU, 0000:42:00.0"), "{}", refused.message);
    let given = give(&mut host(vec![gpu, peer, alone]), &[any_gpu()]).unwrap();
    assert_eq!(given[0].device.as_str(), "0000:43:00.0");

    // Nor with a function that a pool has.
    let (devices, pools) = nic();
    let id = devices.iter().find(|one| one.kind == Kind::VirtualFunction).unwrap().pci_id.clone();
    (audio.kind, audio.pci_id, audio.companions) = (Kind::VirtualFunction, id, vec!["0000:41:00.0".into()]);
    let requests = vec![Request { id: "n".into(), wanted: Wanted::Pool { pool: "nic-vf".into() } }];
    let host = host(vec![h100("0000:41:00.0", "none"), audio]);
    let refused = assign(&host, &Wishes { requests, ..pools }, &[]).unwrap_err();
    assert_eq!(refused.predicate, Predicate::IommuGroup, "{}", refused.message);
}

#[test]
fn a_partition_that_names_a_gpu_twice_gives_nothing() {
    let mut gpu = h100("0000:41:00.0", "none");
    let twice = FabricPartition { id: 1, gpus: vec![gpu.id.clone(), gpu.id.clone()] };
    gpu.gpu.as_mut().unwrap().fabric_partitions = vec![twice];
    let refused = give(&mut host(vec![gpu]), &[any_gpu(), any_gpu()]).unwrap_err();
    assert_eq!(refused.predicate, Predicate::DeviceTaken, "{}", refused.message);
}

#[test]
fn a_gpus_own_functions_are_in_no_pool() {
    let (devices, pools) = nic();
    let mut card = h100("0000:01:00.0", "vendor");
    card.pci_id = "8086:10c9".into();
    let functions = devices.into_iter().filter(|one| one.kind == Kind::VirtualFunction);
    let host = host(functions.chain([card]).collect());
    let requests = vec![Request { id: "n".into(), wanted: Wanted::Pool { pool: "nic-vf".into() } }];
    let refused = assign(&host, &Wishes { requests, ..pools }, &[]).unwrap_err();
    assert!(refused.message.contains("is part of the GPU 0000:01:00.0"), "{}", refused.message);
}

#[test]
fn a_host_that_started_again_is_asked_before_anything_is_given() {
    let host = HostView { devices_seen: false, ..host(vec![h100("0000:41:00.0", "none")]) };
    assert_eq!(assign(&host, &wishes(&[any_gpu()]), &[]).unwrap_err().predicate, Predicate::DeviceHealth);
}

/// With room for plain instances.
fn roomy(id: &str, devices: Vec<Device>) -> HostView {
    let capacity = Capacity { vcpus: 16, memory_mib: 65536, disk_gib: 100, disk_free_gib: 100, ..Capacity::default() };
    HostView { id: id.into(), capacity, ..host(devices) }
}

fn plain(wishes: Wishes) -> placement::Request {
    placement::Request {
        vcpus: 1,
        memory_mib: 1024,
        disk_gib: 1,
        huge_page_kib: 0,
        cpu: Default::default(),
        host_selector: BTreeMap::new(),
        policy: placement::Policy::Spread,
        devices: wishes,
    }
}

#[test]
fn a_fleet_opens_a_gpu_only_when_no_opened_one_has_room_and_spares_hosts_with_gpus() {
    let mut fleet = [
        roomy("h1", vec![h100("0000:41:00.0", "vendor")]),
        roomy("h2", vec![h100("0000:41:00.0", "vendor")]),
        roomy("h3", vec![]),
    ];
    let mut create = |wanted: &[Wanted]| {
        let request = plain(wishes(wanted));
        let placement = placement::place(&fleet, &request).unwrap();
        let host = fleet.iter_mut().find(|host| host.id == placement.host).unwrap();
        host.apply(&request, &placement);
        placement.host.to_string()
    };
    let first = create(&[mig("2g.20gb")]);
    for _ in 0..2 {
        assert_eq!(create(&[mig("2g.20gb")]), first, "though the other host is emptier");
    }
    assert_ne!(create(&[mig("3g.40gb")]), first, "full for this one");
    for _ in 0..16 {
        assert_eq!(create(&[]), "h3");
    }
}

fn wanted() -> impl Strategy<Value = Wanted> {
    prop_oneof![
        1 => Just(any_gpu()),
        6 => prop::sample::select(vec!["1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"])
            .prop_map(mig),
        3 => prop::sample::select(vec!["H100XM-20C", "H100XM-40C"]).prop_map(vgpu),
    ]
}

proptest! {
    /// Any history of creates and deletes: no atom has two owners, and at the end everything is as it was.
    #[test]
    fn no_piece_ever_has_two_owners(history in prop::collection::vec((prop::collection::vec(wanted(), 1..4), any::<bool>(), any::<usize>()), 1..40)) {
        let mut host = host(vec![h100("0000:41:00.0", "vendor"), h100("0000:42:00.0", "vendor")]);
        let untouched = host.clone();
        let mut held: Vec<Vec<Assignment>> = Vec::new();
        for (wanted, give_back, victim) in history {
            if give_back && !held.is_empty() {
                for one in held.swap_remove(victim % held.len()) {
                    let claims = host.devices.claims(&one);
                    host.devices.give_back(&claims);
                }
            }
            if let Ok(given) = give(&mut host, &wanted) {
                prop_assert_eq!(given.len(), wanted.len());
                held.push(given);
            }
            let mut owned = BTreeSet::new();
            for one in held.iter().flatten() {
                for atom in &one.atoms {
                    prop_assert!(owned.insert((one.device.clone(), *atom)), "{} of {} twice", atom, one.device);
                }
            }
            for view in host.devices.0.values() {
                let of_it: BTreeSet<Atom> = owned.iter().filter(|(id, _)| *id == view.device.id).map(|(_, atom)| *atom).collect();
                prop_assert_eq!(&view.taken, &of_it);
                prop_assert!(view.framebuffer_used_mib >= 0 && view.framebuffer_used_mib <= 81920);
            }
        }
        for one in held.iter().flatten() {
            let claims = host.devices.claims(one);
            host.devices.give_back(&claims);
        }
        prop_assert_eq!(host, untouched);
    }
}

/// An agent's certificate may be stolen.
#[test]
fn what_one_host_makes_up_of_a_model_takes_it_from_nobody() {
    let mut liar = h100("0000:41:00.0", "vendor");
    let gpu = liar.gpu.as_mut().unwrap();
    gpu.memory_mib = 1 << 30;
    gpu.board.as_mut().unwrap().profiles.iter_mut().for_each(|profile| profile.memory_mib = 1 << 30);
    for one in &mut gpu.vgpu_types {
        (one.framebuffer_mib, one.mig_profile) = (1 << 30, "made.up".into());
    }
    let (mut honest, mut with) = (Catalogue::default(), Catalogue::default());
    honest.add(&host(vec![h100("0000:41:00.0", "vendor")]).devices);
    for told in [h100("0000:41:00.0", "vendor"), liar] {
        with.add(&host(vec![told]).devices);
    }
    for wanted in [any_gpu(), mig("2g.20gb"), vgpu("H100XM-2-20C"), vgpu("H100XM-20C")] {
        let (before, after) = (honest.candidates(&wanted), with.candidates(&wanted));
        assert_eq!(before.len(), 1, "{wanted:?}");
        assert!(after.contains(&before[0]), "{wanted:?}: {after:?}");
    }
}

#[test]
fn two_that_say_they_are_the_same_virtual_function_are_given_once() {
    let (mut devices, pools) = nic();
    for one in devices.iter_mut().filter(|one| one.kind == Kind::VirtualFunction) {
        one.physical.as_mut().unwrap().1 = 0;
    }
    let asked = |count: usize| {
        let pool = || Wanted::Pool { pool: "nic-vf".into() };
        let requests = (0..count).map(|at| Request { id: format!("n-{at}"), wanted: pool() });
        let wishes = Wishes { requests: requests.collect(), ..pools.clone() };
        assign(&host(devices.clone()), &wishes, &[])
    };
    assert!(asked(1).is_ok());
    assert_eq!(asked(2).unwrap_err().predicate, Predicate::DeviceTaken);
}
