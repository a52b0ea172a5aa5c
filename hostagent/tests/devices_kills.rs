//! The agent's process is killed at every point of a hold, a layout, a reboot's replay and a give-back, and started again: the same
//! layout comes back, and at the end the machine is as it was.
//!
//! Every point in the long trials, and otherwise some of them, others each time. One machine serves all points of a test: each
//! trial must leave it as it found it anyway.

mod fake;
#[path = "../../gpu/sim/tests/sample.rs"]
mod sample;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use croft_gpu_sim::faults::{self, Fault};
use croft_gpu_sim::kernel::{SimHost, dump};
use croft_hostagent::hypervisor::simulated::{Capacity, Simulated};
use croft_proto::agent::v1::instance_observation::Phase;
use croft_proto::agent::v1::{DesiredDevice, HostPolicy, InstanceObservation};
use croft_proto::v1;
use croft_proto::v1::condition::Status;
use fake::devices::{condition, mig_backed, usb, whole, with};
use fake::plane::Plane;
use fake::process::Site;
use sample::Sample;
use uuid::Uuid;

const GPU: &str = "0000:41:00.0";
const NIC: &str = "0000:81:00.0";
const DISPLAY: &str = "0000:61:00.0";
const DONGLE: &str = "usb-0000:00:14.0-1";
/// Replays are killed at each of their steps.
const STEP: &str = "agent.device_step.before";

impl Site {
    fn tree(&self) -> String {
        (0..50).find_map(|_| dump(&self.machine()).ok()).expect("dump")
    }

