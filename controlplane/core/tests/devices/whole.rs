//! Whole GPUs and functions: with their group, with a partition, near the CPUs, or not at all.

use croft_core::device::{Atom, FabricPartition, Kind, Request, State, Wanted};
use croft_core::host::Cell;
use croft_core::instance::Cpu;
use croft_core::placement::device::{Wishes, assign};
use croft_core::placement::fit::Predicate;
use croft_core::placement::{self, Pin};

use super::fixtures::{any_gpu, device, give, h100, host, mig, nic, plain, predicate, roomy, vgpu, wishes};

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
fn a_partition_that_names_a_gpu_twice_gives_nothing() {
    let mut gpu = h100("0000:41:00.0", "none");
    let twice = FabricPartition { id: 1, gpus: vec![gpu.id.clone(), gpu.id.clone()] };
    gpu.gpu.as_mut().unwrap().fabric_partitions = vec![twice];
    let refused = give(&mut host(vec![gpu]), &[any_gpu(), any_gpu()]).unwrap_err();
    assert_eq!(refused.predicate, Predicate::DeviceTaken, "{}", refused.message);
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
fn more_than_are_free_is_refused_by_counting() {
    let mut host = host(vec![h100("0000:41:00.0", "none"), h100("0000:42:00.0", "none")]);
    let refused = give(&mut host, &[any_gpu(), any_gpu(), any_gpu()]).unwrap_err();
    assert_eq!(refused.predicate, Predicate::DeviceTaken);
    assert!(refused.message.contains("3 whole GPUs asked, 2 free"), "{}", refused.message);
    give(&mut host, &[any_gpu(), any_gpu()]).unwrap();
}
