//! Devices out of pools.

use std::collections::BTreeMap;
use std::sync::Arc;

use croft_core::device::{Atom, FabricPartition, Kind, PoolMatch, Request, Wanted};
use croft_core::id::DeviceId;
use croft_core::placement::HostView;
use croft_core::placement::device::{Wishes, assign};
use croft_core::placement::fit::{Failure, Predicate};

use super::fixtures::{h100, host, nic};

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
    let refused = asked(3).unwrap_err();
    assert!(refused.message.contains("3 of pools/nic-vf asked, 2 free"), "{}", refused.message);
}

#[test]
fn a_pool_of_gpus_gives_whole_ones_and_partitions_of_an_nvswitch() {
    let matches = PoolMatch {
        kind: Kind::Gpu,
        ids: vec!["10de:2330".to_owned()],
        classes: Vec::new(),
        devices: Vec::new(),
        host_selector: BTreeMap::new(),
    };
    let requests = vec![Request { id: "g".into(), wanted: Wanted::Pool { pool: "gpu-h100".into() } }];
    let pools = Arc::new(BTreeMap::from([("gpu-h100".into(), matches)]));
    let wishes = Wishes { requests, pools, ..Wishes::default() };
    let mut card = h100("0000:41:00.0", "none");
    let given = assign(&host(vec![card.clone()]), &wishes, &[]).unwrap().remove(0);
    assert_eq!((given.atoms.len(), given.model.as_str()), (1 + 16 + 8 + 7 + 1, "h100_sxm_80gb"));
    assert_eq!(given.pool, Some("gpu-h100".into()));
    let partition = FabricPartition { id: 7, gpus: vec![card.id.clone()] };
    card.gpu.as_mut().unwrap().fabric_partitions = vec![partition];
    let given = assign(&host(vec![card.clone()]), &wishes, &[]).unwrap().remove(0);
    assert_eq!((given.fabric_partition, given.pool), (Some(7), Some("gpu-h100".into())));
    card.pci_id = "10de:2331".into();
    assert_eq!(assign(&host(vec![card]), &wishes, &[]).unwrap_err().predicate, Predicate::Pool);
}
