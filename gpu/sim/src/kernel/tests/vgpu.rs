//! vGPUs: NVIDIA's files of virtual functions, and mediated devices.

use super::*;
use crate::driver;

fn id(host: &Machine, gpu: &str, name: &str) -> u32 {
    let nvidia = Nvidia::read(host.host.root()).unwrap();
    let mut types = driver::supported_types(nvidia.gpu(at(gpu)).unwrap());
    types.find(|vgpu| vgpu.name == name).unwrap_or_else(|| panic!("no {name}")).id
}

#[test]
fn a_function_becomes_a_vgpu_and_nothing_again() {
    let host = preset("devbox");
    assert!(!host.has(&format!("/sys/bus/pci/devices/{GPU}/nvidia")));
    host.manage(GPU, true);
    let before = host.dump();
    let (one, two) = ("0000:41:00.2", "0000:41:00.3");
    let list = host.get(one, "nvidia/creatable_vgpu_types");
    let h100_20c = id(&host, GPU, "H100XM-20C");
    assert_eq!(list.lines().next(), Some("ID    : vGPU Name"));
    assert!(list.lines().any(|line| line == format!("{h100_20c:<5} : NVIDIA H100XM-20C")), "{list}");
    assert_eq!(host.get(one, "nvidia/current_vgpu_type"), "0");

    let set = |function: &str, value: &str| host.set(function, "nvidia/current_vgpu_type", value);
    assert_eq!(set(one, "0"), Err(Errno::PERM), "it is nothing already");
    assert_eq!(set(one, "H100XM-20C"), Err(Errno::INVAL));
    assert_eq!(set(one, "999999"), Err(Errno::IO));
    assert_eq!(errno(host.host.open_vfio(&guest(1), one)), Errno::NODEV, "type 0");
    assert_eq!(set(one, &format!("{h100_20c}\n")), Ok(()));
    assert_eq!(host.get(one, "nvidia/current_vgpu_type"), h100_20c.to_string());
    assert_eq!(set(one, &h100_20c.to_string()), Err(Errno::PERM));
    let other = id(&host, GPU, "H100XM-40C").to_string();
    assert_eq!(set(two, &other), Err(Errno::IO), "homogeneous: only its like beside it");
    assert!(!host.get(two, "nvidia/creatable_vgpu_types").contains("H100XM-40C"));

    host.host.open_vfio(&guest(1), one).unwrap();
    assert_eq!(set(one, "0"), Err(Errno::PERM), "a guest has it open");
    host.host.end(1).unwrap();
    assert_eq!(set(one, "0"), Ok(()));
    assert_eq!(host.dump(), before);
}

#[test]
fn files_follow_what_nvml_changes() {
    let host = preset("devbox");
    let root = host.host.root();
    let mut nvidia = Nvidia::open(root).unwrap();
    let gpu = nvidia.gpu_mut(at(GPU)).unwrap();
    (gpu.mig.current, gpu.mig.pending) = (true, true);
    nvidia.save().unwrap();
    drop(nvidia);
    host.manage(GPU, true);
    let vf = "0000:41:00.2";
    assert_eq!(host.get(vf, "nvidia/creatable_vgpu_types"), "ID    : vGPU Name", "no GPU instance yet");

    let mut nvidia = Nvidia::open(root).unwrap();
    let gpu = nvidia.gpu_mut(at(GPU)).unwrap();
    let profile = gpu.shape().mig.as_ref().unwrap().profile_named("2g.20gb").unwrap().id;
    let instance = crate::state::GpuInstance {
        id: 5,
        profile,
        placement: croft_gpu::gpu::Span { start: 0, size: 2 },
        compute_instances: Vec::new(),
        heterogeneous: false,
    };
    gpu.instances.push(instance);
    nvidia.save().unwrap();
    drop(nvidia);
    let list = host.get(vf, "nvidia/creatable_vgpu_types");
    assert!(list.contains("H100XM-2-20C") && !list.contains("H100XM-1-10C"), "{list}");
    let access = host.fs.read("/proc/driver/nvidia/capabilities/gpu0/mig/gi5/access").unwrap();
    assert!(access.starts_with("DeviceFileMinor: 48\n"), "{access}");

    let backed = id(&host, GPU, "H100XM-2-20C").to_string();
    host.set(vf, "nvidia/current_vgpu_type", &backed).unwrap();
    assert!(host.dump().contains(&format!("function {vf} type {backed} on the instance at 0")));
    assert_eq!(host.get(vf, "nvidia/gpu_instance_id"), "5");
    // Another direction of sriov-manage costs everything but the mode.
    host.manage(GPU, false);
    let nvidia = Nvidia::read(root).unwrap();
    let gpu = nvidia.gpu(at(GPU)).unwrap();
    assert!(gpu.instances.is_empty() && gpu.mig.current);
    assert!(!host.has("/proc/driver/nvidia/capabilities/gpu0/mig/gi5"));
}

