//! The host goes down: by its plug, or because nothing else helps a device that hangs in the kernel.

use std::time::Duration;

use croft_proto::v1;
use croft_proto::v1::instance_status::State;
use croft_tests::lab_host::LabHost;
use croft_tests::lab_host::machine::{CARD, NIC};

use crate::fleet::{READY, guest_with, pool, request};
use crate::site::{Site, agent_log, guest, patiently};
use crate::table::{Lap, Row};

/// The plug is pulled. What was set up is set up again before any guest starts, and the guest has its device again.
pub async fn cut(lab: &mut LabHost, site: &Site, row: &mut Row) {
    let before = lab.state();
    let mut create = guest_with("cut", &pool("nic-vf"));
    let spec = create.instance.as_mut().and_then(|instance| instance.spec.as_mut()).expect("a spec");
    spec.devices.push(v1::DeviceRequest { id: "card".to_owned(), ..request(&pool("card")) });
    site.run(create).await;
    site.guest_says("cut", &[READY]).await;
    let there = lab.state();
    // What the first boot said must be told from what the second says: a power cut may take it along.
    lab.sh("sync /var/lib/croft/hostagent/console/*.log");
    let mut lap = Lap::start();
    lab.power_cut();
    row.took("power cut and up again", &mut lap);
    site.ready(lab).await;
    site.until("cut", State::Running).await;
    patiently("the guest has its devices again", || async {
        let text = site.console("cut").await;
        let boots = text.matches(READY).count();
        let last = text.rsplit(READY).nth(1).unwrap_or_default();
        let seen = ["8086:10ca", "8086:293e"].iter().all(|id| last.contains(id));
        if seen && boots > 1 { Ok(()) } else { Err(text) }
    })
    .await;
    row.took("the guest ran again with its devices", &mut lap);
    assert_eq!(lab.state(), there);

    // Of a guest that is stopped nothing has to let go: the card goes home at once, cleaned.
    site.stop("cut").await;
    lap.time();
    site.detach("cut", "card").await;
    row.took("the card taken from it while it was stopped", &mut lap);
    assert_ne!(lab.function(CARD).driver.as_deref(), Some("vfio-pci"));
    let card = site.device(&format!("hosts/lab/devices/{CARD}")).await;
    assert!(card.state() == v1::device::State::Available && card.last_reset.is_some_and(|reset| reset.clean));
    site.remove("cut").await;
    row.took("detach", &mut lap);
    assert_eq!(lab.state(), before);
    row.note("back", "yes");
}

/// A function of the card is in use by what nobody can see, and the host is told to make the card's functions go: the kernel
/// waits in that write for ever. The agent gives the helper up, says so, and can be killed; only a reboot ends it.
pub async fn stuck(lab: &mut LabHost, site: &Site, row: &mut Row) {
    let name = format!("hosts/lab/devices/{NIC}");
    let vf = lab.sh(&format!("basename $(readlink /sys/bus/pci/devices/{NIC}/virtfn0)"));
    let group = lab.sh(&format!("basename $(readlink /sys/bus/pci/devices/{vf}/iommu_group)"));
    lab.sh(&format!(
        "echo vfio-pci > /sys/bus/pci/devices/{vf}/driver_override; echo {vf} > /sys/bus/pci/drivers_probe"
    ));
    lab.sh(&format!("systemd-run -q --unit lab-hidden python3 /mnt/lab/vfio.py hide {group} {vf}"));
    lab.until(Duration::from_secs(60), "the function is in use", "journalctl -q -u lab-hidden | grep -q held");
    let mut lap = Lap::start();
    site.functions(Some(0)).await;
    let device = site.device_is(&name, v1::device::State::Stuck).await;
    row.took("given up", &mut lap);
    row.note("said", format!("{}: {}", device.reason, device.message));
    // It is as alive as ever, and dies as easily.
    lab.sh("systemctl kill -s KILL --kill-whom=main croft-hostagent");
    lab.until(Duration::from_secs(300), "another agent runs", "systemctl is-active -q croft-hostagent");
    site.ready(lab).await;
    row.took("the agent killed, and back", &mut lap);
    assert_eq!(site.device(&name).await.state(), v1::device::State::Stuck, "{}", agent_log(lab));
    site.run(guest("beside")).await;
    site.remove("beside").await;
    row.took("another guest came and went", &mut lap);
    lab.power_cut();
    site.ready(lab).await;
    site.device_is(&name, v1::device::State::Available).await;
    lab.until(Duration::from_secs(60), "no function is left", &format!("test ! -e /sys/bus/pci/devices/{NIC}/virtfn0"));
    row.took("rebooted, and well", &mut lap);
    site.functions(Some(2)).await;
    site.layout_is_so(lab).await;
}