    /// Keeps an agent running until `done`; the first one dies at `point`. Answers whether it did.
    async fn drive(&self, point: &str, what: &str, done: impl Fn(&Plane) -> bool) -> bool {
        let (mut agent, mut died) = (self.agent(Some(point)), false);
        let began = Instant::now();
        loop {
            if agent.try_wait().expect("wait").is_some() {
                assert!(!died, "{point}: {what}: it ended by itself: {}", self.log());
                died = true;
                self.plane.cut();
                self.plane.lock().observed.clear();
                agent = self.agent(None);
            }
            if done(&self.plane) {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(180), "{point}: {what}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        agent.kill().expect("kill");
        agent.wait().expect("wait");
        self.plane.cut();
        let mut inner = self.plane.lock();
        (inner.sync_done, inner.host) = (None, None);
        inner.observed.clear();
        died
    }

    /// What tells of two machines whether they are set up alike.
    fn layout(&self) -> String {
        // Device numbers of USB devices are others after each boot; so is the boot.
        let made_up =
            |line: &&str| !line.contains("boot_id") && !line.contains("/devnum") && !line.contains("dev/bus/usb");
        self.tree().lines().filter(made_up).collect::<Vec<_>>().join("\n")
    }

    fn reboot(&self) {
        let capacity: Capacity = "vcpus=64,memory-mib=262144,disk-gib=1000".parse().expect("capacity");
        let host = SimHost::at(self.machine()).expect("machine");
        let open =
            |path: &Path| Simulated::open_with_devices(path.parent().expect("parent"), capacity.clone(), host.clone());
        let simulated: Arc<Simulated> = open(&self.machine()).expect("simulated");
        simulated.host_reboot().expect("reboot");
    }
}

/// A tree has thousands of lines, most of which are the same.
fn differences(before: &str, after: &str) -> String {
    let of = |text: &str, other: &str, sign: &str| {
        let lines = text.lines().filter(|line| !other.lines().any(|known| known == *line));
        lines.take(20).map(|line| format!("\n{sign} {line}")).collect::<String>()
    };
    of(before, after, "-") + &of(after, before, "+")
}

fn device(plane: &Plane, id: &str) -> Option<v1::Device> {
    let host = plane.lock().host.clone()?;
    host.devices.into_iter().find(|device| device.name.ends_with(id))
}

fn runs(seen: &InstanceObservation) -> bool {
    seen.phase() == Phase::Running && condition(seen).0 == Status::True
}

/// A slice, a whole display card, and a dongle.
fn wish(plane: &Plane) -> Vec<DesiredDevice> {
    let slice = mig_backed("H100XM-2-20C", "2g.20gb", (0, 2), 0);
    let piece = |id: &str, name: &str, piece: &dyn Fn(&v1::Device) -> _| {
        let device = device(plane, name).expect("reported");
        DesiredDevice {
            id: id.to_owned(),
            device: name.to_owned(),
            serial: device.serial.clone(),
            pci_id: device.id.clone(),
            slot_path: device.slot_path.clone(),
            detach: false,
            piece: Some(piece(&device)),
        }
    };
    let slice = slice(&device(plane, GPU).expect("reported"));
    vec![piece("slice", GPU, &|_| slice.clone()), piece("card", DISPLAY, &whole), piece("hsm", DONGLE, &usb)]
}

/// A machine whose devices were reported in a first life of the agent, and are asked for in the next ones.
struct Story {
    lab: Site,
    uid: Uuid,
    devices: Vec<DesiredDevice>,
    before: String,
}

impl Story {
    async fn new() -> Story {
        let lab = seen().await;
        let (before, devices) = (lab.tree(), wish(&lab.plane));
        Story { lab, uid: Uuid::nil(), devices, before }
    }

    /// One more instance wants them.
    fn ask(&mut self) {
        self.uid = Uuid::now_v7();
        self.lab.plane.lock().tombstones.clear();
        self.lab.plane.upsert(with(self.uid, self.devices.clone()));
    }

    /// Keeps an agent until the instance runs with its devices, one that dies at `point` first.
    async fn until_it_runs(&self, point: &str, what: &str) -> bool {
        let uid = self.uid;
        self.lab.drive(point, what, move |plane| runs(&plane.observed(uid))).await
    }

    async fn give_back(&self, point: &str) -> bool {
        let uid = self.uid;
        self.lab.plane.bury(uid, true, 0);
        // The mode of a GPU that nobody has a slice of any more is nobody's: it goes home beside, or at the next look.
        let is_idle = |plane: &Plane| {
            let gpu = device(plane, GPU).and_then(|device| device.gpu);
            gpu.is_some_and(|gpu| gpu.mode() == v1::gpu::Mode::Idle)
        };
        let done = move |plane: &Plane| plane.observed(uid).phase() == Phase::Absent && is_idle(plane);
        let died = self.lab.drive(point, "it is absent", done).await;
        assert!(self.lab.tree() == self.before, "{point}: {}", differences(&self.before, &self.lab.tree()));
        died
    }
}

/// All that is asked for later has been reported.
async fn seen() -> Site {
    let lab = Site::new().await;
    let known =
        |plane: &Plane, id| device(plane, id).is_some_and(|device| device.state() == v1::device::State::Available);
    lab.first_life(|plane| [GPU, DISPLAY, DONGLE].iter().all(|id| known(plane, id)).then_some(())).await;
    lab
}

/// A GPU for slices and standing virtual functions, which nobody has asked for yet; or none of it.
fn policy(generation: i64, wanted: bool) -> HostPolicy {
    let entry = |device: &str, mode: v1::gpu::Mode, virtual_functions| v1::DeviceLayout {
        device: device.to_owned(),
        gpu_mode: mode.into(),
        virtual_functions,
    };
    let layout = vec![entry(GPU, v1::gpu::Mode::MigVgpu, 0), entry(NIC, v1::gpu::Mode::Unspecified, 4)];
    let layout = if wanted { layout } else { Vec::new() };
    HostPolicy { layout_generation: generation, layout, ..HostPolicy::default() }
}

fn is_laid_out(plane: &Plane, generation: i64, mode: v1::gpu::Mode, functions: usize) -> bool {
    let Some(host) = plane.lock().host.clone() else { return false };
    let of_nic = host.devices.iter().filter(|device| device.physical == NIC).count();
    let gpu = host.devices.iter().find(|device| device.name.ends_with(GPU)).and_then(|device| device.gpu.as_ref());
    let told = host.layout_generation == generation && host.layout_problems.is_empty();
    told && of_nic == functions && gpu.is_some_and(|gpu| gpu.mode() == mode)
}

/// Each step of a layout that no instance uses: made, and after a reboot made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layout_is_replayed_whenever_it_is_killed() {
    let (mut reference, mut sample, mut n): (Option<String>, _, usize) = (None, Sample::by_chance(), 1);
    loop {
        let point = if n == 1 { "agent.replay.before".to_owned() } else { format!("{STEP}#{}", n - 1) };
        let lab = seen().await;
        let before = lab.layout();
        lab.plane.set_policy(Some(policy(1, true)));
        let set_up = |plane: &Plane| is_laid_out(plane, 1, v1::gpu::Mode::MigVgpu, 4);
        lab.drive(&point, "it is set up", set_up).await;
        let layout = lab.layout();
        assert_eq!(reference.get_or_insert(layout.clone()), &layout, "{point}");
        lab.reboot();
        assert_ne!(lab.layout(), layout, "a reboot costs nothing");
        let died = lab.drive(&point, "it is set up again", set_up).await;
        assert!(lab.layout() == layout, "{point}: {}", differences(&layout, &lab.layout()));
        if !died {
            assert!(n > 4, "only {n} points in a replay");
            lab.plane.set_policy(Some(policy(2, false)));
            let home = |plane: &Plane| is_laid_out(plane, 2, v1::gpu::Mode::Idle, 0);
            lab.drive("never", "it is home", home).await;
            assert!(lab.layout() == before, "{}", differences(&before, &lab.layout()));
            break;
        }
        n += sample.step(2);
    }
}

/// Each step of each plan, until there is none of that number any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_killed_at_every_point_is_finished_and_given_back() {
    let mut points =
        ["agent.hold.before#1", "agent.hold.after#2", "agent.device_plan.after#3"].map(str::to_owned).to_vec();
    points.extend((1..=10).map(|n| format!("{STEP}#{n}")));
    let points = Sample::by_chance().of(points, 5);
    let (mut story, mut never_died) = (Story::new().await, Vec::new());
    for point in points {
        story.ask();
        if !story.until_it_runs(&point, "it runs").await {
            never_died.push(point);
        }
        story.give_back("never").await;
    }
    assert!(never_died.len() <= 1, "points that were not reached: {never_died:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_is_replayed_whenever_it_is_killed() {
    let (mut reference, mut sample, mut n): (Option<String>, _, usize) = (None, Sample::by_chance(), 1);
    let mut story = Story::new().await;
    loop {
        let point = match n {
            1 => "agent.replay.before".to_owned(),
            2 => "agent.replay.after".to_owned(),
            n => format!("{STEP}#{}", n - 2),
        };
        story.ask();
        story.until_it_runs("never", "it runs").await;
        let layout = story.lab.layout();
        story.lab.reboot();
        assert_ne!(story.lab.layout(), layout, "a reboot costs nothing");
        let died = story.until_it_runs(&point, "it runs again").await;
        assert_eq!(story.lab.layout(), layout, "{point}");
        assert_eq!(reference.get_or_insert(layout.clone()), &layout, "each time the same");
        story.give_back("never").await;
        if !died {
            assert!(n > 8, "only {} points in a replay", n - 1);
            break;
        }
        n += sample.step(3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_give_back_killed_at_every_point_is_finished() {
    let mut points = ["agent.give_back.before#2", "agent.give_back.after#1", "agent.device_plan.after#2"]
        .map(str::to_owned)
        .to_vec();
    // How many steps there are depends on what the last one left; of a sample all but one must be there.
    let (steps, spare) = if sample::full() { (14, 5) } else { (9, 1) };
    points.extend((1..=steps).map(|n| format!("{STEP}#{n}")));
    let points = Sample::by_chance().of(points, 6);
    let (mut story, mut never_died) = (Story::new().await, Vec::new());
    for point in points {
        story.ask();
        story.until_it_runs("never", "it runs").await;
        if !story.give_back(&point).await {
            never_died.push(point);
        }
    }
    assert!(never_died.len() <= spare, "points that were not reached: {never_died:?}");
}

/// NVIDIA's tool takes seconds, in which the GPU is off its driver: whoever restarts the agent then restarts it in the middle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_left_in_the_middle_of_a_change_of_mode_is_brought_back() {
    let parts = Sample::by_chance().of(vec!["stub", "count", "back", "functions on"], 2);
    let mut story = Story::new().await;
    let machine = story.lab.machine();
    for part in parts {
        story.ask();
        let hang = Fault { times: Some(1), ..Fault::hang(&format!("sriov-manage: {part}")) };
        faults::set(&machine, &[hang]).expect("faults");
        let mut agent = story.lab.agent(None);
        fake::eventually("the tool is in the middle", async || {
            let text = std::fs::read_to_string(machine.join("run/croft-sim/faults.json")).expect("faults");
            let left: Vec<Fault> = serde_json::from_str(&text).expect("faults");
            if left[0].times == Some(0) { Ok(()) } else { Err(story.lab.log()) }
        })
        .await;
        agent.kill().expect("kill");
        agent.wait().expect("wait");
        story.lab.plane.cut();
        story.lab.plane.lock().sync_done = None;
        faults::set(&machine, &[]).expect("faults");
        story.until_it_runs("never", part).await;
        story.give_back("never").await;
    }
}
