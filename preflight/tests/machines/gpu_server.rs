//! GPU servers: eight H100 behind NVSwitches, one H100 as captured in a virtual machine, AMD's.

use croft_gpu_sim::boards::H100_SXM_80GB;
use croft_gpu_sim::kernel::{Process, SimHost, Slot};
use croft_preflight::Level;

use crate::root::Root;

/// A simulated machine's devices in a root that lacks nothing else.
fn simulated(hardware: impl Into<croft_gpu_sim::kernel::Hardware>) -> (SimHost, Root) {
    let directory = tempfile::tempdir().unwrap();
    let host = SimHost::create(directory.path(), hardware).unwrap();
    let root = Root::on(directory);
    for group in std::fs::read_dir(root.path("sys/kernel/iommu_groups")).unwrap() {
        std::fs::write(group.unwrap().path().join("type"), "identity\n").unwrap();
    }
    root.remapped();
    (host, root)
}

/// A tray of eight, half of them near to each socket.
fn tray() -> (SimHost, Root) {
    let (host, root) = simulated(SimHost::preset("h100x8").unwrap());
    for node in [0, 1] {
        root.directory(&format!("sys/devices/system/node/node{node}"));
    }
    (host, root)
}

const FABRIC_CONFIGURATION: &str = "usr/share/nvidia/nvswitch/fabricmanager.cfg";

#[test]
fn a_tray_of_eight_is_told_in_a_few_lines() {
    let (_host, root) = tray();
    let numa = root.one("numa").found;
    assert!(
        numa.starts_with("2 nodes; node 0: 4 × h100_sxm_80gb; node 1: ") && numa.ends_with(", 4 × h100_sxm_80gb"),
        "{numa}"
    );
    assert_eq!(root.one("bar").found, "8 GPUs above 4 GiB, the largest window 128 GiB");
    assert_eq!(root.one("mig").found, "can be cut: 8 × h100_sxm_80gb");
    assert_eq!(root.one("busy").found, "no GPU is in use");
    let group = root.one("iommu-group");
    assert_eq!((group.level, group.found.as_str()), (Level::Ok, "9 devices can go to a guest with the whole group"));
    let flavour = root.one("driver-flavour");
    assert!(flavour.level == Level::Ok && flavour.found.ends_with("; 8 × h100_sxm_80gb on nvidia"), "{flavour:?}");
}

#[test]
fn fabric_manager_is_there_in_the_right_mode_and_version() {
    let (_host, mut root) = tray();
    let levels = |root: &Root| root.said("fabric-manager").into_iter().map(|(level, ..)| level).collect::<Vec<_>>();
    assert!(root.one("fabric-manager").found.ends_with("not installed"));

    root.write(FABRIC_CONFIGURATION, "# mode\nFABRIC_MODE=0\n");
    let version = std::fs::read_to_string(root.path("sys/module/nvidia/version")).unwrap();
    let said = |version: &str| Ok(format!("Fabric Manager version is : {version}"));
    root.asked.programs.insert("nv-fabricmanager", said("550.54.14"));
    assert_eq!(levels(&root), [Level::Fail; 3], "mode, process, version");

    root.write(FABRIC_CONFIGURATION, "FABRIC_MODE=1\n");
    root.process(700, "nv-fabricmanage");
    root.asked.programs.insert("nv-fabricmanager", said(version.trim()));
    assert_eq!(levels(&root), [Level::Ok]);
    assert_eq!(root.trouble(), Vec::<String>::new());
}

#[test]
fn a_gpu_that_somebody_uses_is_named_with_who() {
    let (host, root) = simulated(&[Slot::new(&H100_SXM_80GB, 0x41)]);
    host.hold(&Process::new(4242, "python3", "jupyter.service"), "/dev/nvidia0").unwrap();
    let busy = root.one("busy");
    assert_eq!((busy.level, busy.subject.as_str()), (Level::Warn, "0000:41:00.0"));
    assert_eq!(busy.found, "in use by python3 (pid 4242, jupyter.service)");
}

