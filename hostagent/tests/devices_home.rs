//! The way home of a device when something is in its way: tried again with patience, left alone where it is others' by now,
//! and never ended by anything but a look.

mod fake;

use std::time::Duration;

use croft_gpu_sim::faults::{self, Answer, Fault};
use croft_proto::agent::v1::HostPolicy;
use croft_proto::agent::v1::instance_observation::Phase;
use croft_proto::v1::DeviceLayout;
use croft_proto::v1::device::State;
use croft_proto::v1::gpu::Mode;
use fake::devices::{mig_backed, whole, with};
use fake::host::{Host, started, stopped};
use uuid::Uuid;

const GPU: &str = "0000:41:00.0";
const DISPLAY: &str = "0000:61:00.0";
const SOUND: &str = "0000:61:00.1";
const NVME: &str = "0000:a1:00.0";

fn foreign(id: &str) -> Option<HostPolicy> {
    let entry = DeviceLayout { device: id.to_owned(), gpu_mode: Mode::Foreign.into(), virtual_functions: 0 };
    Some(HostPolicy { layout_generation: 1, layout: vec![entry], ..HostPolicy::default() })
}

async fn slice(host: &Host) -> croft_proto::agent::v1::DesiredDevice {
    host.piece("gpu", GPU, mig_backed("H100XM-2-20C", "2g.20gb", (0, 2), 0)).await
}

