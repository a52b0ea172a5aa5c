//! What the planners believe of the kernel, asked of a real one, through their own looks, plans and steps.

use croft_gpu::apply::Outcome;
use croft_gpu::host::{Holder, Host};
use croft_gpu::pci::{PciAddress, Sriov};
use croft_gpu::plan::{Reason, Step, Wish};
use croft_tests::lab_host::machine::{
    BESIDE_NIC, CARD, CARD_SOUND, DISPLAY, NIC, NVME, PEER_NIC, USB_SERIALS, USB_STICK,
};
use croft_tests::lab_host::{LabHost, Wished};

use crate::shared::lab;

const UUID: &str = "0f0e0d0c-0b0a-4908-8706-050403020100";

#[test]
fn kernel_1_a_look_sees_every_device_and_no_error() {
    let Some(lab) = lab() else { return };
    let host = lab.look();
    let errors: Vec<_> =
        [&host.pci.errors, &host.gpus.errors, &host.usb.errors, &host.errors].into_iter().flatten().collect();
    assert!(errors.is_empty(), "{errors:?}");
    let group = |address: &str| function(&host, address).iommu_group.unwrap_or_else(|| panic!("no group: {address}"));
    assert_eq!(group(CARD), group(CARD_SOUND), "two functions without ACS are one group");
    let others = [NIC, NVME, DISPLAY, CARD, BESIDE_NIC].map(group);
    let mut distinct = others.to_vec();
    distinct.dedup();
    assert_eq!(distinct.len(), others.len(), "one group for each root port: {others:?}");
    for (address, driver) in
        [(NIC, "igb"), (NVME, "nvme"), (DISPLAY, "bochs-drm"), (CARD_SOUND, "snd_hda_intel"), (PEER_NIC, "e1000e")]
    {
        assert_eq!(function(&host, address).driver.as_deref(), Some(driver), "{address}");
    }
    assert!(matches!(function(&host, NIC).sriov, Sriov::Physical { total: 7, .. }));
    assert!(matches!(function(&host, NVME).sriov, Sriov::Physical { total: 2, .. }));
    let serials: Vec<_> = host.usb.devices.iter().filter_map(|device| device.serial.as_deref()).collect();
    assert!(USB_SERIALS.iter().all(|serial| serials.contains(serial)), "{serials:?}");
    let makers: Vec<_> = host.mdev_parents.keys().map(String::as_str).collect();
    assert_eq!(makers, ["mbochs", "mtty"]);
}

#[test]
fn kernel_2_functions_come_and_go_through_none() {
    let Some(lab) = lab() else { return };
    let before = lab.state();
    let numvfs = format!("/sys/bus/pci/devices/{NIC}/sriov_numvfs");
    let kernel = |count: u16| lab.run(&format!("echo {count} > {numvfs}")).stderr;
    let wish = |count| Wish::VirtualFunctions { physical: at(NIC), count, autoprobe: false };

    assert!(kernel(8).contains("Numerical result out of range"), "more than the card can have");
    let refusal = lab.refused(&wish(8));
    assert_eq!(refusal.reason, Reason::TooManyVirtualFunctions, "{refusal}");

    let two = lab.granted(&wish(2));
    assert!(kernel(3).contains("Device or resource busy"), "the count changes only through 0");
    let host = lab.look();
    let made = functions(&host);
    assert_eq!(made.len(), 2);
    for &vf in &made {
        let vf = function(&host, &vf.to_string());
        assert_eq!((vf.driver.as_deref(), vf.id().as_str()), (None, "8086:10ca"), "autoprobe is off");
        let alone = host.pci.devices.iter().filter(|other| other.iommu_group == vf.iommu_group).count();
        assert_eq!((vf.iommu_group.is_some(), alone), (true, 1), "a group of its own");
    }
    let three = lab.granted(&wish(3));
    let counts: Vec<_> = three.plan.steps.iter().filter_map(count).collect();
    assert_eq!(counts, [(2, 0), (0, 3)], "what the kernel asks for");

    // One of them to a guest: only driver_override lets a driver in, and then it is there.
    let vf = functions(&lab.look())[0];
    let taken = lab.granted(&Wish::Passthrough { address: vf });
    let taken_vf = lab.function(&vf.to_string());
    assert_eq!(taken_vf.driver.as_deref(), Some("vfio-pci"));
    let node = format!("/dev/vfio/{}", taken_vf.iommu_group.expect("a group"));
    lab.sh(&format!("test -c {node}"));

    // While a guest has it open: no count of 0, and the one who holds it is named.
    hold(&lab, "lab-guest-1", &taken_vf.iommu_group.expect("a group").to_string(), &vf.to_string());
    let refusal = lab.refused(&wish(0));
    assert_eq!(refusal.reason, Reason::VirtualFunctionsInUse, "{refusal}");
    assert!(refusal.message.contains(&vf.to_string()) && refusal.message.contains("lab-guest-1.service"), "{refusal}");
    // The kernel itself would wait for the guest, and not even a kill ends the waiting: why helpers write, and never the agent.
    lab.sh(&format!("systemd-run -q --unit lab-waiter sh -c 'echo 0 > {numvfs}'"));
    lab.until(PATIENCE, "the kernel says that it waits", "dmesg | grep -q 'blocked until'");
    lab.sh("systemctl kill -s KILL lab-waiter; sleep 2; systemctl is-active -q lab-waiter");
    let_go(&lab, "lab-guest-1");
    lab.until(PATIENCE, "the kernel has taken the functions away", &format!("test $(cat {numvfs}) = 0"));

    // That wiped what we had: wishing on from there ends well all the same.
    assert!(lab.refused(&taken.back.expect("a way back")).message.contains(&vf.to_string()));
    for back in [three.back, two.back] {
        lab.granted(&back.expect("a way back"));
    }
    assert_eq!(lab.state(), before);
}

