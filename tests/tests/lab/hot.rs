//! Devices that come to a guest while it runs, and leave it.

use croft_tests::lab_host::LabHost;
use croft_tests::lab_host::machine::USB_SERIALS;

use crate::fleet::{READY, pool, request};
use crate::site::{BOOT, Site, guest, patiently};
use crate::table::{Lap, Row};

/// Attached to a guest that runs; unplugged from the host and plugged in at another port; detached.
pub async fn usb(lab: &LabHost, site: &Site, row: &mut Row) {
    let before = lab.state();
    site.run(guest("hot-usb")).await;
    site.guest_says("hot-usb", &[READY]).await;
    let mut lap = Lap::start();
    site.attach("hot-usb", request(&pool("dongle"))).await;
    row.took("attach", &mut lap);
    site.guest_says("hot-usb", &["lab-guest: + usb", USB_SERIALS[0]]).await;
    row.took("seen", &mut lap);
    let seen = site.console("hot-usb").await.matches("lab-guest: + usb").count();

    // QEMU does not notice that it is gone: the agent tells the guest, and knows it again wherever it comes back.
    lab.unplug_usb(0);
    let gone = format!("! grep -qs {} /sys/bus/usb/devices/*/serial", USB_SERIALS[0]);
    lab.until(BOOT, "it is unplugged", &gone);
    site.guest_says("hot-usb", &["lab-guest: - usb", USB_SERIALS[0]]).await;
    row.took("unplugged, and the guest saw it go", &mut lap);
    lab.plug_usb(0, 3);
    patiently("the guest sees it again", || async {
        let text = site.console("hot-usb").await;
        if text.matches("lab-guest: + usb").count() > seen { Ok(()) } else { Err(text) }
    })
    .await;
    row.took("plugged in at another port, and the guest saw it", &mut lap);

    site.detach("hot-usb", "dev").await;
    row.took("detach", &mut lap);
    lab.unplug_usb(0);
    lab.plug_usb(0, 1);
    // Its driver has it again, too.
    lab.until(BOOT, "the dongle is where it was", "test -e /sys/bus/usb/devices/1-1:1.0/driver");
    assert_eq!(lab.state(), before);
    row.note("back", "yes");
    site.remove("hot-usb").await;
}

pub async fn function(lab: &LabHost, site: &Site, row: &mut Row) {
    let before = lab.state();
    site.run(guest("hot-nic")).await;
    site.guest_says("hot-nic", &[READY]).await;
    let mut lap = Lap::start();
    site.attach("hot-nic", request(&pool("nic-vf"))).await;
    row.took("attach", &mut lap);
    site.guest_says("hot-nic", &["lab-guest: + pci", "8086:10ca"]).await;
    row.took("seen", &mut lap);
    site.detach("hot-nic", "dev").await;
    row.took("detach", &mut lap);
    site.guest_says("hot-nic", &["lab-guest: - pci", "8086:10ca"]).await;
    assert_eq!(lab.state(), before);
    row.took("back", &mut lap);
    site.remove("hot-nic").await;
}
