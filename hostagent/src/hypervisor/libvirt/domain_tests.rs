use std::net::Ipv4Addr;

use super::super::xml::Element;
use super::*;
use crate::hypervisor::{Rom, Source};

/// UEFI, overlay and seed, the tenant's network, emulation.
fn domain() -> Domain {
    let uid = Uuid::from_u128(0x0190_a3c5_6d3e_7000_8000_0000_0000_0001);
    let dir = PathBuf::from("/var/lib/croft/hostagent");
    let here = dir.join("instances").join(uid.to_string());
    let image = dir.join("images/0190a3c5-6d3e-7000-8000-0000000000aa/disk");
    Domain {
        uid,
        generation: 4,
        disk_generation: 0,
        tenant: "acme".into(),
        name: "train-1".into(),
        domain_type: DomainType::Qemu,
        vcpus: 2,
        memory_mib: 2048,
        huge_page_kib: None,
        cells: vec![],
        boot: Boot::Uefi { nvram: here.join("nvram.fd") },
        disks: vec![
            Disk {
                path: here.join("disk.qcow2"),
                format: Format::Qcow2,
                backing: Some((image, Format::Qcow2)),
                access: Access::ReadWrite,
            },
            Disk { path: here.join("seed.img"), format: Format::Raw, backing: None, access: Access::ReadOnly },
        ],
        interfaces: vec![Interface {
            mac: "02:00:00:00:00:01".into(),
            link: Link::Tenant { network: "croft-0123abcd".into(), ip: Ipv4Addr::new(10, 200, 5, 2) },
        }],
        devices: vec![],
        serial: here.join("serial.sock"),
        console_log: dir.join("console").join(format!("{uid}.log")),
    }
}

#[track_caller]
fn shows(name: &str, domain: &Domain) {
    insta::assert_snapshot!(name, domain.to_xml().unwrap());
}

#[test]
fn uefi_under_emulation() {
    shows("uefi-qemu", &domain());
}

#[test]
fn bios_under_kvm_on_a_raw_image() {
    let mut bios = Domain { boot: Boot::Bios, domain_type: DomainType::Kvm, ..domain() };
    bios.disks[0].backing.as_mut().unwrap().1 = Format::Raw;
    shows("bios-kvm-raw", &bios);
}

#[test]
fn kernel_without_a_disk() {
    let images = PathBuf::from("/var/lib/croft/hostagent/images/0190a3c5-6d3e-7000-8000-0000000000bb");
    let boot = Boot::Kernel {
        kernel: images.join("kernel"),
        initrd: Some(images.join("initrd")),
        cmdline: "console=ttyS0 init=\"/bin/sh\" a&b <x>".into(),
    };
    let mut kernel = Domain { boot, ..domain() };
    kernel.disks.remove(0);
    shows("kernel", &kernel);
}

#[test]
fn one_cell_dedicated_with_huge_pages() {
    let cell = Cell { host_cell: 1, vcpus: 0..2, cpus: CellCpus::Each(vec![9, 25]), memory_mib: 2048 };
    let dedicated =
        Domain { domain_type: DomainType::Kvm, huge_page_kib: Some(1_048_576), cells: vec![cell], ..domain() };
    shows("dedicated-huge-pages", &dedicated);
}

#[test]
fn two_cells_of_the_host_become_two_of_the_guest() {
    let cell = |host_cell, vcpus, cpus| Cell { host_cell, vcpus, cpus: CellCpus::Any(cpus), memory_mib: 1024 };
    let cells = vec![cell(0, 0..2, (0..8).collect()), cell(1, 2..4, (8..16).chain(24..32).collect())];
    shows("two-cells", &Domain { vcpus: 4, cells, ..domain() });
}

fn device(alias: &str, source: Source, numa_node: Option<u32>) -> HostDevice {
    HostDevice { alias: alias.into(), source, numa_node }
}

