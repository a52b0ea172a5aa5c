//! Machines as trees of files: a server, a plain machine, a container, and what goes wrong on each.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use croft_proto::v1::{Capacity, HostInfo, NumaCell};
use tempfile::TempDir;

use super::cpu::parse_list;
use super::observe;

const MIB: i64 = 1024;

struct Machine(TempDir);

impl Machine {
    /// What every Linux has.
    fn new(memory_mib: i64) -> Machine {
        let machine = Machine(tempfile::tempdir().unwrap());
        machine.write("proc/meminfo", format!("MemTotal:       {} kB\nMemFree:  1 kB\n", memory_mib * MIB));
        machine.write("proc/cpuinfo", "processor\t: 0\nmodel name\t: Test CPU @ 2.00GHz\n\nprocessor\t: 1\n");
        machine.write("proc/sys/kernel/osrelease", "6.12.1-amd64\n");
        machine.write("proc/sys/kernel/random/boot_id", "dd92669f-b109-4d2c-911a-d46723c4a333\n");
        machine.write("etc/os-release", "NAME=\"Debian GNU/Linux\"\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n");
        for bus in ["platform", "pci", "usb"] {
            fs::create_dir_all(machine.0.path().join(format!("sys/bus/{bus}/devices"))).unwrap();
        }
        machine
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        let path = self.0.path().join(path);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }

    /// CPUs in cores of two threads each, `n` and `n + cores`, as most servers number them.
    fn smt(&self, online: &str, cores: i32) {
        self.write("sys/devices/system/cpu/online", format!("{online}\n"));
        for cpu in 0..cores * 2 {
            let first = cpu % cores;
            let list = format!("{first},{}\n", first + cores);
            self.write(&format!("sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list"), list);
        }
    }

    fn node(&self, node: i32, cpus: &str, memory_mib: i64) {
        let path = format!("sys/devices/system/node/node{node}");
        self.write(&format!("{path}/cpulist"), format!("{cpus}\n"));
        self.write(&format!("{path}/meminfo"), format!("\nNode {node} MemTotal:    {} kB\n", memory_mib * MIB));
    }

    fn pages(&self, directory: &str, size_kib: i64, total: i64, free: i64) {
        self.write(&format!("{directory}/hugepages-{size_kib}kB/nr_hugepages"), format!("{total}\n"));
        self.write(&format!("{directory}/hugepages-{size_kib}kB/free_hugepages"), format!("{free}\n"));
    }

    /// `path` below /sys/devices; its last part is the device's name.
    fn device(&self, bus: &str, path: &str, files: &[(&str, &str)]) {
        for (file, text) in files {
            self.write(&format!("sys/devices/{path}/{file}"), format!("{text}\n"));
        }
        let name = path.rsplit('/').next().unwrap();
        symlink(format!("../../../devices/{path}"), self.0.path().join(format!("sys/bus/{bus}/devices/{name}")))
            .unwrap();
    }

    fn gpu(&self) {
        let bars = ["0x0 0x0 0x0"; 6].join("\n");
        let files = [
            ("vendor", "0x10de"),
            ("device", "0x2330"),
            ("class", "0x030200"),
            ("numa_node", "1"),
            ("resource", &bars),
        ];
        self.device("pci", "pci0000:40/0000:41:00.0", &files);
    }

    fn look(&self) -> (Capacity, HostInfo) {
        let observation = observe(self.0.path());
        assert_eq!((observation.foreign, observation.conditions.len()), (None, 0), "not this module's to say");
        (observation.capacity.unwrap_or_default(), observation.info.unwrap())
    }
}

/// Two sockets of four cores of two threads; 64 GiB each, 16 GiB of it in huge pages; CPU 15 is offline.
fn dual_socket() -> Machine {
    let machine = Machine::new(131_072);
    machine.smt("0-14", 8);
    machine.write("sys/devices/system/node/online", "0-1\n");
    machine.node(0, "0-3,8-11", 65_536);
    machine.node(1, "4-7,12-14", 65_536);
    for node in 0..2 {
        let directory = format!("sys/devices/system/node/node{node}/hugepages");
        machine.pages(&directory, 1 << 20, 8, 6);
        machine.pages(&directory, 2048, 4096, 4000);
    }
    machine.write("proc/meminfo", format!("MemTotal: {} kB\nHugetlb: {} kB\n", 131_072 * MIB, 32_768 * MIB));
    machine
}

fn cores(cell: &NumaCell) -> Vec<&[i32]> {
    cell.cores.iter().map(|core| core.cpus.as_slice()).collect()
}

