//! Machines without anything to give: what every host needs.

use croft_preflight::{Clock, Level, Plane, User};

use crate::root::Root;

#[test]
fn a_plain_machine_may_be_a_host_for_instances_without_devices() {
    let root = Root::new();
    assert_eq!(root.trouble(), ["warn iommu"]);
    assert!(root.one("iommu").reason.starts_with("no device of this host"));
    assert_eq!(root.one("driver-flavour").found, "no GPU on this host");
    assert_eq!(root.one("plane").level, Level::Info, "not tried");
}

#[test]
fn kvm_needs_the_flag_and_a_vcpu_that_ran() {
    let mut root = Root::new();
    assert_eq!(root.one("kvm").found, "works: the CPU has vmx, and a vCPU ran");
    root.asked.kvm = Some(Err("/dev/kvm: No such device".to_owned()));
    let kvm = root.one("kvm");
    assert!(kvm.level == Level::Fail && kvm.fix.starts_with("load kvm_intel"), "{kvm:?}");
    root.asked.kvm = None;
    assert!(root.one("kvm").found.contains("no KVM at present"));
    root.asked.kvm = Some(Err("/dev/kvm: Permission denied (os error 13)".to_owned()));
    root.asked.user = User::Other;
    assert!(root.one("kvm").found.starts_with("not seen"));
    root.asked.user = User::Root;
    assert_eq!(root.one("kvm").level, Level::Fail, "root is not in the way of himself");
    root.asked.kvm = Some(Ok(()));
    root.write("proc/cpuinfo", "processor : 0\nflags : fpu hypervisor\n");
    let kvm = root.one("kvm");
    assert!(kvm.level == Level::Fail && kvm.found.contains("neither vmx nor svm"), "{kvm:?}");
}

#[test]
fn what_the_machine_is_set_to_is_told() {
    let root = Root::new();
    assert_eq!(root.said("machine"), [(Level::Ok, "host".into(), "a machine of its own".into())]);
    root.write("proc/cpuinfo", "processor : 0\nflags : fpu hypervisor svm\n");
    assert_eq!(root.one("machine").found, "a virtual machine");

    assert_eq!(root.one("huge-pages").level, Level::Info);
    root.write("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "400\n");
    root.write("sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", "399\n");
    assert_eq!(root.one("huge-pages").found, "400 of 1024 MiB (399 free)");

    root.write("sys/module/kvm_intel/parameters/nested", "N\n");
    assert_eq!(root.one("nested").level, Level::Info);

    root.write("proc/self/mounts", "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n");
    assert_eq!(root.one("cgroup").level, Level::Warn);
    root.write("proc/self/mounts", "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n");
    assert_eq!(root.one("cgroup").level, Level::Info);

    root.write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
    assert_eq!(root.one("lockdown").found, "integrity");
    root.write("sys/kernel/security/lockdown", "none integrity [confidentiality]\n");
    assert_eq!(root.one("lockdown").level, Level::Warn);
}

#[test]
fn time_and_names() {
    let mut root = Root::new();
    root.asked.clock = Clock::Free;
    root.asked.own_addresses = Err("Name or service not known".to_owned());
    assert_eq!(root.one("clock").level, Level::Warn);
    let names = root.one("names");
    assert!(names.level == Level::Warn && names.fix.contains("127.0.1.1 h1"), "{names:?}");
}

#[test]
fn a_plane_is_resolved_then_reached() {
    let mut root = Root::new();
    let address = "10.0.0.5:7443".parse().unwrap();
    let mut plane = |addresses, reached| {
        root.asked.plane = Some(Plane { server: "plane:7443".to_owned(), addresses, reached });
        root.one("plane")
    };
    let unknown = plane(Err("no such name".to_owned()), Err("no such name".to_owned()));
    assert!(unknown.level == Level::Fail && unknown.found.starts_with("does not resolve"), "{unknown:?}");
    let closed = plane(Ok(vec![address]), Err("10.0.0.5:7443: Connection refused".to_owned()));
    assert!(closed.level == Level::Fail && closed.found.contains("refused"), "{closed:?}");
    let open = plane(Ok(vec![address]), Ok(address));
    assert_eq!((open.level, open.subject.as_str()), (Level::Ok, "plane:7443"));
}

#[test]
fn disks_that_are_full_slow_or_forgetful() {
    let mut root = Root::new();
    let mut disk = |free_gib: u64, kind: &str| {
        root.asked.disks[0].free_mib = free_gib << 10;
        root.asked.disks[0].kind = Some(kind.to_owned());
        root.one("disk").level
    };
    assert_eq!(
        [disk(900, "ext4"), disk(20, "ext4"), disk(5, "xfs"), disk(900, "tmpfs"), disk(900, "nfs4")],
        [Level::Ok, Level::Warn, Level::Fail, Level::Fail, Level::Warn]
    );
    let mut boot = |free_mib, largest| {
        root.asked.disks[1].free_mib = free_mib;
        root.asked.largest_initrd_mib = largest;
        root.one("boot-disk").level
    };
    assert_eq!(
        [boot(39, 40), boot(60, 40), boot(90, 40), boot(90, 0)],
        [Level::Fail, Level::Warn, Level::Ok, Level::Fail]
    );
    root.asked.disks.clear();
    assert_eq!((root.one("disk").level, root.one("boot-disk").level), (Level::Warn, Level::Warn));
}

/// `sl  local_address rem_address st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode`
fn socket(address: &str, state: &str, inode: u32) -> String {
    format!("   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1\n")
}

#[test]
fn who_has_the_agents_port_is_named() {
    let root = Root::new();
    assert_eq!(root.one("ports").level, Level::Ok);
    // 9644 is 0x25AC; one that is connected, not listening, does not count.
    root.write("proc/net/tcp", format!("header\n{}", socket("0100007F:25AC", "01", 7)));
    assert_eq!(root.one("ports").level, Level::Ok);
    root.write("proc/net/tcp", format!("header\n{}", socket("0100007F:25AC", "0A", 4711)));
    root.process(812, "node_exporter");
    root.link("proc/812/fd/3", "socket:[4711]");
    let ports = root.one("ports");
    assert_eq!(
        (ports.level, ports.found.as_str()),
        (Level::Fail, "9644/tcp is taken by process node_exporter (pid 812)")
    );
    // The kernel keeps 15 bytes of croft-hostagent's name.
    root.process(812, "croft-hostagent");
    assert_eq!(root.one("ports").level, Level::Ok);

    root.write("proc/net/tcp", "header\n");
    root.write("proc/net/udp", format!("header\n{}", socket("3500007F:0035", "07", 9)));
    assert_eq!(root.one("ports").level, Level::Ok, "systemd-resolved has an address of its own");
    root.write("proc/net/udp6", format!("header\n{}", socket("00000000000000000000000000000000:0035", "07", 9)));
    assert!(root.one("ports").found.contains("listens on 53/udp of every address"));
}

#[test]
fn who_is_not_root_is_told_what_he_did_not_see() {
    let mut root = Root::new();
    root.asked.user = User::Other;
    assert_eq!(root.one("privilege").level, Level::Warn);
    // A file that somebody without rights meets as a directory: neither good nor bad.
    root.remove("proc/self/mounts");
    root.directory("proc/self/mounts");
    let cgroup = root.one("cgroup");
    assert!(cgroup.level == Level::Warn && cgroup.found.starts_with("not seen: cannot read"), "{cgroup:?}");
}
