//! A directory that stands for a machine. A new one lacks nothing that a host needs, and has no devices.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use croft_preflight::{Asked, CHECKS, Clock, Disk, Facts, Finding, HostFs, Level, Report, User, examine};
use tempfile::TempDir;

pub struct Root {
    directory: TempDir,
    pub asked: Asked,
}

/// What a vCPU that ran says, and so on: a host on which everything answers well.
fn asked() -> Asked {
    let disk = |path, kind: &str| Disk {
        path,
        at: path.into(),
        free_mib: 900 << 10,
        total_mib: 1000 << 10,
        kind: Some(kind.to_owned()),
    };
    let version = |text: &str| Ok(text.to_owned());
    Asked {
        user: User::Root,
        hostname: "h1".to_owned(),
        kvm: Some(Ok(())),
        programs: [
            ("libvirtd", version("libvirtd (libvirt) 11.3.0")),
            ("qemu-system-x86_64", version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1)")),
        ]
        .into(),
        nvidia_module: None,
        clock: Clock::Synchronised,
        own_addresses: Ok(vec!["127.0.1.1".parse().unwrap()]),
        plane: None,
        disks: vec![disk("/var/lib/croft", "ext4"), disk("/boot", "ext4")],
        largest_initrd_mib: 40,
    }
}

impl Root {
    /// A Debian 13 without devices.
    pub fn new() -> Root {
        Root::on(tempfile::tempdir().unwrap())
    }

    pub fn on(directory: TempDir) -> Root {
        let root = Root { directory, asked: asked() };
        let cpu = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold 6430\n\
                   flags\t\t: fpu vme msr pae vmx smx est\n";
        for (path, text) in [
            ("proc/cpuinfo", cpu),
            ("proc/cmdline", "BOOT_IMAGE=/boot/vmlinuz-6.12.38+deb13-amd64 root=UUID=1 ro quiet\n"),
            ("proc/sys/kernel/osrelease", "6.12.38+deb13-amd64\n"),
            ("proc/1/comm", "systemd\n"),
            ("proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"),
            ("proc/interrupts", "  CPU0\n 24:  1  IO-APIC  5-edge  ACPI:Ged\n"),
            ("sys/module/kvm_intel/parameters/nested", "Y\n"),
            ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0\n"),
            ("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0\n"),
            ("lib/modules/6.12.38+deb13-amd64/modules.dep", "kernel/drivers/vfio/pci/vfio-pci.ko.xz: x.ko\n"),
            ("usr/share/qemu/firmware/60-edk2-x86_64.json", FIRMWARE),
        ] {
            root.write(path, text);
        }
        for file in [
            "run/libvirt/libvirt-sock",
            "usr/bin/qemu-img",
            "usr/sbin/nft",
            "usr/sbin/dnsmasq",
            "usr/sbin/ebtables",
            "usr/sbin/iptables",
            "usr/sbin/ip",
            "usr/share/OVMF/OVMF_CODE_4M.fd",
        ] {
            root.write(file, "");
        }
        for directory in ["sys/bus/platform/devices", "sys/bus/pci/devices", "sys/bus/usb/devices"] {
            root.directory(directory);
        }
        root.namespace("pid", 4_026_531_836);
        root.namespace("user", 4_026_531_837);
        root
    }

    pub fn path(&self, path: &str) -> std::path::PathBuf {
        self.directory.path().join(path)
    }

