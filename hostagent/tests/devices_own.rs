//! What the host itself lives on is never anybody's, USB devices are cleaned between two holders, and a damaged journal
//! condemns what it was damaged in.

mod fake;

use croft_gpu_sim::faults::{self, Answer, Fault};
use croft_gpu_sim::kernel::SimHost;
use croft_proto::agent::v1::instance_observation::Phase;
use croft_proto::agent::v1::{DeviceRelease, HostPolicy};
use croft_proto::v1::device::State;
use fake::devices::{time_sliced, usb, whole, with};
use fake::host::Host;
use uuid::Uuid;

const NIC: &str = "0000:81:00.0";
const NVME: &str = "0000:a1:00.0";
const XHCI: &str = "0000:00:14.0";
const DONGLE: &str = "usb-0000:00:14.0-1";
const KEY: &str = "usb-0000:00:14.0-3";

fn write(host: &Host, path: &str, text: &str) {
    let path = host.machine.as_ref().expect("machine").root().join(path);
    std::fs::create_dir_all(path.parent().expect("parent")).expect("directory");
    std::fs::write(path, text).expect("written");
}

/// One by one: the drive with the root file system, the card with the default route, the controller of the keyboard, a stick
/// that is mounted. Bridges and the like are no devices at all.
#[tokio::test]
async fn what_the_host_lives_on_is_foreign() {
    let host = Host::devbox().await;
    for id in [NVME, NIC, XHCI, KEY] {
        host.device_is(id, State::Available).await;
    }
    assert!(host.reported().iter().all(|device| !device.class.starts_with("06")), "{:?}", host.reported());
    write(&host, "proc/1/mountinfo", "25 1 259:161 / / rw - ext4 /dev/nvme161n1 rw\n");
    write(&host, "proc/1/net/route", "Iface Destination Gateway\nenp129s0 00000000 0101A8C0 0003\n");
    let keyboard = format!("N: Name=\"Keys\"\nS: Sysfs=/devices/pci0000:00/{XHCI}/usb1/1-2/1-2:1.0/input/input5\n");
    write(&host, "proc/bus/input/devices", &format!("{keyboard}H: Handlers=sysrq kbd event4\n\n"));
    let disk = format!("sys/devices/pci0000:00/{XHCI}/usb1/1-3/1-3:1.0/host4/block/sda");
    write(&host, &format!("{disk}/dev"), "8:0\n");
    let link = host.machine.as_ref().expect("machine").root().join("sys/block/sda");
    std::os::unix::fs::symlink(format!("../../{disk}"), link).expect("link");
    write(&host, "proc/swaps", "Filename Type Size Used Priority\n/dev/sda partition 1 0 -2\n");
    host.agent_looks().await;
    for (id, why) in [
        (NVME, "this host itself: /dev/nvme161n1 (mounted on /)"),
        (NIC, "this host itself: enp129s0 (the host's routes)"),
        (XHCI, "this host itself: "),
        (KEY, "this host itself: /dev/sda (swap)"),
    ] {
        let device = host.device_is(id, State::Foreign).await;
        assert!(device.reason == "DeviceForeign" && device.message.contains(why), "{id}: {}", device.message);
    }
    // Whoever was placed on it before does not get it.
    let before = host.tree();
    let uid = Uuid::now_v7();
    host.plane.upsert(with(uid, vec![host.piece("drive", NVME, whole).await]));
    let message = host.lacks(uid, "DeviceHeldOpen").await;
    assert!(message.contains("mounted on /"), "{message}");
    assert_eq!(host.tree(), before);
}

#[tokio::test]
async fn a_controller_is_whoevers_device_hangs_on_it() {
    let host = Host::devbox().await;
    host.device_is(XHCI, State::Available).await;
    let (holder, other) = (Uuid::now_v7(), Uuid::now_v7());
    host.plane.upsert(with(holder, vec![host.piece("hsm", DONGLE, usb).await]));
    host.attached(holder).await;
    let device = host.device_is(XHCI, State::InUse).await;
    assert!(device.message.contains("a USB device behind it"), "{}", device.message);
    let before = host.tree();
    host.plane.upsert(with(other, vec![host.piece("usb", XHCI, whole).await]));
    host.lacks(other, "DeviceOwned").await;
    assert_eq!(host.tree(), before);
    host.plane.bury(other, true, 0);
    host.until(other, Phase::Absent).await;
    host.plane.bury(holder, true, 0);
    host.until(holder, Phase::Absent).await;
    host.device_is(XHCI, State::Available).await;
}

