//! What is installed, too old, missing, or in the way.

use croft_preflight::{Level, NvidiaModule};

use crate::root::Root;

#[test]
fn versions_that_are_too_old_are_told_with_the_ones_that_are_tested() {
    let mut root = Root::new();
    for (program, id, text, level) in [
        ("libvirtd", "libvirt", "libvirtd (libvirt) 8.0.0", Level::Warn),
        ("libvirtd", "libvirt", "libvirtd (libvirt) 9.0.0", Level::Info),
        ("libvirtd", "libvirt", "libvirtd (libvirt) 11.3.0", Level::Ok),
        ("qemu-system-x86_64", "qemu", "QEMU emulator version 6.2.0", Level::Warn),
        ("qemu-system-x86_64", "qemu", "QEMU emulator version 7.2.22 (Debian 1:7.2)", Level::Ok),
    ] {
        root.asked.programs.insert(program, Ok(text.to_owned()));
        assert_eq!(root.one(id).level, level, "{text}");
    }
    for (release, level) in
        [("5.4.0-200-generic", Level::Fail), ("5.15.0-100-generic", Level::Warn), ("6.8.0-31-generic", Level::Ok)]
    {
        root.write("proc/sys/kernel/osrelease", format!("{release}\n"));
        root.directory(&format!("lib/modules/{release}"));
        assert_eq!(root.one("kernel").level, level, "{release}");
    }
}

#[test]
fn a_kernel_that_was_upgraded_under_its_feet_wants_a_reboot() {
    let root = Root::new();
    root.remove("lib/modules/6.12.38+deb13-amd64");
    root.directory("lib/modules/6.12.41+deb13-amd64");
    root.write("run/reboot-required", "");
    let levels: Vec<_> = root.said("kernel").into_iter().map(|(level, ..)| level).collect();
    assert_eq!(levels, [Level::Ok, Level::Warn, Level::Info]);
}

#[test]
fn what_is_missing_is_named_with_its_package() {
    let mut root = Root::new();
    root.asked.programs.clear();
    root.remove("usr/sbin/nft");
    root.remove("usr/sbin/ebtables");
    root.remove("usr/sbin/iptables");
    root.remove("usr/share/OVMF/OVMF_CODE_4M.fd");
    assert_eq!(root.trouble(), ["warn iommu", "fail libvirt", "fail qemu", "warn uefi", "fail tools"]);
    let tools = root.one("tools");
    assert_eq!(
        (tools.found.as_str(), tools.fix.as_str()),
        ("missing: nft, ebtables, iptables", "apt-get install nftables iptables")
    );
}

#[test]
fn firmware_with_secure_boot_alone_does_not_do() {
    let root = Root::new();
    let path = "usr/share/qemu/firmware/60-edk2-x86_64.json";
    let text = std::fs::read_to_string(root.path(path)).unwrap();
    root.write(path, text.replace("\"acpi-s3\"", "\"secure-boot\", \"requires-smm\""));
    assert_eq!(root.one("uefi").level, Level::Warn);
    root.write(path, "no JSON");
    assert_eq!(root.one("uefi").level, Level::Warn);
}

#[test]
fn an_unsigned_driver_under_secure_boot_never_loads() {
    let mut root = Root::new();
    root.write("sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", [6, 0, 0, 0, 1]);
    assert_eq!(root.one("secure-boot").level, Level::Ok, "no driver at all");
    root.asked.nvidia_module = Some(NvidiaModule { signer: None });
    assert_eq!(root.one("secure-boot").level, Level::Fail);
    root.asked.nvidia_module = Some(NvidiaModule { signer: Some("DKMS module signing key".to_owned()) });
    assert_eq!(root.one("secure-boot").level, Level::Info);
    root.asked.nvidia_module = Some(NvidiaModule { signer: None });
    root.write("sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", [6, 0, 0, 0, 0]);
    assert_eq!(root.one("secure-boot").found, "off");
}

#[test]
fn a_libvirt_that_does_not_listen_and_a_binding_by_id() {
    let root = Root::new();
    root.remove("run/libvirt/libvirt-sock");
    root.write("proc/cmdline", "ro vfio-pci.ids=10de:2330\n");
    assert_eq!(root.said("libvirt")[1].0, Level::Warn);
    assert!(root.said("vfio")[1].2.contains("vfio-pci.ids=10de:2330"));
}

#[test]
fn others_on_the_machine_are_named() {
    let root = Root::new();
    assert_eq!(root.one("other-software").level, Level::Ok);
    root.process(900, "nova-compute");
    root.write("var/lib/kubelet/device-plugins/nvidia-gpu.sock", "");
    let said: Vec<_> = root.said("other-software").into_iter().map(|(_, _, found)| found).collect();
    assert_eq!(
        said,
        [
            "NVIDIA's Kubernetes device plugin (/var/lib/kubelet/device-plugins/nvidia-gpu.sock)",
            "OpenStack Nova runs (pid 900)"
        ]
    );
    root.write("etc/libvirt/qemu/db.xml", "<domain type='kvm'><name>db</name></domain>");
    root.write("run/libvirt/qemu/db.xml", "<domstatus/>");
    root.write(
        "etc/libvirt/qemu/croft-1.xml",
        "<domain><metadata><c:i xmlns:c='https://croft.dev/libvirt/1'/></metadata></domain>",
    );
    let guests = root.one("other-guests");
    assert_eq!((guests.level, guests.found.as_str()), (Level::Info, "db"));
}
