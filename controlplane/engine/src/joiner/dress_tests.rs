use std::collections::{BTreeMap, BTreeSet};

use croft_core::device::Assignment;
use croft_core::placement::Placement;

use super::*;
use crate::bed::joining;

fn node(taints: &[&str], ready: Ready) -> Node {
    let taint = |key: &&str| Taint { key: (*key).to_owned(), value: String::new(), effect: Effect::NoSchedule };
    Node {
        name: "web-deadbeef".into(),
        uid: "u".into(),
        provider_id: None,
        ready,
        cordoned: false,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        taints: taints.iter().map(taint).collect(),
        addresses: BTreeSet::new(),
        capacity: BTreeMap::new(),
        allocatable: BTreeMap::new(),
    }
}

fn gpu(profile: &str) -> Assignment {
    Assignment {
        id: "gpu-0".into(),
        device: "0000:41:00.0".into(),
        kind: Kind::Gpu,
        class: "030200".into(),
        serial: String::new(),
        pci_id: "10de:2330".into(),
        slot_path: String::new(),
        pool: None,
        model: "h100_sxm_80gb".into(),
        atoms: Vec::new(),
        companions: Vec::new(),
        mig_profile: profile.into(),
        mig_start: 0,
        mig_size: 0,
        vgpu_type: String::new(),
        function_index: None,
        framebuffer_mib: 0,
        charged_memory_mib: 10240,
        fabric_partition: None,
    }
}

/// As the cluster would have it.
fn put_on(node: &mut Node, change: &Change) {
    node.labels.extend(change.labels.clone());
    node.annotations.extend(change.annotations.clone());
    node.taints.retain(|taint| !change.shed.contains(&taint.key));
    node.taints.extend(change.taints.clone());
}

#[test]
fn a_node_is_its_tenants_for_good_and_free_for_pods_when_it_is_ready() {
    let instance = joining("web");
    let mut node = node(&[UNINITIALISED_TAINT], Ready::No(String::new()));
    let first = lacking(&instance, &node).unwrap();
    assert_eq!((first.labels[TENANT_LABEL].as_str(), first.labels["zone"].as_str()), ("acme", "a"));
    let keys: Vec<&str> = first.taints.iter().map(|taint| taint.key.as_str()).collect();
    assert_eq!(keys, [TENANT_TAINT, "spot"]);
    assert_eq!(first.annotations["croft.dev/instance"], "tenants/acme/instances/web");
    assert!(first.shed.is_empty(), "not before it is Ready");
    put_on(&mut node, &first);
    assert_eq!(lacking(&instance, &node), None, "nothing is put on twice");
    node.ready = Ready::Yes;
    let then = lacking(&instance, &node).unwrap();
    assert!(then.shed.contains(UNINITIALISED_TAINT));
    put_on(&mut node, &then);
    assert_eq!(lacking(&instance, &node), None);
    // From now on the user's labels are the user's. Whose it is, is not.
    node.labels.clear();
    node.taints.clear();
    let again = lacking(&instance, &node).unwrap();
    assert_eq!(again.labels.keys().collect::<Vec<_>>(), [TENANT_LABEL]);
    assert_eq!(again.taints.iter().map(|taint| taint.key.as_str()).collect::<Vec<_>>(), [TENANT_TAINT]);
}

#[test]
fn a_node_with_a_gpu_waits_for_it_and_is_labelled_by_it() {
    let mut instance = joining("web");
    instance.placement =
        Some(Placement { host: "h1".into(), pins: Vec::new(), devices: vec![gpu("1g.10gb+me")], parked: None });
    let mut node = node(&[UNINITIALISED_TAINT], Ready::Yes);
    node.labels.insert("nvidia.com/gpu.count".into(), "7".into());
    let change = lacking(&instance, &node).unwrap();
    assert!(change.shed.is_empty(), "no device plugin has shown it yet");
    assert_eq!(change.labels["nvidia.com/gpu.product"], "h100_sxm_80gb-1g.10gb-me");
    assert_eq!(change.labels["nvidia.com/gpu.memory"], "10240");
    assert_eq!(change.labels["nvidia.com/mig.strategy"], "single");
    assert!(!change.labels.contains_key("nvidia.com/gpu.count"), "whoever looked inside knows better");
    node.allocatable.insert("nvidia.com/gpu".into(), "0".into());
    assert!(lacking(&instance, &node).unwrap().shed.is_empty());
    assert_eq!(uninitialised(&instance, &node).unwrap().reason, told::GPU_RESOURCE_MISSING);
    assert_eq!(uninitialised(&joining("plain"), &node), None);
    node.allocatable.insert("nvidia.com/mig-1g.10gb.me".into(), "1".into());
    assert_eq!(uninitialised(&instance, &node), None);
    assert!(lacking(&instance, &node).unwrap().shed.contains(UNINITIALISED_TAINT));
}