#[test]
fn kernel_3_a_group_is_given_whole() {
    let Some(lab) = lab() else { return };
    let before = lab.state();
    let group = lab.function(CARD).iommu_group.expect("a group").to_string();
    let viable = || lab.sh(&format!("python3 /mnt/lab/vfio.py viable {group}"));

    // Half of it by hand: the kernel does not let it be used.
    lab.sh(&format!(
        "cd /sys/bus/pci/devices/{CARD}; echo vfio-pci > driver_override; [ ! -e driver ] || echo {CARD} > driver/unbind; \
         echo {CARD} > /sys/bus/pci/drivers_probe"
    ));
    assert_eq!(viable(), "0", "its sound function is on the host's driver");
    lab.sh(&format!(
        "cd /sys/bus/pci/devices/{CARD}; echo {CARD} > driver/unbind; echo > driver_override; \
         echo {CARD} > /sys/bus/pci/drivers_probe"
    ));
    assert_eq!(lab.state(), before);

    let taken = lab.granted(&Wish::Passthrough { address: at(CARD) });
    for address in [CARD, CARD_SOUND] {
        assert_eq!(lab.function(address).driver.as_deref(), Some("vfio-pci"), "{address}");
    }
    assert_eq!(viable(), "1");
    let back = lab.granted(&taken.back.expect("a way back"));
    println!(
        "lab: a card of two functions: {:.1} s there, {:.1} s back, resets {:?}",
        taken.seconds, back.seconds, back.resets
    );
    assert_eq!(lab.state(), before);

    // What the host may live on is never taken along.
    let refusal = lab.refused(&Wish::Passthrough { address: at(BESIDE_NIC) });
    assert_eq!(refusal.reason, Reason::IommuGroupShared, "{refusal}");
    assert!(refusal.message.contains(PEER_NIC) && refusal.message.contains("e1000e"), "{refusal}");
    assert_eq!(lab.state(), before);
}

#[test]
fn kernel_4_who_holds_a_device_is_named() {
    let Some(lab) = lab() else { return };
    let before = lab.state();
    // On the host's driver: a process with its file open.
    let card = lab.look_at("lab-viewer", DISPLAY);
    let refusal = lab.refused(&Wish::Passthrough { address: at(DISPLAY) });
    assert_eq!(refusal.reason, Reason::DeviceHeldOpen, "{refusal}");
    assert!(refusal.message.contains("lab-viewer.service") && refusal.message.contains(&card), "{refusal}");
    let_go(&lab, "lab-viewer");

    // On vfio-pci: the guest that has it.
    let taken = lab.granted(&Wish::Passthrough { address: at(DISPLAY) });
    let group = lab.function(DISPLAY).iommu_group.expect("a group").to_string();
    hold(&lab, "lab-guest-2", &group, DISPLAY);
    let back = taken.back.expect("a way back");
    let refusal = lab.refused(&back);
    assert_eq!(refusal.reason, Reason::DeviceHeldOpen, "{refusal}");
    assert!(refusal.message.contains("lab-guest-2.service"), "{refusal}");
    let_go(&lab, "lab-guest-2");
    let back = lab.granted(&back);
    println!("lab: a display: {:.1} s there, {:.1} s back, resets {:?}", taken.seconds, back.seconds, back.resets);
    assert_eq!(lab.state(), before);
}

