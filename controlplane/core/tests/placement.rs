//! Placement against a brute-force model: whatever is placed fits, and whatever is refused does not.

use std::collections::BTreeSet;

use croft_core::host::{Capacity, Cell, Resources, State};
use croft_core::instance::Cpu;
use croft_core::placement::{self, HostView, Outcome, Policy, Predicate, Request};
use proptest::prelude::*;

fn host(id: &str, cells: i32, cores: i32, memory_mib: i64) -> HostView {
    let cell = |at: i32| Cell {
        id: at,
        cores: (0..cores).map(|core| vec![2 * (at * cores + core), 2 * (at * cores + core) + 1]).collect(),
        memory_mib: memory_mib / i64::from(cells),
        huge_pages: [(2048, 512)].into(),
    };
    HostView {
        id: id.into(),
        version: 1,
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        state: State::Ready,
        cordoned: false,
        maintenance: None,
        unready: None,
        capacity: Capacity {
            cells: (0..cells).map(cell).collect(),
            vcpus: i64::from(2 * cells * cores),
            memory_mib,
            disk_gib: 1000,
            disk_free_gib: 900,
        },
        reserve: Resources { vcpus: 1, memory_mib: 512, disk_gib: 10 },
        foreign: Resources { vcpus: 2, memory_mib: 1024, disk_gib: 5 },
        overhead_memory_mib: 128,
        cpu_overcommit_percent: 200,
        claimed: Resources::default(),
        dedicated: BTreeSet::new(),
        huge_claimed: Default::default(),
        instances: 0,
        devices: Default::default(),
        devices_seen: false,
        seed_files: false,
        rebuilds: false,
    }
}

fn request() -> impl Strategy<Value = Request> {
    (1..12_i64, 1..40_i64, 1..200_i64, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(vcpus, memory, disk_gib, dedicated, single_numa_cell, huge, pack)| Request {
            vcpus,
            memory_mib: memory * 256,
            disk_gib,
            huge_page_kib: if huge { 2048 } else { 0 },
            cpu: Cpu { dedicated, single_numa_cell },
            host_selector: Default::default(),
            policy: if pack { Policy::Pack } else { Policy::Spread },
            devices: Default::default(),
            joins: false,
            rebuilt: false,
            away_from: None,
        },
    )
}

/// What a pedant with a ledger would say of a host after some claims.
fn ledger_holds(view: &HostView) -> Result<(), TestCaseError> {
    let free = view.free();
    prop_assert!(free.vcpus >= 0 && free.memory_mib >= 0 && free.disk_gib >= 0, "{}: {free:?}", view.id);
    for ((cell, size), mib) in &view.huge_claimed {
        prop_assert!(*mib >= 0 && view.huge_free_mib(*cell, *size) >= 0, "{}: huge pages of cell {cell}", view.id);
    }
    Ok(())
}

proptest! {
    #[test]
    fn nothing_is_promised_twice_and_everything_comes_back(requests in prop::collection::vec(request(), 1..60)) {
        let fresh = vec![host("h1", 2, 4, 32 * 1024), host("h2", 1, 8, 16 * 1024), host("h3", 4, 2, 24 * 1024)];
        let mut hosts = fresh.clone();
        let mut taken = Vec::new();
        for request in &requests {
            let verdicts = placement::explain(&hosts, request);
            prop_assert_eq!(verdicts.len(), hosts.len());
            let best = verdicts.iter().find(|verdict| verdict.outcome == Outcome::Fits { rank: 1 });
            match placement::place(&hosts, request) {
                Ok(placed) => {
                    prop_assert_eq!(Some(&placed.host), best.map(|verdict| &verdict.host), "explain and place agree");
                    let view = hosts.iter_mut().find(|view| view.id == placed.host).unwrap();
                    let before = view.dedicated.len();
                    let claim = view.apply(request, &placed);
                    prop_assert_eq!(view.dedicated.len(), before + claim.dedicated.len(), "a dedicated CPU has one holder");
                    if request.cpu.dedicated {
                        let pinned: Vec<i32> = placed.pins.iter().flat_map(|pin| pin.cpus.clone()).collect();
                        prop_assert_eq!(pinned.len() as i64, request.vcpus);
                        for cpu in pinned {
                            prop_assert!(claim.dedicated.contains(&cpu) && claim.dedicated.contains(&(cpu ^ 1)), "a whole core");
                        }
                    }
                    if request.cpu.single_numa_cell {
                        prop_assert_eq!(placed.pins.len(), 1);
                    }
                    if !placed.pins.is_empty() {
                        prop_assert_eq!(placed.pins.iter().map(|pin| pin.vcpus).sum::<i64>(), request.vcpus);
                        prop_assert_eq!(placed.pins.iter().map(|pin| pin.memory_mib).sum::<i64>(), request.memory_mib);
                    }
                    taken.push((placed.host, claim));
                }
                Err(_) => prop_assert!(best.is_none(), "refused though {best:?} fits"),
            }
            for view in &hosts {
                ledger_holds(view)?;
            }
        }
        for (id, claim) in taken {
            hosts.iter_mut().find(|view| view.id == id).unwrap().give_back(&claim);
        }
        for (view, fresh) in hosts.iter_mut().zip(&fresh) {
            view.huge_claimed.retain(|_, mib| *mib != 0);
            prop_assert_eq!(&*view, fresh, "what was taken came back");
        }
    }

    /// A plain request fits exactly where the sums say so.
    #[test]
    fn plain_requests_agree_with_the_sums(vcpus in 1..20_i64, memory in 64..40_000_i64, disk in 1..1200_i64) {
        let view = host("h1", 2, 4, 32 * 1024);
        let request = Request {
            vcpus, memory_mib: memory, disk_gib: disk, huge_page_kib: 0,
            cpu: Cpu::default(), host_selector: Default::default(), policy: Policy::Spread, devices: Default::default(),
            joins: false,
            rebuilt: false,
            away_from: None,
        };
        // 16 CPUs; 2 cells × 512 pages of 2 MiB are not ordinary memory.
        let fits = vcpus <= 16 && memory + 128 <= 32 * 1024 - 2048 - 512 - 1024 && disk <= 1000 - 10 - 5;
        prop_assert_eq!(placement::place([&view], &request).is_ok(), fits);
    }
}

