use croft_core::Timestamp;
use croft_core::device::Atom;
use croft_core::id::InstanceUid;

use super::*;

/// As an agent tells of an H100 that is cut once.
pub fn h100() -> v1::Device {
    v1::Device {
        name: "0000:41:00.0".into(),
        kind: WireKind::Gpu.into(),
        state: WireState::Available.into(),
        id: "10de:2330".into(),
        vendor_name: "NVIDIA Corporation".into(),
        device_name: "GH100 [H100 SXM5 80GB]".into(),
        class: "030200".into(),
        serial: "GPU-1".into(),
        slot_path: "pci0000:40/01.1/00.0".into(),
        driver: "nvidia".into(),
        iommu_group: 12,
        numa_node: -1,
        functions_total: 16,
        gpu: Some(v1::Gpu {
            model: "h100_sxm_80gb".into(),
            product_name: "NVIDIA H100 80GB HBM3".into(),
            uuid: "GPU-1".into(),
            memory_mib: 81_920,
            mode: WireMode::MigVgpu.into(),
            mig_capable: true,
            mig_enabled: true,
            memory_slices: 8,
            compute_slices: 7,
            mig_profiles: vec![v1::MigProfile {
                name: "2g.20gb".into(),
                memory_slices: 2,
                starts: vec![0, 2, 4],
                compute_slices: 2,
                memory_mib: 20_096,
                max_count: 3,
            }],
            mig_instances: vec![v1::MigInstance { profile: "2g.20gb".into(), start: 2, size: 2 }],
            vgpu_framework: "vendor".into(),
            vgpu_types: vec![v1::VgpuType {
                name: "H100XM-2-20C".into(),
                framebuffer_mib: 20_480,
                mig_profile: "2g.20gb".into(),
                max_count: 1,
            }],
            heterogeneous_capable: true,
            fabric_partitions: vec![v1::FabricPartition { id: 3, gpus: vec!["0000:41:00.0".into()] }],
        }),
        last_reset: Some(v1::Reset {
            method: "bus".into(),
            time: Some(time::out(croft_core::Timestamp(7))),
            clean: true,
            message: String::new(),
        }),
        ..v1::Device::default()
    }
}

#[test]
fn a_device_comes_back_as_it_went() {
    let gpu = h100();
    assert_eq!(out(gpu.name.clone(), &into(gpu.clone()).unwrap()), gpu);
    let vf = v1::Device {
        name: "0000:42:10.2".into(),
        kind: WireKind::VirtualFunction.into(),
        state: WireState::Available.into(),
        physical: "0000:42:00.0".into(),
        function_index: 1,
        iommu_group: 0,
        companions: vec!["0000:42:10.3".into()],
        ..v1::Device::default()
    };
    assert_eq!(out(vf.name.clone(), &into(vf.clone()).unwrap()), vf);
}

#[test]
fn what_cannot_be_named_is_dropped_and_a_double_is_none() {
    let device = |name: &str, kind: WireKind| v1::Device { name: name.into(), kind: kind.into(), ..Default::default() };
    let good = device("usb-0000:00:14.0-2.3", WireKind::Usb);
    let odd = ["", "a b", "../x y", "cpu", &"x".repeat(200)].map(|name| device(name, WireKind::Usb));
    let all = odd.into_iter().chain([good.clone(), good, device("0000:01:00.0", WireKind::Unspecified)]);
    let ids: Vec<_> = report_into(all.collect()).into_iter().map(|device| device.id.0).collect();
    assert_eq!(ids, ["usb-0000:00:14.0-2.3"]);
}

#[test]
fn a_word_of_a_later_version_is_not_placed_on() {
    let mut wire = h100();
    wire.state = 99;
    wire.gpu.as_mut().unwrap().mode = 99;
    let device = into(wire).unwrap();
    assert_eq!((device.state, device.gpu.unwrap().mode), (State::Unusable, Mode::Foreign));
}

