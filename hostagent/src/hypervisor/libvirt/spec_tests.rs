use croft_proto::agent::v1::desired_interface::{Bridge, TenantNat};
use croft_proto::agent::v1::{DesiredDisk, DesiredImage, DesiredInterface};
use croft_proto::v1::{DiskImage, KernelImage};

use super::*;

fn desired() -> DesiredInstance {
    let nat = TenantNat { tenant_uid: "0190a3c5-6d3e-7000-8000-00000000000f".into() };
    DesiredInstance {
        uid: "0190a3c5-6d3e-7000-8000-000000000001".into(),
        tenant: "acme".into(),
        name: "train-1".into(),
        generation: 1,
        vcpus: 4,
        memory_mib: 4096,
        image: Some(DesiredImage {
            uid: "0190a3c5-6d3e-7000-8000-0000000000aa".into(),
            boot: Some(DesiredBoot::Disk(DiskImage::default())),
            ..Default::default()
        }),
        disks: vec![DesiredDisk { uid: String::new(), size_gib: 5 }],
        interfaces: vec![DesiredInterface {
            mac: "02:00:00:00:00:0A".into(),
            network: Some(DesiredNetwork::TenantNat(nat)),
        }],
        ..Default::default()
    }
}
fn facts() -> Facts {
    let cells = BTreeMap::from([(0, (0..8).collect()), (1, (8..16).collect())]);
    Facts { domain_type: DomainType::Kvm, cells, memory_mib: 65536 }
}
fn build(desired: &DesiredInstance) -> Result<Domain, Error> {
    let ready = Ready {
        disk: Some(crate::media::cache::ReadyDisk { path: "/i/disk".into(), format: Format::Raw, virtual_size: 1 }),
        kernel: Some("/i/kernel".into()),
        initrd: None,
    };
    let paths = Paths::new(std::path::Path::new("/var/lib/croft/hostagent")).unwrap();
    let links = Links {
        address: &|mac| (mac == "02:00:00:00:00:0a").then_some(Ipv4Addr::new(10, 200, 0, 2)),
        bridge: &|name, _| match name {
            "br0" => Ok(BridgeKind::Linux),
            _ => Err(Error::Refused { reason: crate::reasons::NETWORK_UNKNOWN, message: name.into() }),
        },
    };
    domain(desired, &ready, &facts(), &paths, &links)
}
#[track_caller]
fn refused(change: impl FnOnce(&mut DesiredInstance)) -> (&'static str, String) {
    let mut desired = desired();
    change(&mut desired);
    match build(&desired) {
        Err(Error::Refused { reason, message }) => (reason, message),
        other => panic!("not refused: {other:?}"),
    }
}
fn pin(cell: i32, cpus: &[i32]) -> NumaPin {
    NumaPin { cell, cpus: cpus.to_vec(), memory_mib: 2048 }
}

#[test]
fn an_ordinary_instance() {
    let domain = build(&desired()).unwrap();
    assert!(matches!(domain.boot, Boot::Uefi { .. }), "UEFI unless said otherwise");
    assert_eq!(domain.interfaces[0].mac, "02:00:00:00:00:0a");
    assert_eq!(domain.disks[0].backing, Some(("/i/disk".into(), Format::Raw)), "the declared format goes along");
    assert!(domain.cells.is_empty());
}

#[test]
fn every_field_that_could_hurt_the_host_is_checked() {
    assert_eq!(refused(|d| d.uid = "../x".into()).0, "SpecInvalid");
    assert_eq!(refused(|d| d.vcpus = 0).0, "SpecInvalid");
    assert_eq!(refused(|d| d.vcpus = 513).0, "SpecInvalid");
    assert_eq!(refused(|d| d.memory_mib = -1).0, "SpecInvalid");
    assert_eq!(refused(|d| d.memory_mib = 65537).0, "HostTooSmall");
    assert!(refused(|d| (d.huge_page_kib, d.memory_mib) = (1_048_576, 1500)).1.contains("pages"));
    for mac in ["", "02:00:00:00:00", "02:00:00:00:00:0g", "03:00:00:00:00:01", "00:00:00:00:00:00", "2:0:0:0:0:1"] {
        assert!(refused(|d| d.interfaces[0].mac = mac.into()).1.contains("MAC"), "{mac}");
    }
    assert!(refused(|d| d.interfaces[0].network = None).1.contains("no network"));
    assert!(refused(|d| d.disks.push(DesiredDisk::default())).1.contains("2 disks"));
    assert!(refused(|d| d.disks.clear()).1.contains("asks for none"));
    assert!(refused(|d| d.image = None).1.contains("no image"));
}

#[test]
fn bridges_by_name_and_vlan() {
    let bridge = |name: &str, vlan| {
        let bridge = Bridge { bridge: name.into(), vlan };
        let mut desired = desired();
        desired.interfaces[0].network = Some(DesiredNetwork::Bridge(bridge));
        build(&desired).map(|domain| domain.interfaces[0].link.clone())
    };
    let link = Link::Bridge { bridge: "br0".into(), kind: BridgeKind::Linux, vlan: Some(7) };
    assert_eq!(bridge("br0", 7).unwrap(), link);
    assert!(matches!(bridge("br9", 0), Err(Error::Refused { reason: "NetworkUnknown", .. })));
    for (name, vlan) in [("br0", 4095), ("br0", -1), ("../../x", 0), ("", 0), ("a-very-long-bridge", 0), ("..", 0)] {
        assert!(matches!(bridge(name, vlan), Err(Error::Refused { reason: "SpecInvalid", .. })), "{name} {vlan}");
    }
}

#[test]
fn firmware_and_kernel() {
    let mut bios = desired();
    bios.image.as_mut().unwrap().firmware = Firmware::Bios.into();
    assert_eq!(build(&bios).unwrap().boot, Boot::Bios);
    let mut kernel = desired();
    let image = KernelImage { cmdline: "quiet".into(), ..Default::default() };
    kernel.image.as_mut().unwrap().boot = Some(DesiredBoot::Kernel(image));
    let boot = Boot::Kernel { kernel: "/i/kernel".into(), initrd: None, cmdline: "quiet".into() };
    assert_eq!(build(&kernel).unwrap().boot, boot);
}

#[test]
fn placement_is_carried_through_or_refused() {
    let cells = |pins: Vec<NumaPin>| build(&DesiredInstance { numa: pins, ..desired() }).map(|domain| domain.cells);
    let each = cells(vec![pin(1, &[8, 9, 10, 15])]).unwrap();
    let only = Cell { host_cell: 1, vcpus: 0..4, cpus: CellCpus::Each(vec![8, 9, 10, 15]), memory_mib: 2048 };
    assert_eq!(each, vec![only]);
    let shared = cells(vec![pin(0, &[]), pin(1, &[])]).unwrap();
    assert_eq!((shared[0].vcpus.clone(), shared[1].vcpus.clone()), (0..2, 2..4));
    assert_eq!(shared[1].cpus, CellCpus::Any((8..16).collect()));

    let reason = |pins| match cells(pins) {
        Err(Error::Refused { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(vec![pin(2, &[])]), "CpuUnavailable");
    assert_eq!(reason(vec![pin(-1, &[])]), "CpuUnavailable");
    assert_eq!(reason(vec![pin(0, &[0, 1, 2, 8])]), "CpuUnavailable");
    assert_eq!(reason(vec![pin(0, &[0, 1])]), "SpecInvalid");
    assert_eq!(reason(vec![pin(0, &[0, 1, 2, 3, 4])]), "SpecInvalid");
}
