//! Drivers: `bind`, `unbind`, overrides, dynamic ids.

use super::*;
use crate::kernel::{Iommu, Slot};

#[test]
fn a_card_goes_to_vfio_and_back() {
    let host = preset("devbox");
    let before = host.dump();
    assert_eq!(host.driver(GPU).as_deref(), Some("nvidia"));
    assert_eq!(host.get(GPU, "driver_override"), "(null)");
    host.to_vfio(GPU);
    let group = host.function(GPU).iommu_group.unwrap();
    assert!(host.has(&format!("/dev/vfio/{group}")) && host.has("/dev/vfio/devices/vfio0"));
    assert!(host.has(&format!("/sys/bus/pci/drivers/vfio-pci/{GPU}")));
    assert!(!host.has(&format!("/sys/bus/pci/drivers/nvidia/{GPU}")) && !host.has("/dev/nvidia0"));
    assert_ne!(host.dump(), before);

    host.set(GPU, "driver_override", "\n").unwrap();
    host.set(GPU, "driver/unbind", &format!("{GPU}\n")).unwrap();
    assert_eq!(host.driver(GPU), None);
    host.write("/sys/bus/pci/drivers_probe", GPU).unwrap();
    assert_eq!(host.dump(), before);
}

#[test]
fn a_driver_without_its_device_says_enodev() {
    let host = preset("devbox");
    assert_eq!(host.write("/sys/bus/pci/drivers/nvidia/unbind", NIC), Err(Errno::NODEV), "another driver's");
    assert_eq!(host.write("/sys/bus/pci/drivers/igb/unbind", "0000:ff:00.0"), Err(Errno::NODEV), "none there");
    assert_eq!(host.write("/sys/bus/pci/drivers/vfio-pci/bind", NIC), Err(Errno::NODEV), "no id of its");
    assert_eq!(host.write("/sys/bus/pci/drivers/igb/bind", "nonsense"), Err(Errno::NODEV));
    assert_eq!(host.write("/sys/bus/pci/drivers_probe", "0000:ff:00.0"), Err(Errno::NODEV));
    assert_eq!(host.write("/sys/bus/pci/drivers/igb/bind", NIC), Err(Errno::BUSY), "bound already");
    assert_eq!(host.write("/sys/bus/pci/drivers/none/bind", NIC), Err(Errno::NOENT));
}

#[test]
fn probing_succeeds_whether_or_not_anything_was_bound() {
    let hardware = Hardware { iommu: Iommu::Off, ..SimHost::preset("devbox").unwrap() };
    let host = machine(hardware);
    assert_eq!(host.function(NIC).iommu_group, None);
    host.set(NIC, "driver_override", "vfio-pci").unwrap();
    host.set(NIC, "driver/unbind", NIC).unwrap();
    assert_eq!(host.write("/sys/bus/pci/drivers_probe", NIC), Ok(()));
    assert_eq!(host.driver(NIC), None, "no IOMMU");
    assert_eq!(host.write("/sys/bus/pci/drivers/vfio-pci/bind", NIC), Err(Errno::INVAL), "vfio says why");
    // A driver that is bound is left alone.
    host.set(NIC, "driver_override", "\n").unwrap();
    host.write("/sys/bus/pci/drivers_probe", NIC).unwrap();
    host.set(NIC, "driver_override", "vfio-pci").unwrap();
    assert_eq!(host.write("/sys/bus/pci/drivers_probe", NIC), Ok(()));
    assert_eq!(host.driver(NIC).as_deref(), Some("igb"));
}

#[test]
fn an_override_decides_alone() {
    let host = preset("devbox");
    host.set(NIC, "driver_override", "no-such-driver\nrest is cut off").unwrap();
    assert_eq!(host.get(NIC, "driver_override"), "no-such-driver");
    host.set(NIC, "driver/unbind", NIC).unwrap();
    host.write("/sys/bus/pci/drivers_probe", NIC).unwrap();
    assert_eq!(host.driver(NIC), None);
    assert_eq!(host.write("/sys/bus/pci/drivers/igb/bind", NIC), Err(Errno::NODEV));
    assert_eq!(host.set(NIC, "driver_override", &"x".repeat(4095)), Err(Errno::INVAL));
    assert_eq!(host.set(NIC, "driver/unbind", NIC), Err(Errno::NOENT), "an unbound function has no driver to write to");
}

#[test]
fn a_write_of_nothing_does_nothing() {
    let host = preset("devbox");
    host.set(NIC, "driver_override", "vfio-pci").unwrap();
    assert_eq!(host.set(NIC, "driver_override", ""), Ok(()));
    assert_eq!(host.get(NIC, "driver_override"), "vfio-pci");
}

