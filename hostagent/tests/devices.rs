//! Devices on a simulated machine: every kind goes to a guest and comes back, and the machine is as it was, compared as text.

mod fake;

use std::time::Duration;

use croft_gpu_sim::boards;
use croft_gpu_sim::driver;
use croft_gpu_sim::faults::{self, Answer, Fault};
use croft_gpu_sim::kernel::{Process, SimHost, UsbPlug};
use croft_gpu_sim::state::{EventKind, Nvidia};
use croft_hostagent::hypervisor::Source;
use croft_proto::agent::v1::instance_observation::Phase;
use croft_proto::agent::v1::{DesiredDevice, DeviceRelease, HostPolicy};
use croft_proto::v1::DeviceLayout;
use croft_proto::v1::device::State;
use croft_proto::v1::gpu::Mode;
use fake::devices::{mig_backed, time_sliced, usb, whole, with};
use fake::eventually;
use fake::host::Host;
use uuid::Uuid;

const GPU: &str = "0000:41:00.0";
const DISPLAY: &str = "0000:61:00.0";
const NIC: &str = "0000:81:00.0";
const NVME: &str = "0000:a1:00.0";
const DONGLE: &str = "usb-0000:00:14.0-1";
const KEY: &str = "usb-0000:00:14.0-3";

/// Through a guest and back.
async fn round(host: &Host, devices: Vec<DesiredDevice>) -> Vec<Source> {
    let before = host.tree();
    let uid = Uuid::now_v7();
    host.plane.upsert(with(uid, devices.clone()));
    let seen = host.attached(uid).await;
    let mut ids: Vec<_> = devices.iter().map(|device| device.id.clone()).collect();
    ids.sort();
    assert_eq!(seen.attached_devices, ids);
    let had = host.simulated.devices(uid);
    host.plane.bury(uid, true, 0);
    host.until(uid, Phase::Absent).await;
    assert_eq!(host.tree(), before, "{devices:?}");
    had.into_iter().map(|device| device.source).collect()
}

#[tokio::test]
async fn whole_functions_go_and_come_back() {
    let host = Host::devbox().await;
    let gpu = host.device(GPU).await;
    assert_eq!(gpu.gpu.as_ref().map(|gpu| (gpu.model.as_str(), gpu.mode())), Some(("h100_sxm_80gb", Mode::Idle)));
    assert_eq!(gpu.gpu.as_ref().map(|gpu| (gpu.mig_profiles.len(), gpu.vgpu_framework.as_str())), Some((7, "dormant")));
    let display = host.device(DISPLAY).await;
    assert_eq!((display.state(), display.companions.as_slice()), (State::Available, &["0000:61:00.1".to_owned()][..]));
    for id in [GPU, NVME] {
        let had = round(&host, vec![host.piece("d", id, whole).await]).await;
        assert!(matches!(&had[..], [Source::Function { address, .. }] if address.to_string() == id), "{had:?}");
        let reset = host.device_that(id, "was cleaned", |device| device.last_reset.is_some()).await.last_reset;
        assert!(reset.is_some_and(|reset| reset.clean && reset.method == "flr"));
    }
    let had = round(&host, vec![host.piece("d", DISPLAY, whole).await]).await;
    assert_eq!(had.len(), 2, "with its sound function: {had:?}");
    host.device_is(DISPLAY, State::Available).await;
}