#[test]
fn a_dual_socket_server_with_huge_pages() {
    let machine = dual_socket();
    machine.gpu();
    let hub = [("idVendor", "0424"), ("idProduct", "2514"), ("bDeviceClass", "09"), ("devnum", "2")];
    machine.device("usb", "0000:00:14.0/usb1/1-2", &hub);
    let key = [("idVendor", "0403"), ("idProduct", "6001"), ("bDeviceClass", "00"), ("devnum", "3"), ("serial", "A1")];
    machine.device("usb", "0000:00:14.0/usb1/1-2/1-2.3", &key);

    let (capacity, info) = machine.look();
    assert_eq!(info.probe_errors, [""; 0]);
    assert_eq!((capacity.vcpus, capacity.memory_mib), (15, 131_072));
    let [zero, one] = &capacity.cells[..] else { panic!("{:?}", capacity.cells) };
    assert_eq!((zero.id, zero.memory_mib, one.id, one.memory_mib), (0, 65_536, 1, 65_536));
    assert_eq!(cores(zero), [[0, 8], [1, 9], [2, 10], [3, 11]]);
    assert_eq!(cores(one), [&[4, 12][..], &[5, 13], &[6, 14], &[7]], "the offline thread is in no core");
    let pages: Vec<_> = one.huge_pages.iter().map(|pages| (pages.size_kib, pages.total, pages.free)).collect();
    assert_eq!(pages, [(2048, 4096, 4000), (1 << 20, 8, 6)]);

    assert_eq!(info.boot_id, "dd92669f-b109-4d2c-911a-d46723c4a333");
    assert_eq!((info.os.as_str(), info.kernel.as_str()), ("Debian GNU/Linux 13 (trixie)", "6.12.1-amd64"));
    assert_eq!((info.cpu_model.as_str(), info.driver_flavour.as_str()), ("Test CPU @ 2.00GHz", "none"));
    let [gpu] = &info.pci_devices[..] else { panic!("{:?}", info.pci_devices) };
    assert_eq!((gpu.address.as_str(), gpu.id.as_str(), gpu.class.as_str()), ("0000:41:00.0", "10de:2330", "030200"));
    assert_eq!((gpu.device_name.as_str(), gpu.driver.as_str()), ("GH100 [H100 SXM5 80GB]", ""));
    assert_eq!((gpu.iommu_group, gpu.numa_node), (-1, 1));
    let [usb] = &info.usb_devices[..] else { panic!("hubs are no devices to give: {:?}", info.usb_devices) };
    assert_eq!((usb.port.as_str(), usb.id.as_str(), usb.serial.as_str()), ("1-2.3", "0403:6001", "A1"));
}

#[test]
fn a_machine_whose_kernel_knows_no_numa_is_one_cell() {
    let machine = Machine::new(4096);
    machine.smt("0-3", 2);
    machine.pages("sys/kernel/mm/hugepages", 2048, 0, 0);
    let (capacity, info) = machine.look();
    assert_eq!(info.probe_errors, [""; 0]);
    let [cell] = &capacity.cells[..] else { panic!("{:?}", capacity.cells) };
    assert_eq!((cell.id, cell.memory_mib, cores(cell)), (0, 4096, vec![&[0, 2][..], &[1, 3]]));
    assert_eq!((cell.huge_pages[0].size_kib, cell.huge_pages[0].total), (2048, 0));
}

#[test]
fn a_container_that_sees_little_says_so() {
    let machine = Machine::new(2048);
    machine.remove("sys");
    machine.remove("etc/os-release");
    let (capacity, info) = machine.look();
    // /proc/cpuinfo tells of CPUs where sysfs does not.
    assert_eq!((capacity.vcpus, capacity.memory_mib, capacity.cells.len()), (2, 2048, 0));
    assert!(info.pci_devices.is_empty() && info.usb_devices.is_empty());
    assert_eq!(info.kernel, "6.12.1-amd64");
    for what in ["NUMA cells: ", "PCI devices: pci: ", "USB devices: usb: ", "operating system: "] {
        assert_eq!(
            info.probe_errors.iter().filter(|error| error.starts_with(what)).count(),
            1,
            "{what}{:?}",
            info.probe_errors
        );
    }

    machine.remove("proc");
    let (capacity, info) = machine.look();
    assert_eq!((capacity.vcpus, capacity.memory_mib), (0, 0));
    for what in ["CPUs: ", "memory: ", "boot id: ", "kernel: ", "CPU model: "] {
        assert!(info.probe_errors.iter().any(|error| error.starts_with(what)), "{what}{:?}", info.probe_errors);
    }

    let nothing = observe(Path::new("/nonexistent"));
    assert_eq!(nothing.capacity, None);
    assert_eq!(nothing.info.unwrap().probe_errors.len(), 1);
}

