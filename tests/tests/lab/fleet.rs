//! The lab host as a member of a fleet: its agent under systemd, the control plane outside, guests under nested KVM that tell
//! what they see. Every path by which a guest can be given a device, there and back.

use croft_proto::v1;
use croft_tests::lab_host::LabHost;
use croft_tests::lab_host::machine::{BESIDE_NIC, CARD, DISPLAY, NVME, USB_IDS, USB_SERIALS};

use crate::shared::lab;
use crate::site::{Site, guest};
use crate::table::{Lap, Row, Table};
use crate::{deaths, hot, power, refused};

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
    let bare = lab.state();
    let site = Site::start(&lab).await;
    let mut table = Table::new(lab.witness());
    table.row("plain guest", async |row| plain(&lab, &site, row).await).await;
    // Everything after this needs devices.
    prepare(&lab, &site).await;
    for path in paths() {
        if !table.row(path.name, async |row| there_and_back(&lab, &site, &path, row).await).await {
            site.clear().await;
        }
        if lab.started_by_itself() {
            table.note("the emulated machine started anew by itself meanwhile, and Croft went on");
        }
    }
    table.row("hot: USB by serial number", async |row| hot::usb(&lab, &site, row).await).await;
    table.row("hot: NIC function", async |row| hot::function(&lab, &site, row).await).await;
    hot::end(&site).await;
    table.row("refused: a peer of the host's", async |row| refused::peer_in_the_way(&site, row).await).await;
    table.row("refused: somebody has it open", async |row| refused::held_open(&lab, &site, row).await).await;
    table.row("refused: its serial line is in use", async |row| refused::serial_line(&lab, &site, row).await).await;
    table.row("refused: the card is down", async |row| refused::card_down(&lab, &site, row).await).await;
    table.row("host rebooted", async |row| power::cut(&mut lab, &site, row).await).await;
    table.row("agent killed at steps", async |row| deaths::at_steps(&lab, &site, row).await).await;
    if deaths::are_long() {
        table.row("a write that hangs", async |row| power::stuck(&mut lab, &site, row).await).await;
    }
    table.last("left as it was found", async |row| leave(&lab, &site, &bare, row).await).await;
    println!("lab: the emulator lost {} interrupts", lab.lost_interrupts());
    println!("lab: {} boots of guests were tried again", site.silent_boots());
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
    site.functions(Some(2)).await;
    site.layout_is_so(lab).await;
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

/// The agent goes, and with it its layout: whoever comes next has the host for themselves.
async fn leave(lab: &LabHost, site: &Site, bare: &str, row: &mut Row) {
    site.functions(None).await;
    site.layout_is_so(lab).await;
    lab.sh("systemctl disable -q --now croft-hostagent");
    assert_eq!(lab.state(), bare);
    row.note("back", "yes");
}
