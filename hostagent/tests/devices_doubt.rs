//! What is not known for certain is not taken for free: looks that fail at the worst moment, cards that change while somebody
//! has them, functions that cannot be cleaned, a journal that cannot be read.

mod fake;

use std::path::PathBuf;
use std::process::Command;

use croft_gpu::Kernel;
use croft_gpu_sim::boards;
use croft_gpu_sim::faults::{self, Answer, Fault};
use croft_gpu_sim::kernel::{Process, SimKernel, UsbPlug};
use croft_proto::agent::v1::Tombstone;
use croft_proto::agent::v1::instance_observation::Phase;
use croft_proto::v1::device::State;
use fake::devices::{functions_of, mig_backed, usb, whole, with};
use fake::host::{Host, started, stopped};
use uuid::Uuid;

const GPU: &str = "0000:41:00.0";
const DISPLAY: &str = "0000:61:00.0";
const SOUND: &str = "0000:61:00.1";
const NIC: &str = "0000:81:00.0";
const NVME: &str = "0000:a1:00.0";
const DONGLE: &str = "usb-0000:00:14.0-1";

/// Another card in the slot, found after a reboot.
async fn swapped(host: &mut Host, slot: usize) {
    host.agent.kill();
    let machine = host.machine.clone().expect("machine");
    machine.change(|hardware| hardware.slots[slot].serial += 1000).expect("swap");
    host.simulated.host_reboot().expect("reboot");
    host.start_agent().await;
}

/// From its next start on the agent's helpers are run by a script: `lines` are done before, with the errand in `$2`.
fn by_script(host: &mut Host, lines: &str) {
    let directory = host.directory.path();
    let agent = env!("CARGO_BIN_EXE_croft-hostagent");
    let script = format!("#!/bin/sh\ncd {}\n{lines}\nexec {agent} \"$@\"\n", directory.display());
    let helper = directory.join("helper");
    // By another process: this one must not have it open when it is run.
    let mut write = Command::new("sh");
    write.args(["-c", "printf %s \"$1\" > \"$2\" && chmod 700 \"$2\"", "sh", &script]).arg(&helper);
    assert!(write.status().expect("sh").success());
    host.helpers.program = Some(helper);
}

/// An agent that sees nothing any more from its n-th step on, while `lose` is there.
struct Blindfold(PathBuf);

impl Blindfold {
    async fn around(host: &mut Host) -> Blindfold {
        let lines = "if [ \"$2\" = step ] && [ -e lose ]; then\n  read -r n < lose\n  if [ \"$n\" -le 1 ]; then : > blind; else echo \
                     $((n - 1)) > lose; fi\nfi\n[ \"$2\" = look ] && [ -e blind ] && exit 1";
        by_script(host, lines);
        host.agent.kill();
        host.start_agent().await;
        let directory = host.directory.path().to_owned();
        Blindfold(directory)
    }

    fn falls_at(&self, step: usize) {
        std::fs::write(self.0.join("lose"), format!("{step}\n")).expect("lose");
    }

    /// Answers whether it was on.
    fn off(&self) -> bool {
        std::fs::remove_file(self.0.join("lose")).expect("off");
        std::fs::remove_file(self.0.join("blind")).is_ok()
    }
}

/// A directory stands for the part of the hierarchy that systemd leaves to the agent. The kernel takes the dead off its lists:
/// here they do it themselves, beforehand.
#[tokio::test]
async fn every_helper_is_in_a_cgroup_of_its_own() {
    let mut host = Host::devbox().await;
    let cgroups = tempfile::tempdir().expect("tempdir");
    let find = format!("grep -slx $$ {}/device-helper-*/cgroup.procs", cgroups.path().display());
    let waits = format!("n=0; while ! procs=$({find}) && [ $n -lt 100 ]; do n=$((n + 1)); sleep 0.05; done");
    let says = "echo \"$2 $$ $(cat $procs </dev/null)\" >> errands; [ -z \"$procs\" ] || : > $procs";
    by_script(&mut host, &format!("{waits}\n{says}"));
    host.helpers.cgroups = Some(cgroups.path().to_owned());
    host.restart_agent().await;
    let uid = host.has(host.piece("drive", NVME, whole).await).await;
    host.goes(uid).await;
    let errands = std::fs::read_to_string(host.directory.path().join("errands")).expect("errands");
    for errand in ["nvidia", "look", "step", "events"] {
        let of_kind: Vec<Vec<&str>> = errands
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|words| words[0] == errand)
            .collect();
        assert!(!of_kind.is_empty(), "{errand}: {errands}");
        assert!(of_kind.iter().all(|words| words.len() == 3 && words[1] == words[2]), "{errand}: {of_kind:?}");
    }
}

