use std::collections::BTreeMap;
use std::time::Duration;

use croft_core::Timestamp;
use croft_core::device::{Assignment, Kind};
use croft_core::id::{ImageUid, InstanceUid};
use croft_core::image::{DiskImage, File, Format};
use croft_core::instance::{CloudInit, Cpu, Disk, Instance, Intent, Interface, Power, Restart, Spec, State, Status};
use croft_core::join::node::{DEFAULT_RECIPE, Wish};
use croft_core::meta::{Labels, Meta};
use croft_core::placement::{Pin, Placement, Policy};

use super::*;

const UID: &str = "01890000-0000-7000-8000-000000000001";

fn meta(uid: &str) -> Meta {
    Meta::new(uid.into(), Labels::new(), Labels::new(), Timestamp(1))
}

fn instance(networks: &[&str]) -> Instance {
    Instance {
        uid: InstanceUid::parse(UID).unwrap(),
        tenant: "acme".into(),
        id: "web".into(),
        meta: meta(UID),
        spec: Spec {
            vcpus: 2,
            memory_mib: 2048,
            image: "images/debian".into(),
            image_uid: ImageUid::parse(UID).unwrap(),
            disks: vec![Disk { size_gib: 20 }],
            interfaces: networks.iter().map(|network| Interface { network: (*network).into() }).collect(),
            cpu: Cpu::default(),
            huge_page_kib: 0,
            cloud_init: CloudInit::default(),
            host_selector: Labels::new(),
            policy: Policy::Spread,
            devices: Vec::new(),
            node: None,
        },
        intent: Intent {
            power_generation: 3,
            reboot_generation: 2,
            reset_generation: 1,
            seed_digest: "sha256:abc".into(),
            ..Intent::first(Power::Running, Restart::OnFailure, Duration::from_secs(90))
        },
        placement: Some(Placement { host: "h1".into(), pins: Vec::new(), devices: Vec::new(), parked: None }),
        node: None,
        status: Status::first(State::Pending, Timestamp(1)),
    }
}

fn file() -> File {
    File { uri: "https://example.org/d".into(), sha256: "0".repeat(64) }
}

fn image(firmware: Firmware) -> Image {
    Image {
        uid: ImageUid::parse(UID).unwrap(),
        meta: meta(UID),
        tenant: None,
        id: "debian".into(),
        description: String::new(),
        boot: Boot::Disk(DiskImage { file: file(), format: Format::Qcow2, min_disk_gib: 3 }),
        firmware,
    }
}

fn tenant() -> Tenant {
    Tenant { id: "acme".into(), meta: meta("tenant-uid"), parent: None, display_name: String::new() }
}

fn lan() -> Network {
    Network {
        id: "lan".into(),
        meta: meta("n"),
        description: String::new(),
        bridge: "br0".into(),
        vlan: 7,
        granted_tenants: Vec::new(),
    }
}

#[test]
fn a_plain_vm_needs_nothing_special_and_floats() {
    let desired = out(&instance(&["default"]), &image(Firmware::Uefi), &tenant(), &[]).unwrap();
    assert_eq!(desired.required_features, Vec::<String>::new());
    assert_eq!((desired.numa.len(), desired.disks.len(), desired.seed_digest.as_str()), (0, 1, "sha256:abc"));
    assert_eq!((desired.power_generation, desired.reboot_generation, desired.reset_generation), (3, 2, 1));
    assert_eq!((desired.tenant_uid.as_str(), desired.stop_timeout_seconds), ("tenant-uid", 90));
    let nat = agent::desired_interface::TenantNat { tenant_uid: "tenant-uid".into() };
    assert_eq!(desired.interfaces[0].network, Some(agent::desired_interface::Network::TenantNat(nat)));
    assert!(desired.image.unwrap().platform);
}

#[test]
fn what_an_older_agent_would_not_understand_is_required() {
    let mut special = instance(&["default", "lan"]);
    special.spec.huge_page_kib = 2048;
    special.intent.disk_generation = 4;
    special.spec.node = Some(Wish {
        cluster: "clusters/prod".into(),
        cluster_uid: String::new(),
        recipe: DEFAULT_RECIPE.into(),
        labels: Labels::new(),
        taints: Vec::new(),
        repair: croft_core::join::keep::Repair::None,
    });
    special.placement.as_mut().unwrap().pins = vec![Pin { cell: 1, vcpus: 2, cpus: vec![4, 6], memory_mib: 2048 }];
    let desired = out(&special, &image(Firmware::Bios), &tenant(), &[lan()]).unwrap();
    let mut required = desired.required_features.clone();
    required.sort();
    let mut all = vec![
        features::BRIDGE,
        features::HUGE_PAGES,
        features::NUMA_PINNING,
        features::BIOS,
        features::SEED_FILES,
        features::REBUILD,
    ];
    assert_eq!(desired.disk_generation, 4);
    all.sort_unstable();
    assert_eq!(required, all);
    assert_eq!(desired.numa, [agent::NumaPin { cell: 1, cpus: vec![4, 6], memory_mib: 2048 }]);
    let bridge = agent::desired_interface::Bridge { bridge: "br0".into(), vlan: 7 };
    assert_eq!(desired.interfaces[1].network, Some(agent::desired_interface::Network::Bridge(bridge)));

    let kernel = Boot::Kernel { kernel: file(), initrd: None, root: None, cmdline: String::new() };
    let direct = Image { boot: kernel, tenant: Some("acme".into()), ..image(Firmware::Bios) };
    let desired = out(&instance(&["default"]), &direct, &tenant(), &[]).unwrap();
    assert_eq!(desired.required_features, [features::KERNEL_BOOT]);
    assert!(!desired.image.unwrap().platform);
}

