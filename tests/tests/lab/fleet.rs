//! The lab host as a member of a fleet: its agent under systemd, the control plane outside, guests under nested KVM that tell
//! what they see. Every path by which a guest can be given a device, there and back.

use croft_proto::v1;
use croft_proto::v1::instance_status::State;
use croft_tests::lab_host::LabHost;
use croft_tests::lab_host::machine::{BESIDE_NIC, CARD, DISPLAY, NIC, NVME, PEER_NIC, USB_IDS, USB_SERIALS};

use crate::deaths;
use crate::shared::lab;
use crate::site::{Site, guest, patiently};
use crate::table::{Lap, Row, Table};

/// What a guest says when it told of all that it saw first.
pub const READY: &str = "lab-guest: ready";

/// A path: what is asked for, and what the guest then says.
struct Path {
    name: &'static str,
    ask: v1::device_request::Wanted,
    sees: &'static [&'static [&'static str]],
    /// Whose reset is told, where it is known beforehand.
    device: Option<&'static str>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_every_device_path_there_and_back() {
    let Some(mut lab) = lab() else { return };
    let site = Site::start(&lab).await;
    let mut table = Table::default();
    table.row("plain guest", async |row| plain(&lab, &site, row).await).await;
    // Everything after this needs devices.
    prepare(&lab, &site).await;
    for path in paths() {
        table.row(path.name, async |row| there_and_back(&lab, &site, &path, row).await).await;
        if lab.started_by_itself() {
            table.note("the emulated machine started anew by itself meanwhile, and Croft went on");
        }
    }
    table.row("hot: USB by serial number", async |row| hot_usb(&lab, &site, row).await).await;
    table.row("hot: NIC function", async |row| hot_function(&lab, &site, row).await).await;
    table.row("refused: a peer of the host's", async |row| peer_in_the_way(&site, row).await).await;
    table.row("refused: somebody has it open", async |row| held_open(&lab, &site, row).await).await;
    table.row("host rebooted", async |row| rebooted(&mut lab, &site, row).await).await;
    table.row("agent killed at steps", async |row| deaths::at_steps(&lab, &site, row).await).await;
    table.close();
}

fn paths() -> [Path; 6] {
    let vgpu = v1::device_request::Vgpu { r#type: "mbochs-small".to_owned() };
    [
        Path { name: "NIC virtual function", ask: pool("nic-vf"), sees: &[&["8086:10ca"]], device: None },
        Path { name: "NVMe drive", ask: pool("nvme"), sees: &[&["1b36:0010"]], device: Some(NVME) },
        Path { name: "display (whole GPU)", ask: pool("display"), sees: &[&["1234:1111"]], device: Some(DISPLAY) },
        Path {
            name: "card of two functions",
            ask: pool("card"),
            sees: &[&["1234:1111"], &["8086:293e"]],
            device: Some(CARD),
        },
        Path { name: "mdev vGPU", ask: v1::device_request::Wanted::Vgpu(vgpu), sees: &[&["1234:1111"]], device: None },
        Path { name: "USB device", ask: pool("dongle"), sees: &[&["usb", USB_IDS, USB_SERIALS[0]]], device: None },
    ]
}

pub fn pool(id: &str) -> v1::device_request::Wanted {
    v1::device_request::Wanted::Pool(v1::device_request::PoolDevice { pool: format!("pools/{id}") })
}

pub fn request(ask: &v1::device_request::Wanted) -> v1::DeviceRequest {
    v1::DeviceRequest { id: "dev".to_owned(), wanted: Some(ask.clone()), ..Default::default() }
}

pub fn guest_with(id: &str, ask: &v1::device_request::Wanted) -> v1::CreateInstanceRequest {
    let mut create = guest(id);
    let spec = create.instance.as_mut().and_then(|instance| instance.spec.as_mut()).expect("a spec");
    spec.devices = vec![request(ask)];
    create
}

async fn plain(lab: &LabHost, site: &Site, row: &mut Row) {
    let info = site.api.host("lab").await.info.expect("what the host says of itself");
    assert_eq!(info.domain_type, "kvm", "{}", info.domain_type_reason);
    assert!(info.probe_errors.is_empty(), "{:?}", info.probe_errors);
    let mut lap = Lap::start();
    site.run(guest("plain")).await;
    row.took("attach", &mut lap);
    site.guest_says("plain", &[READY]).await;
    row.took("seen", &mut lap);
    site.remove("plain").await;
    row.took("detach", &mut lap);
    assert_eq!(lab.sh("virsh -q list --all --name"), "");
}

/// Virtual functions by the host's layout, pools of what is alike, and the tenant's grants.
async fn prepare(lab: &LabHost, site: &Site) {
    let layout = v1::HostLayout {
        name: "hosts/lab/layout".to_owned(),
        devices: vec![v1::DeviceLayout { device: NIC.to_owned(), virtual_functions: 2, ..Default::default() }],
        ..Default::default()
    };
    let request = v1::SetHostLayoutRequest { layout: Some(layout), ..Default::default() };
    site.api.hosts.clone().set_host_layout(request).await.expect("a layout");
    patiently("the host has its two functions", || async {
        let request = v1::GetHostLayoutRequest { name: "hosts/lab/layout".to_owned() };
        let layout = site.api.hosts.clone().get_host_layout(request).await.expect("a layout").into_inner();
        if layout.settled { Ok(()) } else { Err((layout.problems, crate::site::agent_log(lab))) }
    })
    .await;
    let device = |address: &str| vec![format!("hosts/lab/devices/{address}")];
    let ids = |id: &str| vec![id.to_owned()];
    let dongle = site.usb(USB_SERIALS[0]).await.name;
    for (id, kind, ids, devices) in [
        ("nic-vf", v1::device::Kind::VirtualFunction, ids("8086:10ca"), vec![]),
        ("nvme", v1::device::Kind::Function, vec![], device(NVME)),
        ("display", v1::device::Kind::Function, vec![], device(DISPLAY)),
        ("card", v1::device::Kind::Function, vec![], device(CARD)),
        ("beside-nic", v1::device::Kind::Function, vec![], device(BESIDE_NIC)),
        ("dongle", v1::device::Kind::Usb, vec![], vec![dongle]),
    ] {
        let r#match = v1::pool::Match { kind: kind.into(), ids, devices, ..Default::default() };
        let pool = v1::Pool { r#match: Some(r#match), ..Default::default() };
        let request = v1::CreatePoolRequest { pool_id: id.to_owned(), pool: Some(pool), ..Default::default() };
        site.api.pools.clone().create_pool(request).await.expect("a pool");
        site.api.quota(crate::site::TENANT, &format!("devices/{id}"), 2).await;
    }
    site.api.quota(crate::site::TENANT, "gpu_slices/mbochs/mbochs-small", 2).await;
}

async fn there_and_back(lab: &LabHost, site: &Site, path: &Path, row: &mut Row) {
    let before = lab.state();
    let mut lap = Lap::start();
    site.run(guest_with("dev", &path.ask)).await;
    row.took("attach", &mut lap);
    for words in path.sees {
        site.guest_says("dev", &[&["lab-guest: +"], *words].concat()).await;
    }
    row.took("seen", &mut lap);
    let assigned = site.instance("dev").await.devices;
    let [assignment] = &assigned[..] else { panic!("{assigned:?}") };
    let device = assignment.device.clone();
    assert!(path.device.is_none_or(|address| device.ends_with(address)), "{device}");
    lap.time();
    site.remove("dev").await;
    row.took("detach", &mut lap);
    assert_eq!(lab.state(), before, "{}", crate::site::agent_log(lab));
    row.took("back", &mut lap);
    let device = site.device(&device).await;
    assert_eq!(device.state(), v1::device::State::Available, "{device:?}");
    let reset = device.last_reset.map(|reset| {
        assert!(reset.clean, "{reset:?}");
        if reset.method.is_empty() { reset.message } else { reset.method }
    });
    row.note("reset", reset.unwrap_or_else(|| "none recorded".to_owned()));
}

/// Attached to a guest that runs; unplugged from the host and plugged in at another port; detached.
async fn hot_usb(lab: &LabHost, site: &Site, row: &mut Row) {
    let before = lab.state();
    site.run(guest("hot-usb")).await;
    site.guest_says("hot-usb", &[READY]).await;
    let mut lap = Lap::start();
    site.attach("hot-usb", request(&pool("dongle"))).await;
    row.took("attach", &mut lap);
    site.guest_says("hot-usb", &["lab-guest: + usb", USB_SERIALS[0]]).await;
    row.took("seen", &mut lap);
    let seen = site.console("hot-usb").await.matches("lab-guest: + usb").count();

    // QEMU does not notice that it is gone; the agent knows it again wherever it comes back.
    lab.unplug_usb(0);
    let gone = format!("! grep -qs {} /sys/bus/usb/devices/*/serial", USB_SERIALS[0]);
    lab.until(crate::site::BOOT, "it is unplugged", &gone);
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
    lab.until(crate::site::BOOT, "the dongle is where it was", "test -e /sys/bus/usb/devices/1-1:1.0/driver");
    assert_eq!(lab.state(), before);
    row.note("back", "yes");
    site.remove("hot-usb").await;
}

async fn hot_function(lab: &LabHost, site: &Site, row: &mut Row) {
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

/// What shares its group with something that the host may live on is no candidate, and the culprit is named.
async fn peer_in_the_way(site: &Site, row: &mut Row) {
    let device = site.device(&format!("hosts/lab/devices/{BESIDE_NIC}")).await;
    assert_eq!(device.state(), v1::device::State::Unusable, "{device:?}");
    assert!(device.message.contains(PEER_NIC) && device.message.contains("e1000e"), "{}", device.message);
    let refused = site.api.create_as(guest_with("no", &pool("beside-nic"))).await.expect_err("nothing to give");
    row.note("said", format!("{}: {}", device.reason, refused.message()));
}

/// A process of the host's own has the device open: the guest waits, the process and its unit are named, and when it lets go
/// the guest starts by itself.
async fn held_open(lab: &LabHost, site: &Site, row: &mut Row) {
    let before = lab.state();
    lab.keep_open("lab-viewer", DISPLAY);
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

/// The plug is pulled. What was set up is set up again before any guest starts, and the guest has its device again.
async fn rebooted(lab: &mut LabHost, site: &Site, row: &mut Row) {
    let before = lab.state();
    let mut create = guest_with("cut", &pool("nic-vf"));
    let spec = create.instance.as_mut().and_then(|instance| instance.spec.as_mut()).expect("a spec");
    spec.devices.push(v1::DeviceRequest { id: "card".to_owned(), ..request(&pool("card")) });
    site.run(create).await;
    site.guest_says("cut", &[READY]).await;
    let there = lab.state();
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
    site.remove("cut").await;
    row.took("detach", &mut lap);
    assert_eq!(lab.state(), before);
    row.note("back", "yes");
}