#[tokio::test]
async fn a_look_that_fails_after_a_plan_forgets_nothing_of_the_hold() {
    let mut host = Host::devbox().await;
    let blindfold = Blindfold::around(&mut host).await;
    let slice = host.piece("gpu", GPU, mig_backed("H100XM-2-20C", "2g.20gb", (0, 2), 0)).await;
    let drive = host.piece("drive", NVME, whole).await;
    host.device_is(NVME, State::Available).await;
    let before = host.tree();
    for (device, step) in [(&drive, 1), (&slice, 1), (&slice, 4)] {
        blindfold.falls_at(step);
        let uid = Uuid::now_v7();
        host.plane.upsert(with(uid, vec![device.clone()]));
        host.lacks(uid, "DevicesUnseen").await;
        host.plane.bury(uid, true, 0);
        let waits = |seen: &croft_proto::agent::v1::InstanceObservation| seen.reason == "DevicesUnseen";
        assert_ne!(host.until_that(uid, "waits", waits).await.phase(), Phase::Absent);
        assert!(blindfold.off(), "step {step} was never reached");
        host.goes(uid).await;
        assert_eq!(host.tree(), before, "step {step} of {}", device.device);
    }
}

/// What its last guest left is there, whether or not the agent lived to see it go home.
#[tokio::test]
async fn what_no_reset_can_clean_is_doubted_before_it_goes_home() {
    let mut host = Host::devbox().await;
    let blindfold = Blindfold::around(&mut host).await;
    let uid = host.has(host.piece("drive", NVME, whole).await).await;
    let kernel = SimKernel::at(host.machine.as_ref().expect("machine").root());
    kernel.write(&format!("/sys/bus/pci/devices/{NVME}/reset_method"), "\n").expect("no reset");
    blindfold.falls_at(1);
    host.goes(uid).await;
    assert!(blindfold.off());
    assert_eq!(host.device_is(NVME, State::Quarantined).await.reason, "DeviceNotCleaned");
}

/// A companion keeps nothing that matters; what was asked for may.
#[tokio::test]
async fn a_function_that_was_asked_for_must_be_cleaned_whatever_its_number() {
    let host = Host::devbox().await;
    host.device_is(SOUND, State::Available).await;
    let uid = host.has(host.piece("sound", SOUND, whole).await).await;
    host.goes(uid).await;
    assert_eq!(host.device_is(SOUND, State::Quarantined).await.reason, "DeviceNotCleaned");
    // It goes along with the display, and would take its doubt there.
    let uid = Uuid::now_v7();
    host.plane.upsert(with(uid, vec![host.piece("display", DISPLAY, whole).await]));
    assert!(host.lacks(uid, "DeviceNotCleaned").await.contains(SOUND));
}

#[tokio::test]
async fn nothing_is_written_to_a_card_that_is_another_now() {
    let mut host = Host::devbox().await;
    host.device(NIC).await;
    let nothing_made = host.tree().lines().filter(|line| line.contains("0000:81:10")).count();
    let uid = host.has(host.piece("drive", NVME, whole).await).await;
    host.policy(functions_of(NIC, 4)).await;
    host.device_is("0000:81:10.2", State::Available).await;
    host.agent.kill();
    let machine = host.machine.clone().expect("machine");
    machine.change(|hardware| hardware.slots[2].serial += 1000).expect("swap");
    swapped(&mut host, 3).await;
    host.device_is(NIC, State::Changed).await;
    host.device_is(NVME, State::Changed).await;
    let before = host.tree();
    assert_eq!(before.lines().filter(|line| line.contains("0000:81:10")).count(), nothing_made, "no layout for it");
    host.goes(uid).await;
    host.agent_looks().await;
    assert_eq!(host.tree(), before);
    // What was to be done for the old one is not done to this one either.
    host.is_released(NVME, 1).await;
    host.device_is(NVME, State::Available).await;
    assert_eq!(host.tree(), before);
}