#[test]
fn a_network_that_is_gone_is_never_replaced_by_another() {
    assert!(out(&instance(&["lan"]), &image(Firmware::Uefi), &tenant(), &[]).is_err());
}

#[test]
fn addresses_are_local_stable_and_different() {
    let macs: Vec<_> = (0..8).map(|at| mac(UID, at)).collect();
    assert_eq!(macs[0], mac(UID, 0));
    for (at, mac) in macs.iter().enumerate() {
        assert!(mac.starts_with("02:") && mac.len() == 17, "{mac}");
        assert!(!macs[..at].contains(mac));
    }
}

#[test]
fn patience_is_rounded_up() {
    assert_eq!(
        (seconds(Duration::ZERO), seconds(Duration::from_millis(1)), seconds(Duration::from_secs(9))),
        (0, 1, 9)
    );
}

fn assigned(id: &str, kind: Kind, class: &str) -> Assignment {
    Assignment {
        id: id.into(),
        device: format!("dev-{id}").as_str().into(),
        kind,
        class: class.into(),
        serial: "s1".into(),
        pci_id: "8086:10ca".into(),
        slot_path: "pci0000:00/01.0".into(),
        pool: None,
        model: String::new(),
        atoms: Vec::new(),
        companions: Vec::new(),
        mig_profile: String::new(),
        mig_start: 0,
        mig_size: 0,
        vgpu_type: String::new(),
        function_index: None,
        framebuffer_mib: 0,
        charged_memory_mib: 0,
        fabric_partition: None,
    }
}

#[test]
fn the_exact_pieces_are_told_and_required() {
    let mut special = instance(&["default"]);
    special.intent.detaching = BTreeMap::from([("usb".to_owned(), 4)]);
    let companions = vec![("0000:41:00.1".into(), Vec::new())];
    special.placement.as_mut().unwrap().devices = vec![
        Assignment { companions, fabric_partition: Some(3), ..assigned("gpu", Kind::Gpu, "030200") },
        Assignment {
            mig_profile: "2g.20gb".into(),
            mig_start: 2,
            mig_size: 2,
            vgpu_type: "H100XM-2-20C".into(),
            function_index: Some(5),
            ..assigned("slice", Kind::Gpu, "030200")
        },
        assigned("nic", Kind::VirtualFunction, "020000"),
        assigned("disk", Kind::VirtualFunction, "010802"),
        assigned("usb", Kind::Usb, ""),
    ];
    let desired = out(&special, &image(Firmware::Uefi), &tenant(), &[]).unwrap();
    assert_eq!(desired.required_features, [features::DEVICES]);
    let [gpu, slice, nic, disk, usb] = &desired.devices[..] else { panic!("{:?}", desired.devices) };
    assert_eq!((gpu.device.as_str(), gpu.serial.as_str(), gpu.pci_id.as_str()), ("dev-gpu", "s1", "8086:10ca"));
    let whole = |device: &agent::DesiredDevice| match &device.piece {
        Some(agent::desired_device::Piece::Whole(whole)) => whole.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(whole(gpu).companions, ["0000:41:00.1"]);
    assert_eq!((whole(gpu).fabric_partition, whole(gpu).mac.as_str()), (3, ""));
    let vgpu = agent::desired_device::Vgpu {
        r#type: "H100XM-2-20C".into(),
        function_index: 5,
        mig_profile: "2g.20gb".into(),
        mig_start: 2,
        mig_size: 2,
    };
    assert_eq!(slice.piece, Some(agent::desired_device::Piece::Vgpu(vgpu)));
    assert!(whole(nic).mac.starts_with("02:") && whole(disk).mac.is_empty(), "only a network card has an address");
    assert_eq!(whole(nic).fabric_partition, -1);
    assert_eq!(usb.piece, Some(agent::desired_device::Piece::Usb(agent::desired_device::Usb {})));
    assert_eq!((usb.detach, nic.detach), (true, false));
}