#[test]
fn kernel_5_mediated_devices_are_made_and_unmade() {
    let Some(lab) = lab() else { return };
    let before = lab.state();
    let host = lab.look();
    let kind = host.mdev_parents["mbochs"][0].clone();
    let wish = |type_name: &str| Wish::Mdev {
        parent: "mbochs".to_owned(),
        type_name: type_name.to_owned(),
        uuid: UUID.to_owned(),
        gpu_instance: None,
    };
    let refusal = lab.refused(&wish("mbochs-9"));
    assert_eq!(refusal.reason, Reason::UnknownVgpuType);
    assert!(refusal.fix.contains(kind.name.as_ref().unwrap_or(&kind.id)), "it says which there are: {refusal}");
    let create = format!("/sys/class/mdev_bus/mbochs/mdev_supported_types/{}/create", kind.id);
    assert!(lab.run(&format!("echo no-uuid > {create}")).stderr.contains("Invalid argument"));

    let made = lab.granted(&wish(&kind.id));
    let host = lab.look();
    let mdev = host.mdevs.iter().find(|mdev| mdev.uuid == UUID).expect("made");
    assert_eq!((mdev.parent.as_str(), mdev.type_id.as_str()), ("mbochs", kind.id.as_str()));
    assert!(mdev.iommu_group.is_some());
    assert!(lab.granted(&wish(&kind.id)).plan.steps.is_empty(), "wished again: nothing to do");
    lab.granted(&made.back.expect("a way back"));
    assert_eq!(lab.state(), before);
}

#[test]
fn kernel_6_a_program_killed_at_any_step_is_followed_by_one_that_ends_well() {
    let Some(lab) = lab() else { return };
    let before = lab.state();
    let mut deaths = 0;
    let two = Wish::VirtualFunctions { physical: at(NIC), count: 2, autoprobe: false };
    let mdev = Wish::Mdev {
        parent: "mbochs".to_owned(),
        type_name: lab.look().mdev_parents["mbochs"][0].id.clone(),
        uuid: UUID.to_owned(),
        gpu_instance: None,
    };
    for wish in [Wish::Passthrough { address: at(CARD) }, two, mdev] {
        // Nobody dies while the way back is learnt: it is kept before the first step, as an agent's journal does.
        let back = lab.granted(&wish).back.expect("a way back");
        let there = lab.state();
        lab.granted(&back);
        assert_eq!(lab.state(), before);
        for step in 0.. {
            let died = lab.killed_at(&wish, step);
            lab.granted(&wish);
            assert_eq!(lab.state(), there, "{wish:?} killed before step {step}, then wished again");
            let died_back = lab.killed_at(&back, step);
            lab.granted(&back);
            assert_eq!(lab.state(), before, "{back:?} killed before step {step}, then wished again");
            deaths += usize::from(died) + usize::from(died_back);
            if !died && !died_back {
                break;
            }
        }
    }
    println!("lab: {deaths} deaths at steps");
    assert!(deaths >= 8, "{deaths}");
}