#[test]
fn nothing_happens_to_a_gpu_whose_functions_are_in_use() {
    let host = preset("devbox");
    host.manage(GPU, true);
    let type_id = id(&host, GPU, "H100XM-20C").to_string();
    host.set("0000:41:00.2", "nvidia/current_vgpu_type", &type_id).unwrap();
    host.host.open_vfio(&guest(1), "0000:41:00.2").unwrap();
    let before = host.dump();
    // The tool takes functions off their driver without asking, and the kernel lets it wait.
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            host.manage(GPU, false);
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        std::thread::sleep(std::time::Duration::from_millis(60));
        assert!(!done.load(std::sync::atomic::Ordering::SeqCst), "it did not wait");
        assert_eq!(host.dump(), before);
        host.host.end(1).unwrap();
    });
    assert!(host.virtual_functions(GPU).is_empty());
}

const UUID: &str = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001";

#[test]
fn a_mediated_device_lives_on_a_virtual_function() {
    let host = preset("a100x4");
    let gpu = "0000:11:00.0";
    assert!(host.fs.entries("/sys/class/mdev_bus").unwrap().is_empty(), "neither before functions are made");
    host.manage(gpu, true);
    let vf = host.virtual_functions(gpu).remove(0);
    assert_eq!(vf, "0000:11:00.4");
    let before = host.dump();
    assert!(!host.has(&format!("/sys/bus/pci/devices/{vf}/nvidia")));
    let kind = format!("/sys/class/mdev_bus/{vf}/mdev_supported_types/nvidia-{}", id(&host, gpu, "A100D-20C"));
    assert_eq!(host.fs.attribute(&format!("{kind}/name")).unwrap(), "NVIDIA A100D-20C");
    assert_eq!(host.fs.attribute(&format!("{kind}/available_instances")).unwrap(), "1");

    let create = format!("{kind}/create");
    assert_eq!(host.write(&create, "not-a-uuid"), Err(Errno::INVAL));
    assert_eq!(host.write(&create, &UUID.replace('-', "_")), Err(Errno::INVAL));
    assert_eq!(host.write(&create, &format!("{}\n", UUID.to_uppercase())), Ok(()));
    assert_eq!(host.write(&create, UUID), Err(Errno::EXIST));
    assert_eq!(host.write(&create, &UUID.replace("1001", "1002")), Err(Errno::IO), "one on each function");
    assert_eq!(host.fs.attribute(&format!("{kind}/available_instances")).unwrap(), "0");
    let mdev = format!("/sys/bus/mdev/devices/{UUID}");
    assert_eq!(host.fs.link_name(&format!("{mdev}/mdev_type")).unwrap(), kind.rsplit('/').next().unwrap());
    let group = host.fs.link_name(&format!("{mdev}/iommu_group")).unwrap();
    assert!(host.has(&format!("/dev/vfio/{group}")));

    host.host.open_vfio(&guest(1), UUID).unwrap();
    assert_eq!(host.write(&format!("{mdev}/remove"), "0"), Ok(()), "0 is no wish");
    assert_eq!(host.write(&format!("{mdev}/remove"), "yes"), Err(Errno::INVAL));
    host.waits(&format!("{mdev}/remove"), "1", || host.host.end(1).unwrap());
    assert_eq!(host.dump(), before);
}

/// Turing: `mdev_supported_types` is the board's own directory.
#[test]
fn a_board_without_functions_makes_mediated_devices_itself() {
    let host = preset("t4x4");
    let gpu = "0000:11:00.0";
    let before = host.dump();
    assert!(host.host.sriov_manage(at(gpu), true).unwrap().is_err());
    let kind = |name: &str| format!("/sys/class/mdev_bus/{gpu}/mdev_supported_types/nvidia-{}", id(&host, gpu, name));
    let left = |name: &str| host.fs.attribute(&format!("{}/available_instances", kind(name))).unwrap();
    assert_eq!((left("T4-4Q"), left("T4-16Q")), ("4".to_owned(), "1".to_owned()));
    let other = UUID.replace("1001", "1002");
    for (uuid, then) in [(UUID, "3"), (other.as_str(), "2")] {
        assert_eq!(host.write(&format!("{}/create", kind("T4-4Q")), uuid), Ok(()));
        assert_eq!((left("T4-4Q").as_str(), left("T4-8Q").as_str()), (then, "0"));
    }
    assert_eq!(host.write(&format!("{}/create", kind("T4-8Q")), &UUID.replace("1001", "1003")), Err(Errno::IO));
    assert_eq!(host.fs.link_name(&format!("/sys/bus/mdev/devices/{other}/../driver")).unwrap(), "nvidia");
    host.host.open_vfio(&guest(1), UUID).unwrap();
    let access = format!("/sys/bus/pci/devices/{gpu}/driver/unbind");
    host.waits(&access, gpu, || host.host.end(1).unwrap());
    assert!(!host.has("/sys/bus/mdev/devices/") || host.fs.entries("/sys/bus/mdev/devices").unwrap().is_empty());
    host.write("/sys/bus/pci/drivers_probe", gpu).unwrap();
    assert_eq!(host.dump(), before);
}

#[test]
fn functions_take_their_mediated_devices_along() {
    let host = preset("a100x4");
    let gpu = "0000:11:00.0";
    let before = host.dump();
    host.manage(gpu, true);
    let kind = id(&host, gpu, "A100D-20C");
    host.set("0000:11:00.4", &format!("mdev_supported_types/nvidia-{kind}/create"), UUID).unwrap();
    host.manage(gpu, false);
    assert_eq!(host.dump(), before);
    assert!(!host.has(&format!("/sys/bus/mdev/devices/{UUID}")));
}