#[test]
fn a_new_id_takes_every_unbound_card_that_has_it() {
    let two = [Slot::new(&crate::boards::NIC_IGB, 0x81), Slot::new(&crate::boards::NIC_IGB, 0xa1)];
    let host = machine(&two);
    host.set("0000:81:00.0", "driver/unbind", "0000:81:00.0").unwrap();
    let new_id = "/sys/bus/pci/drivers/vfio-pci/new_id";
    assert_eq!(host.write(new_id, "8086"), Err(Errno::INVAL));
    assert_eq!(host.write(new_id, "8086 xyz"), Err(Errno::INVAL));
    assert_eq!(host.write(new_id, "8086 10c9"), Ok(()));
    assert_eq!(host.driver("0000:81:00.0").as_deref(), Some("vfio-pci"));
    assert_eq!(host.driver("0000:a1:00.0").as_deref(), Some("igb"), "was bound");
    assert_eq!(host.write(new_id, "8086 10c9"), Err(Errno::EXIST));
    assert_eq!(host.write("/sys/bus/pci/drivers/igb/new_id", "8086 10c9"), Err(Errno::EXIST), "in its table");
    let remove_id = "/sys/bus/pci/drivers/vfio-pci/remove_id";
    assert_eq!(host.write(remove_id, "8086 10c9"), Ok(()));
    assert_eq!(host.write(remove_id, "8086 10c9"), Err(Errno::NODEV));
    assert_eq!(host.driver("0000:81:00.0").as_deref(), Some("vfio-pci"), "what is bound stays so");
}

#[test]
fn unbinding_waits_for_whoever_has_it_open() {
    let host = preset("devbox");
    host.to_vfio(NIC);
    host.host.open_vfio(&guest(4711), NIC).unwrap();
    let unbind = format!("/sys/bus/pci/devices/{NIC}/driver/unbind");
    host.waits(&unbind, NIC, || host.host.end(4711).unwrap());
    assert_eq!(host.driver(NIC), None);

    host.host.hold(&Process::new(99, "nvidia-persistenced", "nvidia-persistenced.service"), "/dev/nvidia0").unwrap();
    let unbind = format!("/sys/bus/pci/devices/{GPU}/driver/unbind");
    host.waits(&unbind, GPU, || host.host.end(99).unwrap());
    assert_eq!(host.driver(GPU), None);
}

#[test]
fn a_group_is_given_whole_or_not_at_all() {
    let host = preset("devbox");
    let group = host.function(CARD).iommu_group;
    assert_eq!(host.function(SOUND).iommu_group, group);
    host.to_vfio(CARD);
    let companion = host.driver(SOUND).unwrap();
    assert_eq!(errno(host.host.open_vfio(&guest(1), CARD)), Errno::PERM, "{companion} has the sound function");
    host.set(SOUND, "driver/unbind", SOUND).unwrap();
    host.host.open_vfio(&guest(1), CARD).unwrap();
    assert_eq!(host.write(&format!("/sys/bus/pci/drivers/{companion}/bind"), SOUND), Err(Errno::BUSY));
    host.write("/sys/bus/pci/drivers_probe", SOUND).unwrap();
    assert_eq!(host.driver(SOUND), None);
    host.to_vfio(SOUND);
    host.host.end(1).unwrap();
    assert_eq!(errno(host.host.open_vfio(&guest(1), GPU)), Errno::NODEV, "no VFIO driver has it");

    // A port in the group is no obstacle.
    let port = host.functions().into_iter().find(|port| port.address == at("0000:a0:01.1")).unwrap();
    assert_eq!(port.iommu_group, host.function(NVME).iommu_group);
    assert_eq!(port.driver.as_deref(), Some("pcieport"));
    host.to_vfio(NVME);
    host.host.open_vfio(&guest(1), NVME).unwrap();
}

#[test]
fn a_guest_that_opens_a_gpu_costs_it_the_mig_mode() {
    let host = preset("devbox");
    let mode = || crate::state::Nvidia::read(host.host.root()).unwrap().gpu(at(GPU)).unwrap().mig;
    let mut nvidia = crate::state::Nvidia::open(host.host.root()).unwrap();
    nvidia.gpu_mut(at(GPU)).unwrap().mig = crate::state::MigMode { current: true, pending: true };
    nvidia.save().unwrap();
    drop(nvidia);
    host.to_vfio(GPU);
    host.host.open_vfio(&guest(1), GPU).unwrap();
    host.host.end(1).unwrap();
    assert!(!mode().current && !mode().pending);
}

#[test]
fn paths_that_take_no_writes_say_so() {
    let host = preset("devbox");
    assert_eq!(host.set(NIC, "vendor", "1"), Err(Errno::ACCESS));
    assert_eq!(host.set(NIC, "none", "1"), Err(Errno::NOENT));
    assert_eq!(host.set(NIC, "driver", "1"), Err(Errno::ISDIR));
    assert_eq!(host.write("/proc/cmdline", "1"), Err(Errno::ACCESS));
    assert_eq!(host.write("/sys/bus/pci/devices/../../../../../../etc/passwd", "1"), Err(Errno::NOENT));
}

#[test]
fn a_fault_answers_before_the_kernel_does() {
    use crate::faults::{Answer, Fault, set};
    let host = preset("devbox");
    let before = host.dump();
    let path = format!("/sys/bus/pci/devices/{NIC}/driver/unbind");
    let fault = Fault::answer(&format!("write {path}"), Answer::Errno(Errno::BUSY.raw_os_error()));
    set(host.host.root(), &[Fault { times: Some(1), ..fault }]).unwrap();
    assert_eq!(host.write(&path, NIC), Err(Errno::BUSY));
    assert_eq!(host.dump(), before);
    assert_eq!(host.write(&path, NIC), Ok(()));
}