/// One thing breaks; it is said; and nothing is offered that it could have told of.
#[test]
fn what_cannot_be_read_is_not_offered() {
    // (what breaks, what it then says, what is left: CPUs, MiB, cells, cores of cell 1, pools of cell 1)
    let node = "sys/devices/system/node/node1";
    let two_mib_pool = format!("{node}/hugepages/hugepages-2048kB");
    let cases: [(String, &str, &str, [i64; 5]); 9] = [
        ("proc/meminfo".into(), "MemTotal: lots", "memory: ", [15, 0, 2, 4, 2]),
        ("sys/devices/system/cpu/online".into(), "0-4294967295", "CPUs: ", [0, 131_072, 2, 0, 2]),
        ("sys/devices/system/node/online".into(), "all", "NUMA cells: ", [15, 98_304, 0, 0, 0]),
        (format!("{node}/cpulist"), "4-", "NUMA cell 1: ", [15, 114_688, 1, 0, 0]),
        (format!("{node}/meminfo"), "", "NUMA cell 1: ", [15, 114_688, 1, 0, 0]),
        (format!("{two_mib_pool}/nr_hugepages"), "-1", "huge pages: ", [15, 122_880, 2, 4, 1]),
        (format!("{two_mib_pool}/free_hugepages"), "\u{1}", "huge pages: ", [15, 122_880, 2, 4, 1]),
        (format!("{node}/hugepages/hugepages-9999999999999kB/x"), "", "huge pages: ", [15, 131_072, 2, 4, 2]),
        (
            "sys/devices/system/cpu/cpu5/topology/core_cpus_list".into(),
            "4,12",
            "CPU topology: ",
            [15, 131_072, 2, 4, 2],
        ),
    ];
    for (file, text, says, left) in cases {
        let machine = dual_socket();
        machine.write(&file, text);
        let (capacity, info) = machine.look();
        assert!(info.probe_errors.iter().any(|error| error.starts_with(says)), "{file}: {:?}", info.probe_errors);
        let one = capacity.cells.iter().find(|cell| cell.id == 1);
        let (cores, pools) = one.map_or((0, 0), |cell| (cell.cores.len(), cell.huge_pages.len()));
        let seen = [capacity.vcpus, capacity.memory_mib, capacity.cells.len() as i64, cores as i64, pools as i64];
        assert_eq!(seen, left, "{file} says {text:?}");
    }
}

#[test]
fn a_cpu_with_unknown_siblings_is_in_no_core() {
    let machine = dual_socket();
    machine.write("sys/devices/system/cpu/cpu5/topology/core_cpus_list", "4,12");
    machine.remove("sys/devices/system/cpu/cpu6/topology");
    let (capacity, info) = machine.look();
    // 13 and 14 still name 5 and 6 as their siblings: each is kept with its core, once.
    assert_eq!(cores(&capacity.cells[1]), [&[4, 12][..], &[5, 13], &[6, 14], &[7]]);
    let [error] = &info.probe_errors[..] else { panic!("{:?}", info.probe_errors) };
    assert!(error.starts_with("CPU topology: CPU 5 and 1 others: "), "{error}");

    machine.write("sys/devices/system/cpu/cpu7/topology/core_cpus_list", "");
    assert_eq!(cores(&machine.look().0.cells[1]), [[4, 12], [5, 13], [6, 14]]);
}

#[test]
fn older_kernels_and_placeholder_nodes() {
    let machine = dual_socket();
    for cpu in 0..16 {
        let topology = format!("sys/devices/system/cpu/cpu{cpu}/topology");
        machine.remove(&topology);
        machine.write(&format!("{topology}/thread_siblings_list"), format!("{cpu}\n"));
    }
    // Far memory is a cell; a node with neither CPU nor memory is none.
    machine.write("sys/devices/system/node/online", "0-3\n");
    machine.node(2, "", 32_768);
    machine.node(3, "", 0);
    let (capacity, info) = machine.look();
    assert_eq!(info.probe_errors, [""; 0]);
    assert_eq!(
        capacity.cells.iter().map(|cell| (cell.id, cell.cores.len())).collect::<Vec<_>>(),
        [(0, 8), (1, 7), (2, 0)]
    );
}

