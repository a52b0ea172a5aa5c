//! The whole look at simulated hosts: what is read of them, and that nothing unread looks free.

#![expect(clippy::unwrap_used, reason = "the helpers of a test are part of the test")]

use std::fs;

use croft_gpu::chain;
use croft_gpu::fabric::FabricSource;
use croft_gpu::gpu::{Gpu, Mig, VgpuSupport};
use croft_gpu::host::{Fabric, Host, VgpuFunction};
use croft_gpu::identity::{Identity, Sameness};
use croft_gpu::nvml::NvmlSource;
use croft_gpu::pci::PciAddress;
use croft_gpu_sim::boards::H200_SXM_141GB;
use croft_gpu_sim::clients;
use croft_gpu_sim::kernel::{Hardware, Process, SimHost, Slot};

const GPU: &str = "0000:41:00.0";
const NIC: &str = "0000:81:00.0";

struct Bench {
    _directory: tempfile::TempDir,
    host: SimHost,
}

impl Bench {
    fn new(preset: &str) -> Bench {
        Bench::of(SimHost::preset(preset).unwrap())
    }

    fn of(hardware: Hardware) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let host = SimHost::create(directory.path().join("root"), hardware).unwrap();
        Bench { _directory: directory, host }
    }

    fn look(&self, nvml: &NvmlSource) -> Host {
        let fabric = FabricSource::Unavailable { why: "Fabric Manager does not run".to_owned() };
        Host::probe(&self.host.fs().unwrap(), nvml, &fabric)
    }

    fn bind(&self, address: &str, driver: &str) {
        let fs = self.host.fs().unwrap();
        let device = format!("/sys/bus/pci/devices/{address}");
        fs.write(&format!("{device}/driver_override"), driver).unwrap();
        fs.write(&format!("{device}/driver/unbind"), address).unwrap();
        fs.write("/sys/bus/pci/drivers_probe", address).unwrap();
    }
}

fn at(address: &str) -> PciAddress {
    address.parse().unwrap()
}

fn silent() -> NvmlSource {
    NvmlSource::Failed { why: "killed after 10 s".to_owned() }
}

fn errors(host: &Host) -> Vec<String> {
    let parts = [&host.pci.errors, &host.usb.errors, &host.gpus.errors, &host.errors];
    parts.into_iter().flatten().map(|error| chain(error)).collect()
}

fn gpu<'a>(host: &'a Host, address: &str) -> &'a Gpu {
    host.gpus.devices.iter().find(|gpu| gpu.address == at(address)).unwrap()
}

#[test]
fn every_preset_is_read_without_a_word_of_complaint_once_no_driver_is_silent() {
    for preset in croft_gpu_sim::kernel::PRESETS {
        let bench = Bench::new(preset);
        let host = bench.look(&silent());
        assert!(!host.gpus.devices.is_empty());
        for gpu in &host.gpus.devices {
            assert!(gpu.model.is_some(), "{preset}: {} is in no table", gpu.pci_id);
            assert!(matches!(gpu.mig, Mig::Unknown { .. }));
            let reasons: Vec<_> = gpu.health.faults.iter().map(|fault| fault.reason.as_str()).collect();
            assert_eq!(reasons, ["DriverSilent"], "its driver holds it and nothing is known of it");
        }
        // Each GPU has its error, and nothing else has one.
        let all = errors(&host);
        assert_eq!(all.len(), host.gpus.devices.len(), "{preset}: {all:?}");
        for (gpu, error) in host.gpus.devices.iter().zip(&all) {
            assert!(error.contains(&gpu.address.to_string()) && error.contains("killed after 10 s"), "{error}");
        }
    }
}

#[test]
fn a_gpu_that_no_driver_of_nvidias_holds_needs_no_nvml() {
    let bench = Bench::new("devbox");
    bench.bind(GPU, "vfio-pci");
    let host = bench.look(&NvmlSource::NoLibrary { why: "no such file".to_owned() });
    let gpu = gpu(&host, GPU);
    assert_eq!(gpu.mig, Mig::Unknown { why: "vfio-pci holds it".to_owned() });
    assert!(gpu.health.faults.is_empty());
    assert!(!errors(&host).iter().any(|error| error.contains(GPU)), "{:?}", errors(&host));
    let function = host.pci.devices.iter().find(|function| function.address == at(GPU)).unwrap();
    assert_eq!(function.driver_override.as_deref(), Some("vfio-pci"));
}

