//! Which card it is, whatever its address says: a layout is for the hardware that it was made for, a card that does not say who
//! it is after a reboot gets nothing done to it, and one that only sits elsewhere needs nobody's word.

mod fake;

use croft_gpu_sim::kernel::SimHost;
use croft_proto::agent::v1::instance_observation::Phase;
use croft_proto::agent::v1::{DeviceRelease, HostPolicy};
use croft_proto::v1::DeviceLayout;
use croft_proto::v1::device::State;
use croft_proto::v1::gpu::Mode;
use fake::devices::{functions_of, whole, with};
use fake::eventually;
use fake::host::{Host, started, stopped};
use uuid::Uuid;

const GPU: &str = "0000:41:00.0";
const NIC: &str = "0000:81:00.0";
const NVME: &str = "0000:a1:00.0";
/// Where each is in the machine's list of slots.
const SLOT_OF_GPU: usize = 0;
const SLOT_OF_NIC: usize = 2;
const SLOT_OF_NVME: usize = 3;
const FUNCTION: &str = "0000:81:10.2";

async fn problem(host: &Host, says: &str) -> String {
    eventually(says, async || {
        let told = host.plane.lock().host.clone().unwrap_or_default();
        let problem = told.layout_problems.iter().find(|problem| problem.contains(says));
        problem.cloned().ok_or_else(|| format!("{:?}", told.layout_problems))
    })
    .await
}

fn is_reported(host: &Host, id: &str) -> bool {
    host.reported().iter().any(|device| device.name.ends_with(id))
}

/// Its configuration space ends where conventional PCI did: without the serial number.
fn silence(machine: &SimHost, id: &str, whole: Option<&[u8]>) -> Vec<u8> {
    let path = machine.root().join(format!("sys/bus/pci/devices/{id}/config"));
    let config = std::fs::read(&path).expect("config");
    std::fs::write(path, whole.unwrap_or(&config[..256])).expect("config");
    config
}

#[tokio::test]
async fn a_layout_is_not_for_another_card_in_the_same_place() {
    let mut host = Host::devbox().await;
    host.policy(functions_of(NIC, 4)).await;
    host.device_is(FUNCTION, State::Available).await;
    let old = host.device(NIC).await.serial;
    assert_ne!(old, "");
    let mut slot = None;
    host.reboots(|hardware| slot = Some(hardware.slots.remove(SLOT_OF_NIC)), |_| ()).await;
    host.device_is(NIC, State::Missing).await;
    // Nobody misses the old one, and the layout still names its address.
    let mut policy = functions_of(NIC, 4).expect("a policy");
    policy.releases = vec![DeviceRelease { device: NIC.to_owned(), counter: 1 }];
    host.policy(Some(policy.clone())).await;
    eventually("it is forgotten", async || if is_reported(&host, NIC) { Err("not yet".to_owned()) } else { Ok(()) })
        .await;

    let mut slot = slot.expect("a card");
    slot.serial += 1000;
    host.reboots(|hardware| hardware.slots.push(slot), |_| ()).await;
    let new = host.device_is(NIC, State::Available).await.serial;
    let message = problem(&host, "was made for").await;
    assert!(message.contains(NIC) && message.contains(&old) && message.contains(&new), "{message}");
    host.agent_looks().await;
    assert!(!is_reported(&host, FUNCTION), "functions on a card that nobody laid out");
    // Somebody's word.
    policy.releases[0].counter = 2;
    host.policy(Some(policy)).await;
    host.device_is(FUNCTION, State::Available).await;
}

/// The same after a plain swap: the mark names both.
#[tokio::test]
async fn a_swapped_card_gets_no_layout_and_both_are_named() {
    let mut host = Host::devbox().await;
    host.policy(functions_of(NIC, 4)).await;
    host.device_is(FUNCTION, State::Available).await;
    let old = host.device(NIC).await.serial;
    host.reboots(|hardware| hardware.slots[SLOT_OF_NIC].serial += 1000, |_| ()).await;
    host.device_is(NIC, State::Changed).await;
    let message = problem(&host, "was remembered").await;
    assert!(message.matches(" (").count() == 2 && message.contains(&old), "{message}");
    assert!(!is_reported(&host, FUNCTION));
}

/// The layout leaves a GPU to others, and the buses are counted anew: it is left to them where it is now.
#[tokio::test]
async fn a_card_that_the_layout_names_is_not_given_away_by_another_name() {
    let mut host = Host::devbox().await;
    host.device_is(GPU, State::Available).await;
    let entry = DeviceLayout { device: GPU.to_owned(), gpu_mode: Mode::Foreign.into(), virtual_functions: 0 };
    let policy = HostPolicy { layout_generation: 1, layout: vec![entry], ..HostPolicy::default() };
    host.policy(Some(policy)).await;
    host.device_is(GPU, State::Foreign).await;
    host.reboots(|hardware| hardware.slots[SLOT_OF_GPU].bus = 0x51, |_| ()).await;
    let now = "0000:51:00.0";
    let device = host.device_is(now, State::Changed).await;
    assert!(device.message.contains(&format!("was known as {GPU}")), "{}", device.message);
    let before = host.tree();
    let uid = Uuid::now_v7();
    host.plane.upsert(with(uid, vec![host.piece("gpu", now, whole).await]));
    host.lacks(uid, "DeviceChanged").await;
    assert_eq!(host.tree(), before);
}