/// A process that an agent which was killed had started works on it still (this one stands for it): nothing is done, nothing is in
/// doubt, and when that is at its end all goes on by itself.
#[tokio::test]
async fn what_an_agent_of_before_has_left_at_work_is_waited_for() {
    let host = Host::devbox().await;
    let directory = host.machine.as_ref().expect("machine").root().join("run/croft/devices");
    std::fs::create_dir_all(&directory).expect("directory");
    let at_work = || {
        let own = std::process::id();
        std::fs::write(directory.join(NVME), format!("{own}\n[]\n30\n")).expect("holder");
        let lock = std::fs::File::open(directory.join(NVME)).expect("lock");
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("lock");
        lock
    };
    let (lock, uid) = (at_work(), Uuid::now_v7());
    let before = host.tree();
    host.plane.upsert(with(uid, vec![host.piece("drive", NVME, whole).await]));
    let message = host.lacks(uid, "DeviceHeldOpen").await;
    assert!(message.contains(&format!("held by pid {} (", std::process::id())), "{message}");
    assert_eq!(host.tree(), before);
    host.device_is(NVME, State::Available).await;
    drop(lock);
    host.pass_until("it has its drive", async || {
        let seen = host.plane.observed(uid);
        if seen.attached_devices == ["drive"] { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    // On its way home it is to be reset first: it was not tried, so nobody says that it could not be cleaned.
    let lock = at_work();
    host.plane.bury(uid, true, 0);
    host.until_that(uid, "waits", |seen| seen.reason == "DeviceHeldOpen").await;
    drop(lock);
    host.pass_until("it is gone", async || {
        let seen = host.plane.observed(uid);
        if seen.phase() == Phase::Absent { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    host.device_is(NVME, State::Available).await;
}

/// Every try of a way home resets the device and writes down when. That is no reason to try again at once.
#[tokio::test]
async fn tries_of_a_way_home_keep_their_distance() {
    let host = Host::devbox().await;
    let root = host.machine.as_ref().expect("machine").root().to_owned();
    let uid = host.has(host.piece("drive", NVME, whole).await).await;
    // The way to its driver fails, the way back to where it was works, and so on.
    let fails =
        |skip| Fault { skip, times: Some(1), ..Fault::answer("write /sys/bus/pci/drivers_probe", Answer::Errno(5)) };
    faults::set(&root, &[0, 1, 1, 1, 1, 1, 1].map(fails)).expect("fault");
    host.plane.bury(uid, true, 0);
    host.until_that(uid, "waits", |seen| seen.reason == "DeviceStepFailed").await;
    // Less than the second that the next try waits for, in many small steps.
    for _ in 0..300 {
        host.clock.advance(Duration::from_millis(2));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let left: Vec<Fault> =
        serde_json::from_slice(&std::fs::read(root.join("run/croft-sim/faults.json")).expect("faults"))
            .expect("faults");
    let struck = left.iter().filter(|fault| fault.times == Some(0)).count();
    assert_eq!(struck, 1, "it was tried again and again");
    assert_ne!(host.device(NVME).await.state(), State::Quarantined);
    faults::set(&root, &[]).expect("no fault");
    host.goes(uid).await;
    host.device_is(NVME, State::Available).await;
}

/// As often as you like: what cannot be read is held until it can be.
#[tokio::test]
async fn a_device_that_cannot_be_read_is_not_let_go() {
    let host = Host::devbox().await;
    let before = host.tree();
    let uid = host.has(host.piece("drive", NVME, whole).await).await;
    let file = host.machine.as_ref().expect("machine").root().join(format!("sys/bus/pci/devices/{NVME}/vendor"));
    let vendor = std::fs::read(&file).expect("vendor");
    std::fs::write(&file, "nonsense\n").expect("garbage");
    host.agent_looks().await;
    host.device_is(NVME, State::Missing).await;
    host.plane.bury(uid, true, 0);
    let waits = host.until_that(uid, "waits", |seen| seen.reason == "DeviceNotSeen").await;
    assert!(waits.message.contains(NVME), "{}", waits.message);
    // Tries are a minute apart at the most.
    for _ in 0..10 {
        host.pass(61).await;
    }
    assert_ne!(host.plane.observed(uid).phase(), Phase::Absent);
    assert_eq!(host.device(NVME).await.state(), State::Missing, "no quarantine for want of a look");
    std::fs::write(&file, vendor).expect("as it was");
    host.goes(uid).await;
    host.device_is(NVME, State::Available).await;
    assert_eq!(host.tree(), before);
}

/// Virtual functions have other addresses when the firmware or a driver counts them in another way. A slice that was made before
/// that is one slice still.
#[tokio::test]
async fn a_slice_whose_function_has_another_address_has_one_life() {
    let mut host = Host::devbox().await;
    host.device_is(GPU, State::Available).await;
    let before = host.tree();
    let uid = host.has(slice(&host).await).await;
    let had = host.simulated.devices(uid);
    assert_eq!(had.len(), 1);
    // In the boot before it was at another one.
    let journal = host.directory.path().join("agent/journal/devices.json");
    host.reboots(
        |_| (),
        |_| {
            let text = std::fs::read_to_string(&journal).expect("journal");
            assert!(text.contains("0000:41:00.2"), "{text}");
            std::fs::write(&journal, text.replace("0000:41:00.2", "0000:41:0a.2")).expect("journal");
        },
    )
    .await;
    host.attached(uid).await;
    assert_eq!(host.simulated.devices(uid), had, "the definition names the function of now, and no other");
    let text = std::fs::read_to_string(&journal).expect("journal");
    assert!(!text.contains("0000:41:0a.2"), "what was is held no more");
    host.goes(uid).await;
    host.agent_looks().await;
    let of_boot = |tree: &str| tree.lines().filter(|line| !line.contains("boot_id")).collect::<Vec<_>>().join("\n");
    assert_eq!(of_boot(&host.tree()), of_boot(&before));
}

/// An operator leaves a GPU to others while an instance has a slice of it. The instance keeps that; what comes after it is
/// theirs, the mode of the GPU too.
#[tokio::test]
async fn the_mode_of_a_gpu_that_was_left_to_others_meanwhile_stays() {
    let host = Host::devbox().await;
    let uid = host.has(slice(&host).await).await;
    host.policy(foreign(GPU)).await;
    host.device_is(GPU, State::Foreign).await;
    host.plane.change(uid, stopped);
    host.until(uid, Phase::Off).await;
    host.plane.change(uid, started);
    host.attached(uid).await;
    let with_functions = |tree: &str| tree.lines().any(|line| line.contains("0000:41:00.2"));
    host.goes(uid).await;
    host.agent_looks().await;
    host.agent_looks().await;
    assert!(with_functions(&host.tree()), "nobody told the agent to change it");
    assert!(host.device_is(GPU, State::Foreign).await.functions_count > 0);
    // Once it is Croft's again, it goes back to what it was.
    host.policy(Some(HostPolicy { layout_generation: 2, ..HostPolicy::default() })).await;
    host.device_that(GPU, "is idle", |device| device.gpu.as_ref().is_some_and(|gpu| gpu.mode() == Mode::Idle)).await;
    assert!(!with_functions(&host.tree()));
}

/// Neither as what was asked for, nor as what goes along with it; but who has it keeps it.
#[tokio::test]
async fn what_is_left_to_others_is_not_given_whole() {
    let host = Host::devbox().await;
    let (display, sound) = (host.piece("display", DISPLAY, whole).await, host.device(SOUND).await);
    assert_eq!(sound.state(), State::Available);
    for id in [DISPLAY, SOUND] {
        host.policy(foreign(id)).await;
        host.device_is(id, State::Foreign).await;
        let before = host.tree();
        let uid = Uuid::now_v7();
        host.plane.upsert(with(uid, vec![display.clone()]));
        let message = host.lacks(uid, "DeviceForeign").await;
        assert!(message.contains(id), "{message}");
        assert_eq!(host.tree(), before);
        host.goes(uid).await;
    }
    host.policy(Some(HostPolicy { layout_generation: 2, ..HostPolicy::default() })).await;
    host.device_is(SOUND, State::Available).await;
    let uid = host.has(display).await;
    host.policy(foreign(SOUND)).await;
    host.agent_looks().await;
    host.plane.change(uid, stopped);
    host.until(uid, Phase::Off).await;
    host.plane.change(uid, started);
    host.attached(uid).await;
}

/// The driver of its GPU says nothing any more. The instance says which, why, and what helps; and that does help.
#[tokio::test]
async fn a_gpu_that_never_answers_again_can_be_taken_off_the_bus() {
    let host = Host::devbox().await;
    host.device_is(GPU, State::Available).await;
    let uid = host.has(slice(&host).await).await;
    let machine = host.machine.clone().expect("machine");
    faults::set(machine.root(), &[Fault::answer("nvmlInit_v2", Answer::Nvml(999))]).expect("fault");
    host.plane.bury(uid, true, 0);
    let message = host.lacks(uid, "DeviceNotSeen").await;
    for says in [GPU, "reboot the host", &format!("/sys/bus/pci/devices/{GPU}/remove")] {
        assert!(message.contains(says), "{message}");
    }
    for _ in 0..6 {
        host.pass(61).await;
    }
    assert_ne!(host.plane.observed(uid).phase(), Phase::Absent, "not seen is not free");
    machine.surprise_remove(GPU.parse().expect("address")).expect("removed");
    host.agent_looks().await;
    host.goes(uid).await;
    // Nobody gets it when it is back, before somebody has looked.
    let device = host.device_is(GPU, State::Quarantined).await;
    assert!(device.message.contains("vanished"), "{}", device.message);
    // Nor is anybody missed who was taken out for good.
    host.is_released(GPU, 1).await;
    // At the next look, if not at this one.
    host.pass_until("it is forgotten", async || {
        let known = host.reported().into_iter().any(|device| device.name.ends_with(GPU));
        if known { Err("it is still reported".to_owned()) } else { Ok(()) }
    })
    .await;
}