/// What the host lives on, each by the kernel's own files.
#[test]
fn what_the_host_itself_uses_is_held() {
    const XHCI: &str = "0000:00:14.0";
    const NVME: &str = "0000:a1:00.0";
    let bench = Bench::new("devbox");
    let uses = |device: &str| -> Vec<String> {
        let host = bench.look(&silent());
        let held = host.holders.get(device).into_iter().flatten();
        held.filter(|holder| holder.pid == 0).map(|holder| holder.file.clone()).collect()
    };
    for device in [NVME, NIC, XHCI, GPU] {
        assert_eq!(uses(device), Vec::<String>::new());
    }
    let write = |path: &str, text: &str| {
        let path = bench.host.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("proc/1/mountinfo", "25 1 259:161 / / rw - ext4 /dev/nvme161n1 rw\n");
    assert_eq!(uses(NVME), ["/dev/nvme161n1 (mounted on /)"]);
    write("proc/1/net/route", "Iface Destination Gateway\nenp129s0 00000000 0101A8C0 0003\n");
    assert_eq!(uses(NIC), ["enp129s0 (the host's routes)"]);
    let sysfs = format!("/devices/pci0000:00/{XHCI}/usb1/1-3/1-3:1.0/input/input5");
    write("proc/bus/input/devices", &format!("N: Name=\"Keys\"\nS: Sysfs={sysfs}\nH: Handlers=sysrq kbd event4\n\n"));
    assert_eq!(uses(XHCI), ["USB port 1-3 (keyboard of the host: Keys)"]);
    let before = errors(&bench.look(&silent()));
    assert_eq!(before.len(), 2, "the silent GPUs alone: {before:?}");
}

/// A guest with a USB device would lose it with its controller.
#[test]
fn who_has_a_usb_device_open_has_its_controller() {
    let bench = Bench::new("devbox");
    let guest = Process::new(4711, "qemu-system-x86_64", "machine-qemu.scope");
    bench.host.hold(&guest, "/dev/bus/usb/001/002").unwrap();
    let host = bench.look(&silent());
    for device in ["1-1", "0000:00:14.0"] {
        assert_eq!(host.holders[device][0].pid, 4711, "{device}");
    }
    assert!(!host.holders.contains_key("1-2"));
}

#[test]
fn who_has_a_device_open_is_named() {
    let bench = Bench::new("devbox");
    bench.bind(NIC, "vfio-pci");
    let qemu = Process::new(4711, "qemu-system-x86_64", "machine-qemu\\x2d1\\x2dcroft.scope");
    let daemon = Process::new(812, "nvidia-persistenced", "nvidia-persistenced.service");
    bench.host.open_vfio(&qemu, NIC).unwrap();
    bench.host.hold(&daemon, "/dev/nvidia0").unwrap();
    let host = bench.look(&silent());
    let [holder] = &host.holders[NIC][..] else { panic!("{:?}", host.holders) };
    assert_eq!((holder.pid, holder.command.as_str()), (4711, "qemu-system-x86"), "cut off by the kernel");
    assert_eq!(holder.unit.as_deref(), Some("machine-qemu\\x2d1\\x2dcroft.scope"));
    assert!(holder.file.starts_with("/dev/vfio/"));
    let [holder] = &host.holders[GPU][..] else { panic!("{:?}", host.holders) };
    assert_eq!((holder.pid, holder.file.as_str()), (812, "/dev/nvidia0"));

    bench.host.end(4711).unwrap();
    assert!(!bench.look(&silent()).holders.contains_key(NIC));
}

/// A pod that has the host's `/dev` below `/host`, as device plugins and exporters have.
#[test]
fn who_has_a_device_open_under_another_name_has_it_all_the_same() {
    let bench = Bench::new("devbox");
    bench.bind(NIC, "vfio-pci");
    fs::create_dir(bench.host.root().join("host")).unwrap();
    std::os::unix::fs::symlink("../dev", bench.host.root().join("host/dev")).unwrap();
    let group =
        bench.look(&silent()).pci.devices.iter().find(|known| known.address == at(NIC)).unwrap().iommu_group.unwrap();
    let exporter = Process::new(812, "dcgm-exporter", "cri-containerd-1.scope");
    for (device, file) in [(GPU, "/host/dev/nvidia0".to_owned()), (NIC, format!("/host/dev/vfio/{group}"))] {
        bench.host.hold(&exporter, &file).unwrap();
        let host = bench.look(&silent());
        let [holder] = &host.holders[device][..] else { panic!("{:?}", host.holders) };
        assert_eq!((holder.pid, &holder.file), (812, &file));
    }
    // And the kernel waits for it as for anybody.
    assert_eq!(clients::of(bench.host.root(), 0).unwrap(), [812]);
    assert_eq!(clients::of_function(bench.host.root(), at(NIC)).unwrap(), [812]);
}

/// With an interface that was moved to a pod's network nothing of it is left in the host's but the function and its driver.
#[test]
fn a_card_whose_interface_is_a_pods_is_held() {
    let bench = Bench::new("devbox");
    assert!(!bench.look(&silent()).holders.contains_key(NIC));
    fs::remove_file(bench.host.root().join("sys/class/net/enp129s0")).unwrap();
    let net = bench.host.root().join(format!("sys/bus/pci/devices/{NIC}/net"));
    fs::remove_dir_all(net.join("enp129s0")).unwrap();
    assert_eq!(bench.look(&silent()).holders[NIC][0].command, "kernel");
}

#[test]
fn without_a_list_of_processes_nothing_counts_as_unheld() {
    let bench = Bench::new("devbox");
    fs::rename(bench.host.root().join("proc"), bench.host.root().join("hidden")).unwrap();
    let host = bench.look(&silent());
    assert!(host.holders.is_empty());
    assert!(host.errors.iter().any(|error| error.device == "holders"), "{:?}", errors(&host));
}

#[test]
fn a_usb_device_that_is_open_is_held_by_port() {
    let bench = Bench::new("devbox");
    let host = bench.look(&silent());
    let device = host.usb.devices.iter().find(|device| device.serial.as_deref() == Some("DONGLE-0002")).unwrap();
    let file = format!("/dev/bus/usb/{:03}/{:03}", device.port.bus, device.device_number);
    bench.host.hold(&Process::new(99, "scdaemon", "pcscd.service"), &file).unwrap();
    let host = bench.look(&silent());
    assert_eq!(host.holders[&device.port.to_string()][0].command, "scdaemon");
}

#[test]
fn how_vgpus_are_made_is_seen_on_the_functions() {
    // No functions yet, and nobody to ask: no support is seen, and none is made up.
    let bench = Bench::new("devbox");
    let host = bench.look(&silent());
    assert_eq!(gpu(&host, GPU).vgpu, VgpuSupport::None);
    assert!(host.vgpus.is_empty());

    bench.host.sriov_manage(at(GPU), true).unwrap().unwrap();
    let host = bench.look(&silent());
    assert_eq!(gpu(&host, GPU).vgpu, VgpuSupport::Vendor);
    let VgpuFunction::Vendor { current: None, creatable, gpu_instance: None } = &host.vgpus.values().next().unwrap()
    else {
        panic!("{:?}", host.vgpus)
    };
    let wanted = creatable.iter().find(|vgpu| vgpu.name == "H100XM-20C").unwrap();
    let (function, _) = host.vgpus.first_key_value().unwrap();
    let file = format!("/sys/bus/pci/devices/{function}/nvidia/current_vgpu_type");
    bench.host.fs().unwrap().write(&file, &wanted.id.to_string()).unwrap();
    let host = bench.look(&silent());
    match &host.vgpus.get(function) {
        Some(VgpuFunction::Vendor { current: Some(current), .. }) => assert_eq!(current, wanted),
        // The creatable list has no more of it, and only the driver knows other names.
        None => {
            let error = errors(&host).into_iter().find(|error| error.contains(&function.to_string())).unwrap();
            assert!(error.contains("a type that the driver has a name for"), "{error}");
        }
        other => panic!("{other:?}"),
    }

    let older = Bench::new("a100x4");
    let address = older.look(&silent()).gpus.devices[0].address;
    older.host.sriov_manage(address, true).unwrap().unwrap();
    let host = older.look(&silent());
    assert_eq!(gpu(&host, &address.to_string()).vgpu, VgpuSupport::Mdev);
    let (function, VgpuFunction::Mdev { types }) = host.vgpus.first_key_value().unwrap() else {
        panic!("{:?}", host.vgpus)
    };
    let fitting = types.iter().find(|kind| kind.available > 0).unwrap();
    let uuid = "8c2a7e5e-7b0a-4ad2-9d5c-0e3f0c0ffee0";
    let create = format!("/sys/class/mdev_bus/{function}/mdev_supported_types/{}/create", fitting.id);
    older.host.fs().unwrap().write(&create, uuid).unwrap();
    let host = older.look(&silent());
    let [mdev] = &host.mdevs[..] else { panic!("{:?}", host.mdevs) };
    assert_eq!((mdev.uuid.as_str(), mdev.parent.clone(), &mdev.type_id), (uuid, function.to_string(), &fitting.id));
    assert!(mdev.iommu_group.is_some());
}

#[test]
fn a_card_that_was_changed_is_noticed() {
    let bench = Bench::new("devbox");
    let identity = |host: &Host| gpu(host, GPU).identity.clone();
    let remembered: Identity = identity(&bench.look(&silent()));
    assert!(remembered.slot_path.starts_with("pci"), "{remembered:?}");
    bench.host.reboot().unwrap();
    assert_eq!(remembered.compare(&identity(&bench.look(&silent()))), Sameness::Same);

    let swap = |hardware: &mut Hardware| {
        let slot = hardware.slots.iter_mut().find(|slot| slot.address() == at(GPU)).unwrap();
        *slot = Slot { ..Slot::new(&H200_SXM_141GB, 0x41).on_node(0) };
    };
    bench.host.change(swap).unwrap();
    bench.host.reboot().unwrap();
    let found = identity(&bench.look(&silent()));
    assert!(matches!(remembered.compare(&found), Sameness::Swapped { .. }), "{found:?}");
}

#[test]
fn a_server_with_nvswitches_needs_their_manager() {
    let bench = Bench::new("h100x8");
    let host = bench.look(&silent());
    assert_eq!(host.fabric, Fabric::Unavailable { why: "Fabric Manager does not run".to_owned() });
    assert_eq!(Bench::new("devbox").look(&silent()).fabric, Fabric::None);
}