#[test]
fn the_driver_flavour_is_what_is_loaded() {
    let machine = dual_socket();
    machine.gpu();
    let flavour = |says: bool| {
        let info = machine.look().1;
        assert_eq!(
            info.probe_errors.iter().any(|error| error.starts_with("driver flavour: ")),
            says,
            "{:?}",
            info.probe_errors
        );
        info.driver_flavour
    };
    machine.write("usr/lib/nvidia/sriov-manage", "");
    assert_eq!(flavour(false), "none", "tools alone are no driver");
    machine.write("sys/module/nvidia/refcnt", "0");
    assert_eq!(flavour(true), "none", "the driver, and tools of another kind");
    machine.remove("usr/lib/nvidia/sriov-manage");
    assert_eq!(flavour(false), "datacenter");
    machine.write("sys/devices/pci0000:40/0000:41:00.0/nvidia/current_vgpu_type", "0");
    assert_eq!(flavour(false), "vgpu");
    machine.remove("sys/devices/pci0000:40/0000:41:00.0/nvidia");
    machine.write("sys/module/nvidia_vgpu_vfio/refcnt", "0");
    assert_eq!(flavour(false), "vgpu");
    machine.remove("sys/module/nvidia_vgpu_vfio");
    machine.remove("sys/bus/pci/devices");
    assert_eq!(flavour(true), "none", "nobody could look for vGPUs");
}

#[test]
fn a_device_that_cannot_be_read_is_named() {
    let machine = dual_socket();
    machine.gpu();
    machine.device("pci", "pci0000:40/0000:42:00.0", &[("vendor", "banana")]);
    machine.device("usb", "1-7", &[("idVendor", "0403")]);
    let (_, info) = machine.look();
    assert_eq!((info.pci_devices.len(), info.usb_devices.len()), (1, 0));
    for device in ["pci 0000:42:00.0: ", "usb 1-7: "] {
        assert!(info.probe_errors.iter().any(|error| error.starts_with(device)), "{:?}", info.probe_errors);
    }
}

#[test]
fn odd_names_of_systems_and_cpus() {
    let machine = Machine::new(1024);
    for (text, name) in [
        ("PRETTY_NAME='Alpine Linux v3.20'\n", "Alpine Linux v3.20"),
        ("PRETTY_NAME=\"A \\\"quoted\\\" \\$name\"\n", "A \"quoted\" $name"),
        ("NAME=Fedora\n", "Fedora"),
        ("ID=x\n", "Linux"),
    ] {
        machine.write("etc/os-release", text);
        assert_eq!(machine.look().1.os, name);
    }
    machine.remove("etc/os-release");
    machine.write("usr/lib/os-release", "PRETTY_NAME=Vendor\n");
    machine.write("proc/cpuinfo", "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n");
    let info = machine.look().1;
    assert_eq!((info.os.as_str(), info.cpu_model.as_str()), ("Vendor", "implementer 0x41 part 0xd40"));
}

#[test]
fn lists_are_read_as_the_kernel_writes_them() {
    let set = |numbers: &[i32]| Some(numbers.iter().copied().collect::<BTreeSet<_>>());
    assert_eq!(parse_list(""), set(&[]));
    assert_eq!(parse_list("0"), set(&[0]));
    assert_eq!(parse_list("0-2,8,10-11"), set(&[0, 1, 2, 8, 10, 11]));
    for garbage in [",", "1,", "-1", "1-", "3-1", "0-4294967295", "0-70000", "a", "1 ,2", "+1", "1--2", "1-2-3"] {
        assert_eq!(parse_list(garbage), None, "{garbage:?}");
    }
}

/// The machine that the tests run on; what a container hides is said and is no failure of the test.
#[test]
fn this_machine_can_be_observed() {
    let observation = observe(Path::new("/"));
    let (capacity, info) = (observation.capacity.unwrap(), observation.info.unwrap());
    assert!(capacity.vcpus > 0 && capacity.memory_mib > 0 && !info.kernel.is_empty(), "{:?}", info.probe_errors);
    let in_cells: usize = capacity.cells.iter().flat_map(|cell| &cell.cores).map(|core| core.cpus.len()).sum();
    assert!(in_cells as i64 <= capacity.vcpus);
    assert!(capacity.cells.iter().map(|cell| cell.memory_mib).sum::<i64>() <= capacity.memory_mib + 1);
    if info.probe_errors.is_empty() {
        assert_eq!(in_cells as i64, capacity.vcpus);
        assert_eq!(info.boot_id.len(), 36);
    }
}