#[tokio::test]
async fn usb_devices_are_reset_between_two_holders() {
    let host = Host::devbox().await;
    let machine = host.machine.clone().expect("machine");
    assert!(host.device(DONGLE).await.last_reset.is_none());
    let hold = async |uid| {
        host.plane.upsert(with(uid, vec![host.piece("hsm", DONGLE, usb).await]));
        host.attached(uid).await;
        host.plane.bury(uid, true, 0);
    };
    let first = Uuid::now_v7();
    hold(first).await;
    host.until(first, Phase::Absent).await;
    let reset = host.device_that(DONGLE, "was cleaned", |device| device.last_reset.is_some()).await.last_reset;
    assert!(reset.is_some_and(|reset| reset.clean && reset.method == "usb port"));
    host.device_is(DONGLE, State::Available).await;

    faults::set(machine.root(), &[Fault::answer("USBDEVFS_RESET", Answer::Errno(110))]).expect("fault");
    let second = Uuid::now_v7();
    hold(second).await;
    host.until(second, Phase::Absent).await;
    let device = host.device_is(DONGLE, State::Quarantined).await;
    assert_eq!(device.reason, "DeviceNotCleaned", "{}", device.message);
    assert!(device.last_reset.is_some_and(|reset| !reset.clean));
    faults::set(machine.root(), &[]).expect("no fault");
    let releases = vec![DeviceRelease { device: DONGLE.to_owned(), counter: 1 }];
    host.policy(Some(HostPolicy { releases, ..HostPolicy::default() })).await;
    let device = host.device_is(DONGLE, State::Available).await;
    assert!(device.last_reset.is_some_and(|reset| reset.clean), "cleaned first");
}

/// Turing boards make no functions: their vGPUs stand on the boards themselves, several on each.
#[tokio::test]
async fn mediated_devices_of_a_board_itself() {
    let host = Host::with_devices(SimHost::preset("t4x4").expect("preset")).await;
    let gpu = "0000:11:00.0";
    let device = host.device_is(gpu, State::Available).await;
    assert_eq!(device.gpu.as_ref().map(|gpu| gpu.vgpu_framework.as_str()), Some("mdev"));
    assert_eq!(device.functions_total, 16, "sixteen of the smallest");
    let before = host.tree();
    let uids = [Uuid::now_v7(), Uuid::now_v7()];
    for (index, uid) in (0..).zip(uids) {
        host.plane.upsert(with(uid, vec![host.piece("gpu", gpu, time_sliced("T4-8Q", index)).await]));
        host.attached(uid).await;
    }
    assert_eq!(host.device(gpu).await.state(), State::Available, "the plane counts what is left");
    for uid in uids {
        host.plane.bury(uid, true, 0);
        host.until(uid, Phase::Absent).await;
    }
    assert_eq!(host.tree(), before);
}

#[tokio::test]
async fn a_damaged_entry_of_the_journal_condemns_its_own_device() {
    let mut host = Host::devbox().await;
    let (drive, key) = (Uuid::now_v7(), Uuid::now_v7());
    host.plane.upsert(with(drive, vec![host.piece("drive", NVME, whole).await]));
    host.plane.upsert(with(key, vec![host.piece("key", KEY, usb).await]));
    host.attached(drive).await;
    host.attached(key).await;
    let path = host.directory.path().join("agent/journal/devices.json");
    host.agent.kill();
    let text = std::fs::read_to_string(&path).expect("journal");
    let mut journal: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    journal["holds"][drive.to_string()]["drive"]["taken"] = "\u{0}".into();
    std::fs::write(&path, journal.to_string()).expect("damage");
    let before = host.tree();
    host.start_agent().await;
    let device = host.device_is(NVME, State::Quarantined).await;
    assert!(device.reason == "JournalCorrupt" && device.message.contains("release it"), "{}", device.message);
    host.device_is(KEY, State::InUse).await;
    host.device_is(NIC, State::Available).await;
    assert_eq!(host.tree(), before, "nothing is written to it");
    assert!(host.simulated.running().contains(&drive), "its guest goes on");
    assert!(path.with_extension("json.corrupt").exists(), "as it was found");

    // A file of which nobody can tell what is missing.
    host.agent.kill();
    std::fs::write(&path, &text[..text.len() / 2]).expect("cut");
    host.start_agent().await;
    for id in [NVME, KEY, NIC] {
        assert_eq!(host.device_is(id, State::Quarantined).await.reason, "JournalCorrupt");
    }
    assert_eq!(host.tree(), before);
}