#[test]
fn kernel_7_who_uses_a_usb_device_is_named() {
    let Some(lab) = lab() else { return };
    let users = |serial: &str| -> (Vec<Holder>, Vec<Holder>) {
        let host = lab.look();
        let device =
            host.usb.devices.iter().find(|device| device.serial.as_deref() == Some(serial)).expect("it is there");
        let of = |device: &str| host.holders.get(device).cloned().unwrap_or_default();
        (of(&device.port.to_string()), of(device.controller.as_ref().expect("a controller")))
    };
    assert_eq!(users(USB_SERIALS[0]), (vec![], vec![]), "nobody uses any of them");

    let line = lab.sh("basename /sys/bus/usb/devices/1-1:1.0/ttyUSB*");
    lab.keep_open("lab-serial", &format!("/dev/{line}"));
    let (of_device, of_controller) = users(USB_SERIALS[0]);
    let [holder] = &of_device[..] else { panic!("{of_device:?}") };
    let unit = holder.unit.as_deref();
    assert_eq!((unit, holder.file.as_str()), (Some("lab-serial.service"), format!("/dev/{line}").as_str()));
    assert_eq!(of_controller, of_device, "with the controller it would go too");
    assert_eq!(users(USB_SERIALS[1]).0, vec![], "its twin is another device");
    let_go(&lab, "lab-serial");

    let disk = "$(readlink -f /dev/disk/by-id/usb-*LABSTICK*:0)";
    lab.sh(&format!("udevadm settle; mkdir -p /mnt/stick; mount {disk} /mnt/stick"));
    let (of_stick, _) = users(USB_STICK);
    let [holder] = &of_stick[..] else { panic!("{of_stick:?}") };
    assert!(holder.pid == 0 && holder.file.contains("mounted on /mnt/stick"), "{holder:?}");
    lab.sh("umount /mnt/stick");
    assert_eq!(users(USB_STICK).0, vec![]);
}

#[test]
fn kernel_8_a_write_that_does_not_return_is_given_up() {
    let Some(lab) = lab() else { return };
    let before = lab.state();
    let back = lab.granted(&Wish::Passthrough { address: at(DISPLAY) }).back.expect("a way back");
    let group = lab.function(DISPLAY).iommu_group.expect("a group").to_string();
    // In use by somebody whom nobody can see: no guard stops the write, and the kernel waits for them in it.
    keep(&lab, "lab-hidden", "hide", &group, DISPLAY);
    let Wished::Carried { outcome, seconds, .. } = lab.wish(&back) else { panic!("nobody could be seen") };
    let Outcome::Stuck(stuck) = outcome else { panic!("{outcome:?}\n{}", lab.serial_end()) };
    assert!(stuck.to_string().contains("reboot the host"), "{stuck}");
    // The program has ended, and its helper hangs where no signal reaches it.
    assert_eq!(lab.sh(&format!("cut -d' ' -f3 /proc/{}/stat", stuck.pid)), "D");
    println!("lab: a write that does not return: given up after {seconds:.1} s, {stuck}");
    let_go(&lab, "lab-hidden");
    let gone = format!("test ! -e /proc/{} -a ! -e /sys/bus/pci/devices/{DISPLAY}/driver", stuck.pid);
    lab.until(PATIENCE, "the kernel went on", &gone);
    lab.granted(&back);
    assert_eq!(lab.state(), before);
}

/// Of a script that waits for something inside.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

fn at(address: &str) -> PciAddress {
    address.parse().expect("an address")
}

fn function<'a>(host: &'a Host, address: &str) -> &'a croft_gpu::pci::PciFunction {
    let found = host.pci.devices.iter().find(|function| function.address.to_string() == address);
    found.unwrap_or_else(|| panic!("no {address}"))
}

fn functions(host: &Host) -> Vec<PciAddress> {
    match &function(host, NIC).sriov {
        Sriov::Physical { functions, .. } => functions.iter().map(|vf| vf.address).collect(),
        other => panic!("{other:?}"),
    }
}

fn count(step: &Step) -> Option<(u16, u16)> {
    if let Step::SetVirtualFunctions { from, to, .. } = step { Some((*from, *to)) } else { None }
}

/// As a guest would: in a unit of its own.
fn hold(lab: &LabHost, unit: &str, group: &str, address: &str) {
    keep(lab, unit, "hold", group, address);
}

fn keep(lab: &LabHost, unit: &str, how: &str, group: &str, address: &str) {
    lab.sh(&format!("systemd-run -q --unit {unit} python3 /mnt/lab/vfio.py {how} {group} {address}"));
    let held = format!("journalctl -q -u {unit} | grep -q held");
    lab.until(PATIENCE, "the device is held", &held);
}

fn let_go(lab: &LabHost, unit: &str) {
    lab.sh(&format!("systemctl stop {unit}"));
}