    pub fn directory(&self, path: &str) {
        fs::create_dir_all(self.path(path)).unwrap();
    }

    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        self.directory(Path::new(path).parent().unwrap().to_str().unwrap());
        fs::write(self.path(path), text).unwrap();
    }

    pub fn remove(&self, path: &str) {
        let path = self.path(path);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }

    pub fn link(&self, path: &str, target: &str) {
        self.directory(Path::new(path).parent().unwrap().to_str().unwrap());
        let _ = fs::remove_file(self.path(path));
        symlink(target, self.path(path)).unwrap();
    }

    /// Which namespace of a kind this program is in.
    pub fn namespace(&self, kind: &str, number: u32) {
        self.link(&format!("proc/self/ns/{kind}"), &format!("{kind}:[{number}]"));
    }

    pub fn process(&self, pid: u32, name: &str) {
        self.write(&format!("proc/{pid}/comm"), format!("{name}\n"));
        self.directory(&format!("proc/{pid}/fd"));
    }

    /// A function at `path` below its root complex (`pci0000:00/0000:00:01.0/0000:01:00.0`); files by name and text.
    pub fn pci(&self, path: &str, files: &[(&str, &str)]) -> String {
        let device = format!("sys/devices/{path}");
        let no_bars = ["0x0 0x0 0x0"; 6].join("\n");
        for (name, text) in [("resource", no_bars.as_str())].iter().chain(files) {
            self.write(&format!("{device}/{name}"), format!("{text}\n"));
        }
        let address = path.rsplit('/').next().unwrap();
        self.link(&format!("sys/bus/pci/devices/{address}"), &format!("../../../devices/{path}"));
        device
    }

    pub fn driver(&self, device: &str, driver: &str) {
        self.directory(&format!("sys/bus/pci/drivers/{driver}"));
        self.link(&format!("{device}/driver"), &format!("../../../bus/pci/drivers/{driver}"));
    }

    pub fn group(&self, device: &str, group: u32, kind: &str) {
        self.write(&format!("sys/kernel/iommu_groups/{group}/type"), format!("{kind}\n"));
        self.link(&format!("{device}/iommu_group"), &format!("../../../kernel/iommu_groups/{group}"));
    }

    /// Remapped interrupts, as a kernel with an IOMMU lists them.
    pub fn remapped(&self) {
        self.write(
            "proc/interrupts",
            "  CPU0\n 24:  1  IR-IO-APIC  5-edge  ACPI:Ged\n 25: 0 IR-PCI-MSI-0000:01:00.0\n",
        );
    }

    pub fn report(&self) -> Report {
        let facts = Facts::new(HostFs::at(self.directory.path()).unwrap(), self.asked.clone());
        let report = examine(&facts);
        promises(&report);
        report
    }

    /// What one check says: level, subject, what was found.
    pub fn said(&self, id: &str) -> Vec<(Level, String, String)> {
        let report = self.report();
        let findings = report.findings.into_iter().filter(|finding| finding.id == id);
        findings.map(|finding| (finding.level, finding.subject, finding.found)).collect()
    }

    /// The one finding of a check.
    pub fn one(&self, id: &str) -> Finding {
        let findings: Vec<_> = self.report().findings.into_iter().filter(|finding| finding.id == id).collect();
        let [finding] = &findings[..] else { panic!("{id}: {findings:#?}") };
        finding.clone()
    }

    /// Whatever is worse than worth knowing, as `level id`.
    pub fn trouble(&self) -> Vec<String> {
        let findings = self.report().at_least(Level::Warn).findings;
        findings.iter().map(|finding| format!("{} {}", finding.level.word(), finding.id)).collect()
    }
}

/// What holds of every finding on every machine.
fn promises(report: &Report) {
    for finding in &report.findings {
        let check = CHECKS.iter().find(|check| check.id == finding.id).unwrap();
        assert!(finding.level <= check.worst, "{finding:?} is worse than its check says");
        assert!(!finding.found.is_empty() && !finding.reason.is_empty() && !finding.subject.is_empty(), "{finding:?}");
        assert_eq!(finding.fix.is_empty(), finding.level == Level::Ok, "{finding:?}");
        assert!(finding.role.is_none() || finding.role == check.role, "{finding:?}");
    }
}

/// Debian's, shortened.
const FIRMWARE: &str = r#"{
    "interface-types": ["uefi"],
    "mapping": {"device": "flash", "executable": {"filename": "/usr/share/OVMF/OVMF_CODE_4M.fd", "format": "raw"}},
    "targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}],
    "features": ["acpi-s3", "amd-sev", "verbose-dynamic"]
}"#;