#[test]
fn a_board_that_no_card_has_is_none_to_place_on() {
    let mut wire = h100();
    let gpu = wire.gpu.as_mut().unwrap();
    (gpu.memory_slices, gpu.memory_mib) = (1000, i64::MAX);
    gpu.mig_profiles[0].starts = vec![-1; 10_000];
    let gpu = into(wire).unwrap().gpu.unwrap();
    assert!(gpu.board.unwrap().board().is_err());
    assert_eq!(gpu.memory_mib, MIB_MAX);
}

#[test]
fn a_virtual_function_of_nobody_is_not_placed_on() {
    let vf = |physical: &str, function_index: i32| v1::Device {
        name: "0000:42:10.2".into(),
        kind: WireKind::VirtualFunction.into(),
        state: WireState::Available.into(),
        physical: physical.into(),
        function_index,
        functions_total: i32::MAX,
        ..v1::Device::default()
    };
    assert_eq!(into(vf("0000:42:00.0", 1)).unwrap().state, State::Available);
    for bad in [vf("", 0), vf("a b", 0), vf("0000:42:00.0", -1), vf("0000:42:00.0", i32::from(FUNCTIONS_MAX))] {
        let device = into(bad).unwrap();
        assert_eq!((device.state, device.physical), (State::Unusable, None), "{}", device.message);
        assert_eq!(device.functions_total, FUNCTIONS_MAX);
    }
}

#[test]
fn every_word_has_its_fellow() {
    for kind in [Kind::Gpu, Kind::Function, Kind::VirtualFunction, Kind::Usb] {
        assert_eq!(kind_out(kind).as_str_name(), kind.as_str());
        assert_eq!(kind_into(kind_out(kind)), Some(kind));
    }
    let states = [State::Available, State::Foreign, State::Unhealthy, State::Quarantined, State::Stuck, State::Changed];
    for state in states.into_iter().chain([State::Missing, State::Unusable]) {
        assert_eq!(state_out(state).as_str_name(), state.as_str());
        assert_eq!(state_into(state_out(state)), state);
    }
    for mode in [Mode::Idle, Mode::Passthrough, Mode::Vgpu, Mode::MigVgpu, Mode::Foreign] {
        assert_eq!(mode_out(mode).as_str_name(), mode.as_str());
        assert_eq!(mode_into(mode_out(mode)), mode);
    }
}

fn record(quarantine: Option<&str>, atoms: &[Atom]) -> Record {
    let holder = Holder {
        uid: InstanceUid::new(Timestamp(1)),
        name: "tenants/a/instances/x".into(),
        atoms: atoms.to_vec(),
        mig_profiles: vec!["2g.20gb".into()],
        vgpu_types: Vec::new(),
    };
    Record {
        host: "h1".into(),
        device: into(h100()).unwrap(),
        quarantine: quarantine.map(str::to_owned),
        release_counter: 0,
        update_time: Timestamp(1),
        promise: None,
        holders: if atoms.is_empty() { Vec::new() } else { vec![holder] },
    }
}

#[test]
fn what_the_plane_adds_stands_over_a_healthy_device_and_beside_a_fault() {
    let free = record_out(&record(None, &[]));
    assert_eq!((free.name.as_str(), free.state()), ("hosts/h1/devices/0000:41:00.0", WireState::Available));
    let held = record_out(&record(None, &[Atom::Whole]));
    assert_eq!((held.state(), held.holders[0].atoms.as_slice()), (WireState::InUse, ["whole".to_owned()].as_slice()));
    assert_eq!(record_out(&record(None, &[Atom::Function(0)])).state(), WireState::Available, "there is room left");
    let closed = record_out(&record(Some("fan is loud"), &[Atom::Whole]));
    assert_eq!((closed.state(), closed.reason.as_str()), (WireState::Quarantined, OPERATOR_QUARANTINE));
    assert_eq!((closed.message.as_str(), closed.quarantined), ("fan is loud", true));
    let mut faulty = record(Some("fan is loud"), &[]);
    (faulty.device.state, faulty.device.message) = (State::Unhealthy, "Xid 79".into());
    let faulty = record_out(&faulty);
    assert_eq!((faulty.state(), faulty.message.as_str()), (WireState::Unhealthy, "Xid 79; fan is loud"));
}