#[test]
fn a_library_that_was_upgraded_under_the_driver() {
    let (_host, root) = simulated(&[Slot::new(&H100_SXM_80GB, 0x41)]);
    root.write("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", "");
    assert_eq!(root.said("driver-flavour").len(), 1);
    root.write("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.999.1.2", "");
    let said = root.said("driver-flavour");
    assert!(said[1].0 == Level::Fail && said[1].2.contains("999.1.2"), "{said:?}");
}

/// As sysfs and procfs told it: an H100 SXM passed whole to a virtual machine without an IOMMU, data-centre driver 580.159.04.
fn captured() -> Root {
    let root = Root::new();
    root.write("proc/cpuinfo", "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu hypervisor svm\n");
    root.remove("sys/module/kvm_intel");
    let resource = [
        "0x0000102002000000 0x0000102002ffffff 0x000000000014220c",
        "0x0000000000000000 0x0000000000000000 0x0000000000000000",
        "0x0000100000000000 0x0000101fffffffff 0x000000000014220c",
        "0x0000000000000000 0x0000000000000000 0x0000000000000000",
        "0x0000102000000000 0x0000102001ffffff 0x000000000014220c",
        "0x0000000000000000 0x0000000000000000 0x0000000000000000",
        "0x0000000000000000 0x0000000000000000 0x0000000000000000",
    ];
    let gpu = root.pci(
        "pci0000:00/0000:00:06.0",
        &[
            ("vendor", "0x10de"),
            ("device", "0x2330"),
            ("subsystem_vendor", "0x10de"),
            ("subsystem_device", "0x16c1"),
            ("class", "0x030200"),
            ("numa_node", "-1"),
            ("reset_method", "flr"),
            ("resource", &resource.join("\n")),
        ],
    );
    root.driver(&gpu, "nvidia");
    root.write("sys/module/nvidia/version", "580.159.04\n");
    root
}

#[test]
fn a_captured_h100_in_a_virtual_machine_without_an_iommu() {
    let root = captured();
    assert_eq!(root.trouble(), ["fail iommu"]);
    assert_eq!(root.one("driver-flavour").found, "datacenter 580.159.04; 1 × h100_sxm_80gb on nvidia");
    assert_eq!(root.one("bar").found, "1 GPU above 4 GiB, the largest window 128 GiB");
    assert_eq!(root.one("mig").level, Level::Info, "slices need another flavour");
    assert_eq!(root.one("vgpu").found, "no vGPU host driver");
    assert_eq!(root.said("sriov"), [], "in a guest the function has no SR-IOV");
    assert_eq!(root.one("numa").found, "1 node", "a node of -1 is none, and there is one only");
}

#[test]
fn nouveau_and_a_window_without_a_place() {
    let root = captured();
    let gpu = "sys/devices/pci0000:00/0000:00:06.0";
    root.remove("sys/module/nvidia");
    root.directory("sys/module/nouveau");
    root.driver(gpu, "nouveau");
    let flavour = root.one("driver-flavour");
    assert_eq!((flavour.level, flavour.role), (Level::Fail, Some("gpu")));
    assert_eq!(flavour.found, "nouveau is loaded; 1 × h100_sxm_80gb on nouveau");

    // As the kernel leaves a window for which the bridge above has no room: a size, no place.
    let lines = [
        "0x0 0xffffff 0x14220c",
        "0x0 0x0 0x0",
        "0x0 0x1fffffffff 0x2014220c",
        "0x0 0x0 0x0",
        "0x0 0x0 0x0",
        "0x0 0x0 0x0",
    ];
    root.write(&format!("{gpu}/resource"), format!("{}\n", lines.join("\n")));
    let bar = root.one("bar");
    assert_eq!((bar.level, bar.subject.as_str()), (Level::Fail, "0000:00:06.0"));
    assert!(bar.fix.contains("Above 4G decoding"), "{bar:?}");

    root.write(&format!("{gpu}/resource"), "0x80000000 0x8fffffff 0x14220c\n0x0 0x0 0x0\n");
    root.write(&format!("{gpu}/resource0_resize"), "0000000000003f00\n");
    assert_eq!(root.one("bar").found, "BAR 0 is 256 MiB and could be 8 GiB");
}