#[tokio::test]
async fn virtual_functions_stand_while_the_layout_says_so_and_go_to_guests() {
    let host = Host::devbox().await;
    host.device(NIC).await;
    let before = host.tree();
    let layout = |count| {
        let layout = vec![DeviceLayout { device: NIC.to_owned(), virtual_functions: count, gpu_mode: 0 }];
        Some(HostPolicy { layout_generation: count.into(), layout, ..HostPolicy::default() })
    };
    host.policy(layout(4)).await;
    let vf = "0000:81:10.2";
    let device = host.device_is(vf, State::Available).await;
    assert_eq!((device.physical.as_str(), device.function_index, device.driver.as_str()), (NIC, 1, ""));
    let had = round(&host, vec![host.piece("nic", vf, whole).await]).await;
    assert!(matches!(&had[..], [Source::NicFunction { mac, .. }] if mac == "02:00:00:00:00:77"), "{had:?}");
    host.policy(Some(HostPolicy { layout_generation: 9, ..HostPolicy::default() })).await;
    eventually("the functions are gone", async || {
        if host.tree() == before && !host.reported().iter().any(|device| device.name.ends_with(vf)) {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await;
    host.policy(layout(99)).await;
    eventually("the problem is told", async || {
        let host = host.plane.lock().host.clone().unwrap_or_default();
        let problem = host.layout_problems.first().filter(|problem| problem.contains("7 virtual functions, not 99"));
        if problem.is_some() && host.layout_generation == 99 {
            Ok(())
        } else {
            Err(format!("{:?}", host.layout_problems))
        }
    })
    .await;
}

#[tokio::test]
async fn usb_devices_go_by_who_they_are() {
    let host = Host::devbox().await;
    let had = round(&host, vec![host.piece("a", DONGLE, usb).await, host.piece("k", KEY, usb).await]).await;
    assert!(matches!(&had[..], [Source::Usb { .. }, Source::Usb { .. }]), "{had:?}");
}

#[tokio::test]
async fn slices_of_a_gpu_and_its_mode_come_and_go() {
    let host = Host::devbox().await;
    host.device(GPU).await;
    let before = host.tree();
    let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
    let slice = |id: &'static str, kind, profile, at, index| host.piece(id, GPU, mig_backed(kind, profile, at, index));
    let one = slice("gpu", "H100XM-2-20C", "2g.20gb", (0, 2), 0).await;
    let other = slice("gpu", "H100XM-3-40C", "3g.40gb", (4, 4), 1).await;
    host.plane.upsert(with(first, vec![one]));
    host.attached(first).await;
    host.plane.upsert(with(second, vec![other]));
    host.attached(second).await;
    let gpu = host.device_that(GPU, "is cut", |device| {
        device.gpu.as_ref().is_some_and(|gpu| gpu.mode() == Mode::MigVgpu && gpu.mig_instances.len() == 2)
    });
    assert_eq!(gpu.await.state(), State::Available, "there is room");
    host.plane.bury(first, true, 0);
    host.until(first, Phase::Absent).await;
    assert!(host.simulated.running().contains(&second));
    host.device_that(GPU, "has one left", |device| {
        device.gpu.as_ref().is_some_and(|gpu| gpu.mode() == Mode::MigVgpu && gpu.mig_instances.len() == 1)
    })
    .await;
    host.plane.bury(second, true, 0);
    host.until(second, Phase::Absent).await;
    assert_eq!(host.tree(), before);
    round(&host, vec![host.piece("gpu", GPU, time_sliced("H100XM-20C", 2)).await]).await;
}

#[tokio::test]
async fn mediated_devices_of_an_older_kernel() {
    let host = Host::with_devices(SimHost::preset("a100x4").expect("preset")).await;
    let gpu = host.device("0000:11:00.0").await.gpu.expect("a GPU");
    let kind = gpu.vgpu_types.iter().find(|kind| kind.mig_profile.is_empty()).expect("a type").name.clone();
    let had = round(&host, vec![host.piece("gpu", "0000:11:00.0", time_sliced(&kind, 0)).await]).await;
    assert!(matches!(&had[..], [Source::Mdev { .. }]), "{had:?}");
}

#[tokio::test]
async fn whole_gpus_behind_switches_come_with_their_partition() {
    let host = Host::with_devices(SimHost::preset("h100x8").expect("preset")).await;
    let device = host.device("0000:11:00.0").await;
    assert_eq!((device.state(), device.message.as_str()), (State::Available, ""));
    let gpu = device.gpu.expect("a GPU");
    let single = gpu.fabric_partitions.iter().find(|partition| partition.gpus.len() == 1).expect("a partition").id;
    let mut device = host.piece("gpu", "0000:11:00.0", whole).await;
    if let Some(croft_proto::agent::v1::desired_device::Piece::Whole(whole)) = &mut device.piece {
        whole.fabric_partition = single;
    }
    round(&host, vec![device]).await;
}

/// The hardware is another than the one that was placed.
#[tokio::test]
async fn a_swapped_card_is_refused_until_somebody_accepts_it() {
    let mut host = Host::devbox().await;
    let device = host.piece("gpu", GPU, whole).await;
    host.agent.kill();
    let machine = host.machine.clone().expect("machine");
    machine.change(|hardware| hardware.slots[0].serial += 1000).expect("swap");
    host.simulated.host_reboot().expect("reboot");
    host.start_agent().await;
    let changed = host.device_is(GPU, State::Changed).await;
    assert!(changed.message.contains("another card is in its slot"), "{}", changed.message);
    let before = host.tree();
    let uid = Uuid::now_v7();
    host.plane.upsert(with(uid, vec![device]));
    let message = host.lacks(uid, "DeviceChanged").await;
    assert!(message.contains("another card"), "{message}");
    assert_ne!(host.plane.observed(uid).phase(), Phase::Running);
    assert_eq!(host.tree(), before);

    let releases = vec![DeviceRelease { device: GPU.to_owned(), counter: 1 }];
    host.policy(Some(HostPolicy { releases, ..HostPolicy::default() })).await;
    host.device_is(GPU, State::Available).await;
    // What was placed was the old one: that instance never runs.
    let message = host.lacks(uid, "DeviceChanged").await;
    assert!(message.contains("was placed"), "{message}");
    round(&host, vec![host.piece("gpu", GPU, whole).await]).await;
}

#[tokio::test]
async fn what_others_use_is_theirs() {
    let host = Host::devbox().await;
    let machine = host.machine.clone().expect("machine");
    host.device_is(GPU, State::Available).await;
    let trainer = Process::new(4711, "python3", "training.service");
    machine.hold(&trainer, "/dev/nvidia0").expect("hold");
    host.agent_looks().await;
    let device = host.device_is(GPU, State::Foreign).await;
    assert!(device.message.contains("python3 (pid 4711, training.service)"), "{}", device.message);
    assert_eq!(device.gpu.as_ref().map(|gpu| gpu.mode()), Some(Mode::Foreign));
    let before = host.tree();
    let uid = Uuid::now_v7();
    host.plane.upsert(with(uid, vec![host.piece("gpu", GPU, whole).await]));
    let message = host.lacks(uid, "DeviceHeldOpen").await;
    assert!(message.contains("python3"), "{message}");
    assert_eq!(host.tree(), before);
    machine.end(4711).expect("end");
    host.agent_looks().await;
    host.pass_until("it runs", async || {
        let seen = host.plane.observed(uid);
        if seen.phase() == Phase::Running { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_usb_device_that_comes_back_is_attached_again() {
    let mut host = Host::devbox().await;
    let machine = host.machine.clone().expect("machine");
    let uid = Uuid::now_v7();
    host.plane.upsert(with(uid, vec![host.piece("hsm", DONGLE, usb).await]));
    host.attached(uid).await;
    let before = host.simulated.devices(uid);
    let plug = |port: &str| UsbPlug::new(port, &boards::usb::LICENCE_DONGLE, Some("DONGLE-0001"));
    // Into another port: it says who it is.
    machine.usb_unplug("1-1").expect("unplug");
    let message = host.lacks(uid, "DeviceMissing").await;
    assert!(message.contains("is plugged in"), "{message}");
    host.device_is(DONGLE, State::Missing).await;
    host.until_that(uid, "its guest sees it go", |seen| seen.attached_devices.is_empty()).await;
    assert_eq!(host.simulated.devices(uid), []);
    assert_eq!(host.simulated.running(), [uid], "a guest goes on without it");
    host.restart_agent().await;
    machine.usb_plug(plug("1-7")).expect("plug");
    host.attached(uid).await;
    let after = host.simulated.devices(uid);
    assert_ne!(before, after);
    assert_eq!(host.simulated.boots(uid), 1, "it went on all the time");
    host.device_is(DONGLE, State::InUse).await;
    assert!(host.reported().iter().all(|device| !device.name.ends_with("-7")), "one device has one name");
    host.plane.bury(uid, true, 0);
    host.until(uid, Phase::Absent).await;
}

#[tokio::test]
async fn a_usb_device_that_a_program_of_the_host_has_open_is_not_taken_from_it() {
    let host = Host::devbox().await;
    let machine = host.machine.clone().expect("machine");
    let port = machine.root().join("sys/bus/usb/devices/1-1/devnum");
    let number: u8 = std::fs::read_to_string(port).expect("devnum").trim().parse().expect("a number");
    machine
        .hold(&Process::new(4711, "pcscd", "pcscd.service"), &format!("/dev/bus/usb/001/{number:03}"))
        .expect("hold");
    let uid = Uuid::now_v7();
    host.plane.upsert(with(uid, vec![host.piece("hsm", DONGLE, usb).await]));
    let message = host.lacks(uid, "DeviceHeldOpen").await;
    assert!(message.contains("pcscd (pid 4711, pcscd.service)"), "{message}");
    assert_eq!(host.simulated.devices(uid), []);
    host.device_is(DONGLE, State::Foreign).await;
    machine.end(4711).expect("end");
    host.agent_looks().await;
    host.attached(uid).await;
    host.device_is(DONGLE, State::InUse).await;
}

#[tokio::test]
async fn devices_come_to_a_running_guest_and_leave_it() {
    let host = Host::devbox().await;
    host.device(NVME).await;
    let before = host.tree();
    let uid = Uuid::now_v7();
    host.plane.upsert(with(uid, Vec::new()));
    host.until(uid, Phase::Running).await;
    let (drive, dongle) = (host.piece("drive", NVME, whole).await, host.piece("hsm", DONGLE, usb).await);
    let gpu = host.piece("gpu", GPU, whole).await;
    host.plane.change(uid, |wish| wish.devices = vec![drive.clone(), dongle.clone()]);
    let seen = host.attached(uid).await;
    assert_eq!((seen.attached_devices.as_slice(), host.simulated.boots(uid)), (&["drive".into(), "hsm".into()][..], 1));

    // A guest that does not let go keeps it, and everybody hears of it.
    host.simulated.guest_clings(uid, true).expect("clings");
    let leaves = |device: &DesiredDevice| DesiredDevice { detach: true, ..device.clone() };
    host.plane.change(uid, |wish| wish.devices = vec![leaves(&drive), dongle.clone()]);
    host.lacks(uid, "DeviceNotReleased").await;
    assert!(host.plane.observed(uid).released_devices.is_empty());
    host.device_is(NVME, State::InUse).await;
    host.simulated.guest_clings(uid, false).expect("lets go");
    host.pass_until("it is released", async || {
        let seen = host.plane.observed(uid);
        if seen.released_devices == ["drive"] { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    host.device_is(NVME, State::Available).await;
    assert_eq!(host.plane.observed(uid).attached_devices, ["hsm"]);

    host.plane.change(uid, |wish| wish.devices = vec![dongle.clone(), gpu]);
    let message = host.lacks(uid, "DeviceNeedsRestart").await;
    assert!(message.contains("stop and start"), "{message}");
    host.plane.change(uid, |wish| wish.devices = Vec::new());
    host.until_that(uid, "no device", |seen| seen.attached_devices.is_empty() && seen.conditions.len() == 1).await;
    host.plane.bury(uid, true, 0);
    host.until(uid, Phase::Absent).await;
    assert_eq!(host.tree(), before);
}

#[tokio::test]
async fn a_write_that_never_returns_leaves_the_agent_alive_and_the_device_stuck() {
    let mut host = Host::devbox().await;
    host.agent.kill();
    host.helpers.longest_step = Some(Duration::from_secs(1));
    host.helpers.kill = Some(|_| Ok(()));
    host.start_agent().await;
    let machine = host.machine.clone().expect("machine");
    let (drive, dongle) = (host.piece("drive", NVME, whole).await, host.piece("hsm", DONGLE, usb).await);
    faults::set(machine.root(), &[Fault::hang("write /sys/bus/pci/drivers_probe")]).expect("fault");
    let (stuck, other) = (Uuid::now_v7(), Uuid::now_v7());
    host.plane.upsert(with(stuck, vec![drive]));
    let message = host.lacks(stuck, "DeviceStuck").await;
    assert!(message.contains("reboot the host"), "{message}");
    host.device_is(NVME, State::Stuck).await;
    let pid: i32 = message.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()).expect("a pid");
    // The others live on.
    host.plane.upsert(with(other, vec![dongle]));
    host.attached(other).await;
    let before = host.tree();
    host.pass(120).await;
    assert_eq!(host.tree(), before, "nothing more is written to it");
    // Its instance can go: it has nothing to do with it any more.
    host.plane.bury(stuck, true, 0);
    host.until(stuck, Phase::Absent).await;
    host.device_is(NVME, State::Stuck).await;
    assert_eq!(host.tree(), before);

    let pid = rustix::process::Pid::from_raw(pid).expect("pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
    host.agent.kill();
    faults::set(machine.root(), &[]).expect("no fault");
    host.simulated.host_reboot().expect("reboot");
    host.start_agent().await;
    host.device_is(NVME, State::Available).await;
}

#[tokio::test]
async fn a_look_that_fails_frees_nothing() {
    let host = Host::devbox().await;
    let uid = Uuid::now_v7();
    host.plane.upsert(with(uid, vec![host.piece("drive", NVME, whole).await]));
    host.attached(uid).await;
    let machine = host.machine.clone().expect("machine");
    let bus = machine.root().join("run/croft-sim/hardware.json");
    let hidden = bus.with_extension("away");
    std::fs::rename(&bus, &hidden).expect("hide");
    host.agent_looks().await;
    eventually("the host says so", async || {
        let host = host.plane.lock().host.clone().unwrap_or_default();
        let told = host.conditions.iter().any(|condition| condition.reason == "DevicesUnseen");
        if !host.devices_seen && host.devices.is_empty() && told { Ok(()) } else { Err(format!("{host:?}")) }
    })
    .await;
    host.plane.bury(uid, true, 0);
    host.until_that(uid, "waits", |seen| seen.reason == "DevicesUnseen" && seen.phase() != Phase::Absent).await;
    std::fs::rename(&hidden, &bus).expect("show");
    host.pass_until("it is absent", async || {
        let seen = host.plane.observed(uid);
        if seen.phase() == Phase::Absent { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    host.agent_looks().await;
    host.device_is(NVME, State::Available).await;
}

#[tokio::test]
async fn what_cannot_be_cleaned_goes_to_nobody() {
    let host = Host::devbox().await;
    let machine = host.machine.clone().expect("machine");
    let uid = Uuid::now_v7();
    host.plane.upsert(with(uid, vec![host.piece("drive", NVME, whole).await]));
    host.attached(uid).await;
    let broken = Fault::answer(&format!("write /sys/bus/pci/devices/{NVME}/reset"), Answer::Errno(25));
    faults::set(machine.root(), &[broken]).expect("fault");
    host.plane.bury(uid, true, 0);
    host.until(uid, Phase::Absent).await;
    let device = host.device_is(NVME, State::Quarantined).await;
    assert_eq!(device.reason, "DeviceNotCleaned");
    assert!(device.last_reset.is_some_and(|reset| !reset.clean));
    faults::set(machine.root(), &[]).expect("no fault");
    let releases = vec![DeviceRelease { device: NVME.to_owned(), counter: 1 }];
    host.policy(Some(HostPolicy { releases, ..HostPolicy::default() })).await;
    let device = host.device_is(NVME, State::Available).await;
    assert_eq!(device.driver, "nvme", "taken home first");
    assert!(device.last_reset.is_some_and(|reset| reset.clean));
}

#[tokio::test]
async fn a_gpu_that_reports_an_error_is_given_to_nobody_and_its_neighbours_are() {
    let mut host = Host::with_devices(SimHost::preset("l40sx2").expect("preset")).await;
    let (sick, well) = ("0000:11:00.0", "0000:21:00.0");
    host.device_is(sick, State::Available).await;
    let machine = host.machine.clone().expect("machine");
    let raise = |kind| {
        let mut nvidia = Nvidia::open(machine.root()).expect("driver");
        driver::raise(&mut nvidia, sick.parse().expect("address"), kind);
        nvidia.save().expect("saved");
    };
    // 31 is a program that read a wrong address; 48 is the memory of the GPU. Told until somebody listens.
    eventually("it is heard", async || {
        raise(EventKind::Xid(31));
        raise(EventKind::Xid(48));
        tokio::time::sleep(Duration::from_millis(200)).await;
        let device = host.device(sick).await;
        if device.state() == State::Unhealthy { Ok(()) } else { Err(format!("{device:?}")) }
    })
    .await;
    let device = host.device(sick).await;
    assert_eq!((device.reason.as_str(), device.message.contains("Xid 48")), ("XidError", true), "{}", device.message);
    host.plane.lock().host = None;
    host.restart_agent().await;
    host.device_is(sick, State::Unhealthy).await;
    let uid = Uuid::now_v7();
    host.plane.upsert(with(uid, vec![host.piece("gpu", sick, whole).await]));
    host.lacks(uid, "GpuUnhealthy").await;
    round(&host, vec![host.piece("gpu", well, whole).await]).await;
    let releases = vec![DeviceRelease { device: sick.to_owned(), counter: 1 }];
    host.policy(Some(HostPolicy { releases, ..HostPolicy::default() })).await;
    host.device_is(sick, State::Available).await;
}
