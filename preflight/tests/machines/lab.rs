//! The lab's host: an Intel IOMMU, a network card with SR-IOV, a drive. Once with the IOMMU off, once as the kernel role leaves it.

use croft_preflight::Level;

use crate::root::Root;

const ROOT_PORT: [(&str, &str); 3] = [("vendor", "0x1b36"), ("device", "0x000c"), ("class", "0x060400")];
const IGB: [(&str, &str); 4] =
    [("vendor", "0x8086"), ("device", "0x10c9"), ("class", "0x020000"), ("sriov_totalvfs", "7")];
const NVME: [(&str, &str); 3] = [("vendor", "0x1b36"), ("device", "0x0010"), ("class", "0x010802")];

struct Lab {
    root: Root,
    devices: Vec<String>,
}

fn lab() -> Lab {
    let mut root = Root::new();
    root.write("sys/firmware/acpi/tables/DMAR", "");
    root.asked.largest_initrd_mib = 30;
    let mut devices = Vec::new();
    for (number, card) in [(1, &IGB[..]), (2, &NVME[..])] {
        let port = format!("pci0000:00/0000:00:0{number}.0");
        devices.push(root.pci(&port, &ROOT_PORT));
        root.write(&format!("sys/devices/{port}/config"), with_acs());
        devices.push(root.pci(&format!("{port}/0000:0{number}:00.0"), card));
    }
    root.driver(&devices[1], "igb");
    root.driver(&devices[3], "nvme");
    Lab { root, devices }
}

/// Configuration space of a port: an Advanced Error Reporting capability, and ACS behind it.
fn with_acs() -> Vec<u8> {
    let mut config = vec![0; 0x1000];
    config[0x100..0x104].copy_from_slice(&0x1481_0001_u32.to_le_bytes());
    config[0x148..0x14c].copy_from_slice(&0x0001_000d_u32.to_le_bytes());
    config
}

impl Lab {
    fn with_iommu(kind: &str) -> Root {
        let Lab { root, devices } = lab();
        root.directory("sys/class/iommu/dmar0");
        for (group, device) in devices.iter().enumerate() {
            root.group(device, group as u32, kind);
        }
        root.remapped();
        root
    }
}

#[test]
fn with_its_iommu_off_it_is_no_host_and_the_argument_is_named() {
    let Lab { root, .. } = lab();
    root.write("proc/cmdline", "root=/dev/vda3 ro intel_iommu=off console=ttyS0\n");
    let iommu = root.one("iommu");
    assert_eq!(iommu.level, Level::Fail);
    assert_eq!(
        iommu.found,
        "firmware has Intel VT-d (table DMAR), and the kernel argument intel_iommu=off keeps it off"
    );
    assert_eq!(iommu.fix, "boot without intel_iommu=off and with intel_iommu=on iommu=pt");
    assert_eq!(iommu.role, Some("kernel"));
    // What only an IOMMU has says nothing beside.
    for id in ["iommu-mode", "interrupt-remapping", "iommu-group", "acs"] {
        assert_eq!(root.said(id), [], "{id}");
    }
    assert_eq!(root.trouble(), ["fail iommu"]);

    root.write("proc/cmdline", "root=/dev/vda3 ro\n");
    let iommu = root.one("iommu");
    assert!(iommu.found.ends_with("and the kernel has it off"), "{iommu:?}");
    assert_eq!(iommu.fix, "boot with intel_iommu=on iommu=pt");
    root.remove("sys/firmware/acpi/tables/DMAR");
    assert!(root.one("iommu").fix.contains("firmware's setup"));
}

#[test]
fn after_the_kernel_role_nothing_is_missing() {
    let root = Lab::with_iommu("identity");
    assert_eq!(root.trouble(), Vec::<String>::new());
    assert_eq!(root.one("iommu").found, "on: 4 groups, dmar0");
    assert_eq!(root.one("iommu-mode").found, "identity (4 of 4)");
    assert_eq!(root.one("interrupt-remapping").level, Level::Ok);
    assert_eq!(root.one("acs").found, "ACS on 1 port", "only the card with SR-IOV counts");
    let functions = root.one("sriov");
    assert_eq!((functions.subject.as_str(), functions.level), ("0000:01:00.0", Level::Ok));
    assert!(functions.found.ends_with(": 0 of 7 virtual functions made"), "{functions:?}");
}

/// Debian's kernel turns an Intel IOMMU on by itself: a group proves nothing of the arguments.
#[test]
fn an_iommu_that_translates_everything_is_worth_a_word() {
    let mode = Lab::with_iommu("DMA-FQ").one("iommu-mode");
    assert_eq!((mode.level, mode.found.as_str(), mode.role), (Level::Info, "DMA-FQ (4 of 4)", Some("kernel")));
}

#[test]
fn without_remapped_interrupts_vfio_gives_nothing_away() {
    let root = Lab::with_iommu("identity");
    root.write("proc/interrupts", " 24:  1  IO-APIC  5-edge  ACPI:Ged\n");
    assert_eq!(root.one("interrupt-remapping").level, Level::Fail);
    let allow = "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";
    root.write(allow, "Y\n");
    assert_eq!(root.one("interrupt-remapping").level, Level::Warn);
    root.remapped();
    assert_eq!(root.one("interrupt-remapping").level, Level::Warn, "a door that is left open");
    root.write(allow, "N\n");
    assert_eq!(root.one("interrupt-remapping").level, Level::Ok);
}

#[test]
fn a_port_without_acs_and_the_group_that_comes_of_it_are_named() {
    let root = Lab::with_iommu("identity");
    root.write("sys/devices/pci0000:00/0000:00:01.0/config", vec![0; 0x1000]);
    let acs = root.one("acs");
    assert_eq!((acs.level, acs.subject.as_str()), (Level::Info, "0000:00:01.0"), "alone in its group all the same");

    // The kernel puts the port, the card behind it and a drive beside that into one group.
    for device in ["0000:00:01.0/0000:01:00.0", "0000:00:02.0/0000:02:00.0"] {
        root.group(&format!("sys/devices/pci0000:00/{device}"), 0, "identity");
    }
    assert_eq!(root.one("acs").level, Level::Warn);
    let group = root.one("iommu-group");
    assert_eq!((group.level, group.subject.as_str()), (Level::Warn, "0000:01:00.0"));
    assert!(group.found.starts_with("0000:01:00.0 shares IOMMU group 0 with 0000:02:00.0 ("), "{group:?}");
    assert!(group.found.contains("nvme"), "{group:?}");

    // Who is not root is shown 64 bytes.
    root.write("sys/devices/pci0000:00/0000:00:01.0/config", vec![0; 64]);
    let acs = root.one("acs");
    assert!(acs.level == Level::Warn && acs.found.starts_with("not seen"), "{acs:?}");
}