#[tokio::test]
async fn a_driver_that_does_not_answer_for_a_while_lets_nothing_go() {
    let host = Host::devbox().await;
    host.device_is(GPU, State::Available).await;
    let before = host.tree();
    let uid = host.has(host.piece("gpu", GPU, mig_backed("H100XM-2-20C", "2g.20gb", (0, 2), 0)).await).await;
    let root = host.machine.as_ref().expect("machine").root().to_owned();
    faults::set(&root, &[Fault { times: Some(1000), ..Fault::answer("nvmlInit_v2", Answer::Nvml(999)) }])
        .expect("fault");
    host.plane.bury(uid, true, 0);
    // As often as it would have been tried in vain.
    host.pass_until("many looks", async || {
        let left = std::fs::read_to_string(root.join("run/croft-sim/faults.json")).expect("faults");
        let left: Vec<Fault> = serde_json::from_str(&left).map_err(|error| error.to_string())?;
        if left[0].times < Some(970) { Ok(()) } else { Err(format!("{:?}", left[0].times)) }
    })
    .await;
    assert_ne!(host.plane.observed(uid).phase(), Phase::Absent);
    faults::set(&root, &[]).expect("no fault");
    host.goes(uid).await;
    host.agent_looks().await;
    host.device_is(GPU, State::Available).await;
    assert_eq!(host.tree(), before);
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_frees_nothing_and_can_be_put_right() {
    let mut host = Host::devbox().await;
    host.device_is(NVME, State::Available).await;
    let before = host.tree();
    let uid = host.has(host.piece("drive", NVME, whole).await).await;
    host.agent.kill();
    let file = host.directory.path().join("agent/journal/devices.json");
    let whole_file = std::fs::read(&file).expect("journal");
    std::fs::write(&file, "{ half").expect("damage");
    host.start_agent().await;
    assert_eq!(host.device_is(NVME, State::Quarantined).await.reason, "JournalCorrupt");
    host.lacks(uid, "JournalCorrupt").await;
    host.policy(functions_of(NIC, 4)).await;
    host.plane.bury(uid, true, 0);
    let waits = host.until_that(uid, "waits", |seen| seen.reason == "JournalCorrupt").await;
    assert_ne!(waits.phase(), Phase::Absent);
    assert_eq!(std::fs::read_to_string(&file).expect("journal"), "{ half");
    host.agent.kill();
    std::fs::write(&file, whole_file).expect("put right");
    host.plane.set_policy(None);
    host.start_agent().await;
    host.goes(uid).await;
    assert_eq!(host.tree(), before);
}

/// A GPU with its guest does not say who it is; that is known all the same.
#[tokio::test]
async fn a_release_of_what_nobody_doubts_changes_nothing() {
    let host = Host::devbox().await;
    let known = host.device_is(GPU, State::Available).await;
    let uid = host.has(host.piece("gpu", GPU, whole).await).await;
    host.is_released(GPU, 1).await;
    host.agent_looks().await;
    assert_eq!(host.device_is(GPU, State::InUse).await.serial, known.serial);
    host.plane.change(uid, stopped);
    host.until(uid, Phase::Off).await;
    host.plane.change(uid, started);
    host.attached(uid).await;
}

#[tokio::test]
async fn a_stick_has_one_name_wherever_it_is_plugged_in() {
    let host = Host::devbox().await;
    let machine = host.machine.clone().expect("machine");
    host.device_is(DONGLE, State::Available).await;
    let plug = |port: &str, serial| UsbPlug::new(port, &boards::usb::LICENCE_DONGLE, Some(serial));
    machine.usb_unplug("1-1").expect("unplug");
    machine.usb_plug(plug("1-7", "DONGLE-0001")).expect("plug");
    let moved = "usb-0000:00:14.0-7";
    assert_eq!(host.device_is(moved, State::Available).await.serial, "DONGLE-0001");
    assert!(host.reported().iter().all(|device| !device.name.ends_with(DONGLE)), "one device has one name");
    // Another one in its old place is that one.
    machine.usb_plug(plug("1-1", "DONGLE-0009")).expect("plug");
    assert_eq!(host.device_is(DONGLE, State::Available).await.serial, "DONGLE-0009");
    let uid = host.has(host.piece("hsm", DONGLE, usb).await).await;
    host.goes(uid).await;
}

/// The listener has the driver open. One that cannot be killed must not take the agent along.
#[tokio::test]
async fn a_listener_that_hangs_keeps_nobody_but_the_gpus_waiting() {
    let mut host = Host::devbox().await;
    host.agent.kill();
    host.helpers.kill = Some(|_| Ok(()));
    host.start_agent().await;
    host.agent_looks().await;
    let (gpu, drive) = (host.piece("gpu", GPU, whole).await, host.piece("drive", NVME, whole).await);
    let uid = Uuid::now_v7();
    host.plane.upsert(with(uid, vec![gpu]));
    assert!(host.lacks(uid, "DeviceStuck").await.contains("listened to the GPUs"));
    host.goes(host.has(drive).await).await;
    host.goes(uid).await;
}

#[tokio::test]
async fn a_card_in_quarantine_gives_no_functions_away() {
    let host = Host::devbox().await;
    let uid = host.has(host.piece("nic", NIC, whole).await).await;
    let kernel = SimKernel::at(host.machine.as_ref().expect("machine").root());
    kernel.write(&format!("/sys/bus/pci/devices/{NIC}/reset_method"), "\n").expect("no reset");
    host.goes(uid).await;
    host.device_is(NIC, State::Quarantined).await;
    let before = host.tree();
    host.policy(functions_of(NIC, 4)).await;
    host.pass_until("the layout says so", async || {
        let told = host.plane.lock().host.clone().unwrap_or_default();
        let problem = told.layout_problems.first().is_some_and(|problem| problem.contains("last guest"));
        if problem { Ok(()) } else { Err(format!("{:?}", told.layout_problems)) }
    })
    .await;
    assert_eq!(host.tree(), before);
    host.is_released(NIC, 1).await;
    host.policy(functions_of(NIC, 4)).await;
    host.device_is("0000:81:10.2", State::Available).await;
}

/// What was fenced cannot run any more; that its device does not come home is a matter of that device.
#[tokio::test]
async fn a_fence_does_not_wait_for_devices() {
    let mut host = Host::devbox().await;
    let uid = host.has(host.piece("drive", NVME, whole).await).await;
    host.synced().await;
    let machine = host.machine.clone().expect("machine");
    host.agent.kill();
    {
        let mut plane = host.plane.lock();
        plane.epoch = 2;
        plane.instances.clear();
        let tombstone = Tombstone { uid: uid.to_string(), force: true, ..Tombstone::default() };
        plane.tombstones.insert(uid.to_string(), tombstone);
        (plane.sync_done, plane.host) = (None, None);
    }
    host.plane.cut();
    // Somebody else has it open when its guest is gone.
    machine.open_vfio(&Process::new(4711, "qemu-stray", "user.slice"), NVME).expect("open");
    host.start_agent().await;
    host.pass_until("the fence is through", async || match host.plane.lock().sync_done {
        Some((2, _)) => Ok(()),
        done => Err(format!("{done:?}")),
    })
    .await;
    host.until_that(uid, "waits", |seen| seen.reason == "DeviceHeldOpen" && seen.phase() != Phase::Absent).await;
    assert!(host.simulated.running().is_empty());
    host.device_is(NVME, State::InUse).await;
    machine.end(4711).expect("end");
    host.goes(uid).await;
}