#[tokio::test]
async fn a_card_that_nobody_has_goes_by_its_new_name_alone() {
    let mut host = Host::devbox().await;
    let serial = host.device_is(NVME, State::Available).await.serial;
    assert_ne!(serial, "");
    host.reboots(|hardware| hardware.slots[SLOT_OF_NVME].bus = 0xb1, |_| ()).await;
    assert_eq!(host.device_is("0000:b1:00.0", State::Available).await.serial, serial);
    assert!(!is_reported(&host, NVME), "one device has one name");
    // The same card behind another port of the board, at the same address.
    host.reboots(|hardware| hardware.slots[SLOT_OF_NVME].port = 2, |_| ()).await;
    host.device_is("0000:b1:00.0", State::Available).await;
}

/// One that somebody has is his, by the name that he has it by.
#[tokio::test]
async fn a_card_that_somebody_has_is_not_given_to_another_by_its_new_name() {
    let mut host = Host::devbox().await;
    let uid = host.has(host.piece("drive", NVME, whole).await).await;
    host.reboots(|hardware| hardware.slots[SLOT_OF_NVME].bus = 0xb1, |_| ()).await;
    host.device_is("0000:b1:00.0", State::Changed).await;
    host.device_is(NVME, State::Missing).await;
    host.lacks(uid, "DeviceMissing").await;
}

#[tokio::test]
async fn a_card_that_has_not_said_who_it_is_since_the_boot_is_not_touched() {
    let mut host = Host::devbox().await;
    let uid = host.has(host.piece("drive", NVME, whole).await).await;
    // With its guest it cannot say it, and need not: the machine was on all the time.
    silence(host.machine.as_ref().expect("machine"), NVME, None);
    host.restart_agent().await;
    host.agent_looks().await;
    host.attached(uid).await;
    host.plane.change(uid, stopped);
    host.until(uid, Phase::Off).await;
    host.plane.change(uid, started);
    host.attached(uid).await;

    let mut config = Vec::new();
    host.reboots(|_| (), |machine| config = silence(machine, NVME, None)).await;
    let message = host.lacks(uid, "DeviceUnproven").await;
    assert!(message.contains(NVME) && message.contains("croft device release"), "{message}");
    let of_drive = |tree: &str| tree.lines().filter(|line| line.contains(NVME)).map(str::to_owned).collect::<Vec<_>>();
    assert!(of_drive(&host.tree()).iter().all(|line| !line.contains("vfio-pci")), "{:?}", of_drive(&host.tree()));
    silence(host.machine.as_ref().expect("machine"), NVME, Some(&config));
    host.agent_looks().await;
    host.pass_until(
        "it runs",
        async || {
            if host.simulated.running() == [uid] { Ok(()) } else { Err("not yet".to_owned()) }
        },
    )
    .await;
    host.attached(uid).await;

    // Or somebody knows. The card that nobody has is told of in the same words.
    host.goes(uid).await;
    host.reboots(|_| (), |machine| drop(silence(machine, NVME, None))).await;
    assert_eq!(host.device_is(NVME, State::Unusable).await.reason, "DeviceUnproven");
    host.is_released(NVME, 1).await;
    host.device_is(NVME, State::Available).await;
}

/// A word about a card that nobody sees is none about the one that comes in its place.
#[tokio::test]
async fn a_release_of_a_card_that_is_gone_proves_nothing_of_what_comes_back() {
    let mut host = Host::devbox().await;
    let uid = host.has(host.piece("drive", NVME, whole).await).await;
    let shown = host.machine.as_ref().expect("machine").root().join(format!("sys/bus/pci/devices/{NVME}"));
    let hidden = host.directory.path().join("hidden");
    host.reboots(
        |_| (),
        |machine| {
            silence(machine, NVME, None);
            std::fs::rename(&shown, &hidden).expect("hide");
        },
    )
    .await;
    host.device_is(NVME, State::Missing).await;
    host.is_released(NVME, 1).await;
    let journal = host.directory.path().join("agent/journal/devices.json");
    eventually("the release is carried out", async || {
        let text = std::fs::read_to_string(&journal).expect("journal");
        let journal: serde_json::Value = serde_json::from_str(&text).expect("journal");
        if journal["releases"][NVME] == 1 { Ok(()) } else { Err(text) }
    })
    .await;
    std::fs::rename(&hidden, &shown).expect("show");
    host.agent_looks().await;
    host.lacks(uid, "DeviceUnproven").await;
}
