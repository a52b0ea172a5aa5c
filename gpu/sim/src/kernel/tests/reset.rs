//! Resets, removal, reboot.

use super::*;
use crate::boards;
use crate::state::Nvidia;

#[test]
fn a_reset_needs_a_way() {
    let host = preset("devbox");
    assert_eq!(host.get(NIC, "reset_method"), "flr pm bus");
    assert_eq!(host.set(NIC, "reset", "1"), Ok(()));
    assert_eq!(host.set(NIC, "reset", "0"), Err(Errno::INVAL));
    assert_eq!(host.set(NIC, "reset_method", "flr warp"), Err(Errno::INVAL));
    assert_eq!(host.set(NIC, "reset_method", "bus flr"), Ok(()));
    assert_eq!(host.get(NIC, "reset_method"), "bus flr");
    assert_eq!(host.set(NIC, "reset_method", "\n"), Ok(()));
    assert_eq!(host.set(NIC, "reset", "1"), Err(Errno::NOTTY));
    assert_eq!(host.set(NIC, "reset_method", "default"), Ok(()));
    assert_eq!(host.get(NIC, "reset_method"), "flr pm bus");

    host.set(CARD, "reset_method", "bus").unwrap();
    assert_eq!(host.set(CARD, "reset", "1"), Err(Errno::NOTTY), "the sound function is on that bus too");
    assert_eq!(host.set("0000:00:14.0", "reset", "1"), Err(Errno::NOENT), "there is no way at all");
}

#[test]
fn a_removed_function_comes_back_with_a_rescan() {
    let host = preset("devbox");
    let before = host.dump();
    host.set(NIC, "sriov_numvfs", "2").unwrap();
    host.set(NIC, "remove", "1").unwrap();
    assert!(host.functions().iter().all(|function| function.address.bus != 0x81));
    assert_eq!(host.write("/sys/bus/pci/rescan", "x"), Err(Errno::INVAL));
    host.write("/sys/bus/pci/rescan", "1").unwrap();
    assert_eq!(host.driver(NIC).as_deref(), Some("igb"));
    assert_eq!(host.dump(), before);

    host.host.remove(at(GPU)).unwrap();
    host.write("/sys/bus/pci/rescan", "1").unwrap();
    assert_eq!(host.dump(), before);
}

#[test]
fn a_card_may_leave_without_a_word() {
    let host = preset("devbox");
    host.manage(GPU, true);
    host.host.hold(&guest(1), "/dev/nvidia0").unwrap();
    host.host.surprise_remove(at(GPU)).unwrap();
    assert!(host.functions().iter().all(|function| function.address.bus != 0x41));
    assert_eq!(errno(host.host.surprise_remove(at(GPU))), Errno::NODEV);
}

#[test]
fn a_reboot_forgets_what_a_reboot_forgets() {
    let host = preset("devbox");
    let boot_id = || host.fs.attribute("/proc/sys/kernel/random/boot_id").unwrap();
    let (before, first) = (host.dump(), boot_id());
    host.manage(GPU, true);
    host.set(NIC, "sriov_drivers_autoprobe", "0").unwrap();
    host.set(NIC, "sriov_numvfs", "2").unwrap();
    host.to_vfio("0000:81:10.0");
    host.host.open_vfio(&guest(1), "0000:81:10.0").unwrap();
    let mut nvidia = Nvidia::open(host.host.root()).unwrap();
    for gpu in &mut nvidia.gpus {
        (gpu.mig.current, gpu.mig.pending, gpu.persistence) = (true, true, true);
    }
    nvidia.save().unwrap();
    drop(nvidia);
    host.host.reboot().unwrap();
    assert_ne!(boot_id(), first);
    assert!(!host.has("/proc/1/fd"));
    // The H100 forgets its mode; the A6000 has none that the file could have kept.
    let a6000 = |text: &str| text.lines().filter(|line| !line.starts_with(&format!("gpu {CARD}"))).count();
    assert_eq!(a6000(&host.dump()), a6000(&before));
    assert!(host.dump().contains(&format!("gpu {GPU}")) && !host.virtual_functions(GPU).iter().any(|_| true));
    assert!(!Nvidia::read(host.host.root()).unwrap().gpu(at(GPU)).unwrap().mig.current);
}

#[test]
fn a_swapped_card_is_another_and_a_moved_one_the_same() {
    let host = preset("devbox");
    let uuid = |address: &str| Nvidia::read(host.host.root()).unwrap().gpu(at(address)).unwrap().uuid.clone();
    let serial = |address: &str| pci::serial_number(&host.fs, at(address)).unwrap().unwrap();
    let (gpu, nic) = (uuid(GPU), serial(NIC));
    host.host.change(|hardware| hardware.slots[2].serial += 1).unwrap();
    assert_eq!(serial(NIC), nic, "not while the machine runs");
    host.host.reboot().unwrap();
    assert_ne!(serial(NIC), nic);
    assert_eq!(uuid(GPU), gpu);

    host.host.change(|hardware| (hardware.slots[0].root, hardware.slots[0].bus) = (0x20, 0x21)).unwrap();
    host.host.reboot().unwrap();
    assert_eq!(uuid("0000:21:00.0"), gpu);
    host.host.change(|hardware| hardware.slots[0].board = boards::H200_SXM_141GB.name.to_owned()).unwrap();
    host.host.reboot().unwrap();
    assert_ne!(uuid("0000:21:00.0"), gpu);
    let bad =
        host.host.change(|hardware| hardware.slots[0].board = "none".to_owned()).and_then(|()| host.host.reboot());
    assert!(bad.unwrap_err().to_string().contains("no board named none"));
}