/// An EPYC with an MI300X and its card's own bridge; names as its kernel gives them.
fn amd() -> Root {
    let root = Root::new();
    root.write("proc/cpuinfo", "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu msr svm avic\n");
    root.remove("sys/module/kvm_intel");
    root.write("sys/module/kvm_amd/parameters/nested", "1\n");
    root.write("sys/firmware/acpi/tables/IVRS", "");
    let gpu = root.pci(
        "pci0000:00/0000:03:00.0",
        &[
            ("vendor", "0x1002"),
            ("device", "0x74a1"),
            ("class", "0x120000"),
            ("sriov_totalvfs", "8"),
            ("numa_node", "0"),
        ],
    );
    root.driver(&gpu, "amdgpu");
    root
}

#[test]
fn amds_iommu_goes_by_other_names() {
    let root = amd();
    assert_eq!(root.one("nested").found, "on (kvm_amd)");
    assert_eq!(root.one("kvm").found, "works: the CPU has svm, and a vCPU ran");
    root.write("proc/cmdline", "ro amd_iommu=off\n");
    let iommu = root.one("iommu");
    assert_eq!(iommu.found, "firmware has AMD-Vi (table IVRS), and the kernel argument amd_iommu=off keeps it off");
    assert_eq!(iommu.fix, "boot without amd_iommu=off and with iommu=pt");

    root.directory("sys/class/iommu/ivhd0");
    root.group("sys/devices/pci0000:00/0000:03:00.0", 12, "identity");
    root.remapped();
    assert_eq!(root.one("iommu").found, "on: 1 group, ivhd0");
    assert_eq!(root.one("driver-flavour").found, "none; 1 × mi300x_192gb on amdgpu");
    assert_eq!(root.said("mig"), []);
    assert_eq!(root.trouble(), Vec::<String>::new());
}

#[test]
fn a_gpu_in_one_group_with_the_hosts_disk_cannot_be_given() {
    let root = amd();
    root.directory("sys/class/iommu/ivhd0");
    let disk = [("vendor", "0x144d"), ("device", "0xa80a"), ("class", "0x010802")];
    let disk = root.pci("pci0000:00/0000:04:00.0", &disk);
    // Its own sound function goes along.
    let sound = [("vendor", "0x1002"), ("device", "0xab30"), ("class", "0x040300")];
    let sound = root.pci("pci0000:00/0000:03:00.1", &sound);
    root.driver(&disk, "nvme");
    root.group(&sound, 12, "DMA");
    root.group("sys/devices/pci0000:00/0000:03:00.0", 12, "DMA");
    assert_eq!(root.one("iommu-group").level, Level::Ok);
    root.group(&disk, 12, "DMA");
    let group = root.one("iommu-group");
    assert_eq!((group.level, group.subject.as_str()), (Level::Fail, "0000:03:00.0"));
    assert!(
        group.found.contains("shares IOMMU group 12 with 0000:04:00.0 (") && group.found.contains("nvme"),
        "{group:?}"
    );

    // Two GPUs that nothing keeps apart, on no driver at all.
    root.remove("sys/bus/pci/devices/0000:04:00.0");
    let other = [("vendor", "0x1002"), ("device", "0x74a1"), ("class", "0x120000")];
    let other = root.pci("pci0000:00/0000:05:00.0", &other);
    root.group(&other, 12, "DMA");
    let subjects: Vec<_> = root.said("iommu-group").into_iter().map(|(level, subject, _)| (level, subject)).collect();
    assert!(subjects.contains(&(Level::Fail, "0000:03:00.0".to_owned())), "{subjects:?}");
}
