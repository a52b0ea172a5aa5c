//! A process that is killed in the middle of a change, and many that change at once.

use std::fs;

use super::*;
use crate::state::directory;

#[test]
fn what_a_killed_process_left_half_done_is_finished() {
    let host = preset("devbox");
    let root = host.host.root().to_owned();
    let state = |name: &str| fs::read(directory(&root).join(name)).unwrap();
    let (kernel, nvidia, before) = (state("kernel.json"), state("nvidia.json"), host.dump());
    host.manage(GPU, true);
    let after = host.dump();
    let machine: serde_json::Value = serde_json::from_slice(&state("kernel.json")).unwrap();
    let driver: serde_json::Value = serde_json::from_slice(&state("nvidia.json")).unwrap();
    host.manage(GPU, false);
    assert_eq!(host.dump(), before);

    // Killed after its decision was on disk, with half of the files made and half of them not.
    fs::write(directory(&root).join("kernel.json"), kernel).unwrap();
    fs::write(directory(&root).join("nvidia.json"), nvidia).unwrap();
    let redo = serde_json::json!({ "machine": machine, "nvidia": driver });
    fs::write(directory(&root).join("redo.json"), serde_json::to_vec(&redo).unwrap()).unwrap();
    fs::create_dir_all(root.join("sys/devices/pci0000:40/0000:40:01.1/0000:41:00.7/half")).unwrap();
    fs::remove_file(root.join(format!("sys/bus/pci/devices/{NIC}"))).unwrap();
    // The next write of anybody finishes it, refused or not.
    assert_eq!(host.write("/sys/bus/pci/drivers_probe", "nonsense"), Err(Errno::NODEV));
    assert_eq!(host.dump(), after);
    assert_eq!(Nvidia::read(&root).unwrap().gpu(at(GPU)).unwrap().virtual_functions.len(), 32);
    assert!(!directory(&root).join("redo.json").exists());
}

#[test]
fn a_refused_write_changes_nothing() {
    let host = preset("devbox");
    let generation = || Nvidia::read(host.host.root()).unwrap().generation;
    let (before, first) = (host.dump(), generation());
    host.set(GPU, "sriov_numvfs", "1").unwrap_err();
    host.set(NIC, "reset_method", "warp").unwrap_err();
    assert_eq!((host.dump(), generation()), (before, first));
}

#[test]
fn readers_see_whole_devices_while_others_write() {
    let host = preset("devbox");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..15 {
                host.set(NIC, "sriov_numvfs", "7").unwrap();
                host.set(NIC, "sriov_numvfs", "0").unwrap();
            }
            stop.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let mut looks = 0;
        while !stop.load(std::sync::atomic::Ordering::SeqCst) || looks == 0 {
            let inventory = pci::probe(&host.fs).unwrap();
            assert!(inventory.errors.is_empty(), "{:?}", inventory.errors);
            looks += 1;
        }
    });
}