fn gpu(alias: &str, address: &str, numa_node: Option<u32>) -> HostDevice {
    // An H100: registers, 128 GiB of framebuffer, and 32 MiB.
    let source =
        Source::Function { address: address.parse().unwrap(), rom: Rom::Hidden, window_mib: 16 + 128 * 1024 + 32 };
    device(alias, source, numa_node)
}

#[test]
fn devices_of_every_kind() {
    let address = |text: &str| text.parse().unwrap();
    let drive = Source::Function { address: address("0000:a1:00.0"), rom: Rom::Shown, window_mib: 0 };
    let mac = "02:00:00:00:00:77".to_owned();
    let devices = vec![
        device("drive", drive, Some(0)),
        device("slice", Source::VgpuFunction { address: address("0000:41:00.4") }, Some(0)),
        device("old", Source::Mdev { uuid: "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001".into() }, None),
        device("hsm", Source::Usb { bus: 1, device: 7 }, None),
        device("nic", Source::NicFunction { address: address("0000:81:10.2"), mac }, Some(0)),
    ];
    shows("devices", &Domain { devices, ..domain() });
}

#[test]
fn a_large_window_is_told_to_the_firmware() {
    let devices = vec![gpu("gpu-0", "0000:41:00.0", None), gpu("gpu-1", "0000:42:00.0", None)];
    let large = Domain { devices, domain_type: DomainType::Kvm, ..domain() };
    assert_eq!(large.mmio_window(), Some(512 * 1024), "the next power of two above 262240");
    shows("large-window", &large);
    assert_eq!(Domain { boot: Boot::Bios, ..large.clone() }.mmio_window(), None, "SeaBIOS looks for itself");
    let one = Domain { devices: large.devices[..1].to_vec(), ..large };
    assert_eq!(one.mmio_window(), Some(256 * 1024));
}

#[test]
fn devices_hang_near_their_own_cell() {
    let cell = |host_cell, vcpus, cpus| Cell { host_cell, vcpus, cpus: CellCpus::Any(cpus), memory_mib: 1024 };
    let cells = vec![cell(0, 0..2, (0..8).collect()), cell(1, 2..4, (8..16).collect())];
    let near = |alias, bus, node| {
        let source = Source::VgpuFunction { address: format!("0000:{bus}:00.4").parse().unwrap() };
        device(alias, source, Some(node))
    };
    let devices = vec![near("far", "b1", 1), near("near", "41", 0), near("far-2", "b2", 1), near("nowhere", "c1", 7)];
    let domain = Domain { vcpus: 4, cells, devices, ..domain() };
    let ports: Vec<_> = (0..4).map(|at| domain.place(at).map(|place| place.port)).collect();
    // Ten ports as ever and one for the device of no cell of the guest's; then an expander with its ports for each cell.
    assert_eq!(ports, [Some(15), Some(13), Some(16), None]);
    shows("devices-two-cells", &domain);
}

#[test]
fn operators_bridges() {
    let interface = |n: u8, kind, vlan| Interface {
        mac: format!("02:00:00:00:00:{n:02x}"),
        link: Link::Bridge { bridge: format!("br{n}"), kind, vlan },
    };
    let interfaces = vec![
        interface(1, BridgeKind::Linux, None),
        interface(2, BridgeKind::Linux, Some(42)),
        interface(3, BridgeKind::OpenVSwitch, Some(4094)),
    ];
    shows("bridges", &Domain { interfaces, ..domain() });
}

#[test]
fn names_cannot_break_out() {
    let hostile = Domain { name: "x</title><on_crash>restart".into(), tenant: "a\"b".into(), ..domain() };
    let read = Element::parse(&hostile.to_xml().unwrap()).unwrap();
    assert_eq!(read.first("on_crash").unwrap().content(), "destroy");
    assert_eq!(read.first("title").unwrap().content(), "a\"b/x</title><on_crash>restart");
    assert!(Domain { name: "bell\u{7}".into(), ..domain() }.to_xml().is_err());
}

#[test]
fn cpu_lists_are_short() {
    assert_eq!(cpu_list(&[3, 1, 2, 8, 1]), "1-3,8");
    assert_eq!(cpu_list(&[]), "");
}