fn small() -> Request {
    Request {
        vcpus: 1,
        memory_mib: 256,
        disk_gib: 1,
        huge_page_kib: 0,
        cpu: Cpu::default(),
        host_selector: Default::default(),
        policy: Policy::Spread,
        devices: Default::default(),
        joins: false,
        rebuilt: false,
        away_from: None,
    }
}

#[test]
fn each_refusal_names_its_predicate_and_a_fix() {
    let base = host("h1", 1, 2, 4096);
    let cases: [(&str, HostView, Request, Predicate); 9] = [
        ("silent", HostView { state: State::Unreachable, ..base.clone() }, small(), Predicate::HostState),
        ("cordoned", HostView { cordoned: true, ..base.clone() }, small(), Predicate::Cordon),
        (
            "label",
            base.clone(),
            Request { host_selector: [("zone".to_owned(), "b".to_owned())].into(), ..small() },
            Predicate::HostSelector,
        ),
        ("agent too old to join", base.clone(), Request { joins: true, ..small() }, Predicate::AgentFeature),
        ("too large for ever", base.clone(), Request { vcpus: 5, ..small() }, Predicate::Size),
        ("memory", base.clone(), Request { memory_mib: 2048, ..small() }, Predicate::Memory),
        (
            "file system full",
            HostView { capacity: Capacity { disk_free_gib: 3, ..base.capacity.clone() }, ..base.clone() },
            small(),
            Predicate::DiskReserve,
        ),
        (
            "huge pages",
            base.clone(),
            Request { huge_page_kib: 1_048_576, memory_mib: 1024, ..small() },
            Predicate::HugePages,
        ),
        (
            "dedicated",
            HostView { dedicated: [0, 2].into(), ..base.clone() },
            Request { cpu: Cpu { dedicated: true, single_numa_cell: false }, ..small() },
            Predicate::DedicatedCpus,
        ),
    ];
    for (name, view, request, expected) in cases {
        let verdicts = placement::explain(std::slice::from_ref(&view), &request);
        let Outcome::Fails { predicate, message, fix } = &verdicts[0].outcome else { panic!("{name}: it fits") };
        assert_eq!(*predicate, expected, "{name}: {message}");
        assert!(!message.is_empty() && !fix.is_empty(), "{name}");
        let refusal = placement::place([&view], &request).unwrap_err().to_string();
        assert!(refusal.contains("hosts/h1") && refusal.contains(message), "{name}: {refusal}");
    }
}

#[test]
fn spread_takes_the_emptiest_and_pack_the_fullest() {
    let mut hosts = [host("h1", 1, 8, 16 * 1024), host("h2", 1, 8, 16 * 1024)];
    let first = placement::place(&hosts, &small()).unwrap();
    assert_eq!(first.host.as_str(), "h1", "equal hosts have an order");
    hosts[0].apply(&small(), &first);
    assert_eq!(placement::place(&hosts, &small()).unwrap().host.as_str(), "h2");
    let pack = Request { policy: Policy::Pack, ..small() };
    assert_eq!(placement::place(&hosts, &pack).unwrap().host.as_str(), "h1");
}

#[test]
fn nothing_is_placed_where_the_hypervisor_does_not_answer() {
    let mut view = host("h1", 1, 4, 32 * 1024);
    view.unready = Some("its hypervisor does not answer (no socket)".to_owned());
    let refused = placement::place([&view], &small()).unwrap_err();
    assert!(refused.to_string().contains("no socket"), "{refused}");
}
