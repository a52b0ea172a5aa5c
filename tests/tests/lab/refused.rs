//! What is in somebody's way: nobody gets it, and the culprit is named.

use croft_proto::v1;
use croft_proto::v1::instance_status::State;
use croft_tests::lab_host::LabHost;
use croft_tests::lab_host::machine::{BESIDE_NIC, DISPLAY, NIC, PEER_NIC, USB_SERIALS};

use crate::fleet::{guest_with, pool};
use crate::site::{Site, patiently};
use crate::table::Row;

/// What shares its group with something that the host may live on is no candidate, and the culprit is named.
pub async fn peer_in_the_way(site: &Site, row: &mut Row) {
    let device = site.device(&format!("hosts/lab/devices/{BESIDE_NIC}")).await;
    assert_eq!(device.state(), v1::device::State::Unusable, "{device:?}");
    assert!(device.message.contains(PEER_NIC) && device.message.contains("e1000e"), "{}", device.message);
    let refused = site.api.create_as(guest_with("no", &pool("beside-nic"))).await.expect_err("nothing to give");
    row.note("said", format!("{}: {}", device.reason, refused.message()));
}

/// A program of the host's own has the dongle's serial line open: nobody gets it, and the program and its unit are named.
pub async fn serial_line(lab: &LabHost, site: &Site, row: &mut Row) {
    let dongle = site.usb(USB_SERIALS[0]).await.name;
    let line = lab.sh("basename /sys/bus/usb/devices/1-1:1.0/ttyUSB*");
    lab.keep_open("lab-serial", &format!("/dev/{line}"));
    let device = site.device_is(&dongle, v1::device::State::Foreign).await;
    assert!(device.message.contains("lab-serial.service") && device.message.contains(&line), "{device:?}");
    site.api.create_as(guest_with("no", &pool("dongle"))).await.expect_err("nothing to give");
    lab.sh("systemctl stop lab-serial");
    site.device_is(&dongle, v1::device::State::Available).await;
    row.note("said", device.message);
}

/// The functions of a card that is switched off are not given: their guests' addresses could not be set.
pub async fn card_down(lab: &LabHost, site: &Site, row: &mut Row) {
    let interface = lab.sh(&format!("ls /sys/bus/pci/devices/{NIC}/net"));
    let functions = lab.sh(&format!("basename -a $(readlink /sys/bus/pci/devices/{NIC}/virtfn*)"));
    let name = format!("hosts/lab/devices/{}", functions.lines().next().expect("a function"));
    lab.sh(&format!("ip link set {interface} down"));
    let device = site.device_is(&name, v1::device::State::Unusable).await;
    assert_eq!(device.reason, "DeviceCardDown");
    site.api.create_as(guest_with("no", &pool("nic-vf"))).await.expect_err("nothing to give");
    lab.sh(&format!("ip link set {interface} up"));
    site.device_is(&name, v1::device::State::Available).await;
    row.note("said", device.message);
}

/// A process of the host's own has the device open: the guest waits, the process and its unit are named, and when it lets go
/// the guest starts by itself.
pub async fn held_open(lab: &LabHost, site: &Site, row: &mut Row) {
    let before = lab.state();
    lab.look_at("lab-viewer", DISPLAY);
    let Ok(create) = site.api.create_as(guest_with("held", &pool("display"))).await else {
        // The host had told of it already: refused at the door, by the same name.
        let device = site.device(&format!("hosts/lab/devices/{DISPLAY}")).await;
        assert!(device.message.contains("lab-viewer.service"), "{device:?}");
        lab.sh("systemctl stop lab-viewer");
        row.note("said", format!("at create: {}", device.message));
        return;
    };
    let said = patiently("the culprit is named", || async {
        let status = site.instance("held").await;
        let condition = status.conditions.iter().find(|condition| condition.r#type == "DevicesAttached").cloned();
        match condition {
            Some(condition) if condition.message.contains("lab-viewer.service") => Ok(condition),
            other => Err((other, status)),
        }
    })
    .await;
    row.note("said", format!("{}: {}", said.reason, said.message));
    lab.sh("systemctl stop lab-viewer");
    // The operation has ended by then, with the same words; the instance goes on trying.
    if let Err(error) = site.done(&create).await {
        assert!(error.message.contains("lab-viewer.service"), "{error:?}");
    }
    site.until("held", State::Running).await;
    row.note("and then", "let go, and the guest started by itself");
    site.remove("held").await;
    assert_eq!(lab.state(), before);
}
