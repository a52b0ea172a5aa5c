//! Devices that come to a guest while it runs, and leave it.

use croft_tests::lab_host::LabHost;
use croft_tests::lab_host::machine::USB_SERIALS;

use crate::fleet::{READY, pool, request};
use crate::site::{BOOT, Site, guest, patiently};
use crate::table::{Lap, Row};

/// One for all of them: a guest takes the better part of a minute to come and go.
const GUEST: &str = "hot";

/// Whoever comes first starts it, and what it holds no more is no matter to the next.
async fn up(site: &Site) {
    if !site.is_there(GUEST).await {
        site.run(guest(GUEST)).await;
    }
    site.guest_says(GUEST, &[READY]).await;
}

pub async fn end(site: &Site) {
    if site.is_there(GUEST).await {
        site.remove(GUEST).await;
    }
}

/// Attached to a guest that runs; unplugged from the host and plugged in at another port; detached.
pub async fn usb(lab: &LabHost, site: &Site, row: &mut Row) {
    let before = lab.state();
    up(site).await;
    let mut lap = Lap::start();
    site.attach(GUEST, request(&pool("dongle"))).await;
    row.took("attach", &mut lap);
    site.guest_says(GUEST, &["lab-guest: + usb", USB_SERIALS[0]]).await;
    row.took("seen", &mut lap);
    let seen = site.console(GUEST).await.matches("lab-guest: + usb").count();

    // QEMU does not notice that it is gone: the agent tells the guest, and knows it again wherever it comes back.
    lab.unplug_usb(0);
    let gone = format!("! grep -qs {} /sys/bus/usb/devices/*/serial", USB_SERIALS[0]);
    lab.until(BOOT, "it is unplugged", &gone);
    site.guest_says(GUEST, &["lab-guest: - usb", USB_SERIALS[0]]).await;
    row.took("unplugged, and the guest saw it go", &mut lap);
    lab.plug_usb(0, 3);
    patiently("the guest sees it again", || async {
        let text = site.console(GUEST).await;
        if text.matches("lab-guest: + usb").count() > seen { Ok(()) } else { Err(text) }
    })
    .await;
    row.took("plugged in at another port, and the guest saw it", &mut lap);

    site.detach(GUEST, "dev").await;
    row.took("detach", &mut lap);
    lab.unplug_usb(0);
    lab.plug_usb(0, 1);
    // Its driver has it again, too.
    lab.until(BOOT, "the dongle is where it was", "test -e /sys/bus/usb/devices/1-1:1.0/driver");
    assert_eq!(lab.state(), before);
    row.note("back", "yes");
}

pub async fn function(lab: &LabHost, site: &Site, row: &mut Row) {
    let before = lab.state();
    up(site).await;
    let mut lap = Lap::start();
    site.attach(GUEST, request(&pool("nic-vf"))).await;
    row.took("attach", &mut lap);
    site.guest_says(GUEST, &["lab-guest: + pci", "8086:10ca"]).await;
    row.took("seen", &mut lap);
    site.detach(GUEST, "dev").await;
    row.took("detach", &mut lap);
    site.guest_says(GUEST, &["lab-guest: - pci", "8086:10ca"]).await;
    assert_eq!(lab.state(), before);
    row.took("back", &mut lap);
    site.remove(GUEST).await;
}
