//! Operations that never return, in helper processes: who asked for them goes on, and the device does not suffer.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use croft_gpu::apply::{ChildProcess, Deferred, Outcome, Site, TakenBack, Undone};
use croft_gpu::plan::{Plan, Step};
use croft_gpu_sim::faults::{self, Fault};

use crate::bench::{Bench, NIC, Scene, at, in_each, scenes, to_vfio};
use crate::sample::Sample;

pub fn helper(bench: &Bench) -> ChildProcess {
    let site = Site {
        root: bench.root().to_owned(),
        simulated: true,
        nvml_library: None,
        fabric_library: None,
        lock_directory: Some(locks(bench)),
    };
    ChildProcess::new(env!("CARGO_BIN_EXE_croft-sim-device-helper"), [std::process::id().to_string()], site)
}

pub fn locks(bench: &Bench) -> PathBuf {
    bench.root().join("run/croft/devices")
}

pub fn apply(bench: &Bench, helper: ChildProcess, steps: &[Step], deadline: Duration) -> Outcome {
    let applier = bench.applier(helper).with_deadlines(move |_| deadline);
    applier.apply(&Plan { steps: steps.to_vec() }, &mut |_| {})
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn every_plan_can_be_carried_out_by_helpers() {
    in_each(scenes(), |scene| {
        let (own, helped) = (Bench::set(&scene), Bench::set(&scene));
        assert!(matches!(own.apply(&scene.plan), Outcome::Applied { .. }));
        let outcome = helped.apply_by(helper(&helped), &scene.plan);
        assert!(matches!(outcome, Outcome::Applied { .. }), "{}: {outcome:?}", scene.name);
        assert_eq!(own.dump(), helped.dump(), "{}", scene.name);
    });
}

/// The helper is killed in the middle of each operation in turn.
#[test]
fn an_operation_that_hangs_is_killed_and_undone() {
    let chosen = ["nic: passthrough", "nic: functions", "h100_sxm_80gb: carve beside one in use", "gpu: return"];
    let scenes: Vec<_> = scenes().into_iter().filter(|scene| chosen.contains(&scene.name.as_str())).collect();
    assert_eq!(scenes.len(), chosen.len());
    let trial = |scene: &Scene| {
        let bench = Bench::set(scene);
        let before = bench.dump();
        // Each costs its deadline: every one in the long trials only.
        let mut sample = Sample::by_chance();
        let mut n = sample.step(3) - 1;
        loop {
            faults::set(bench.root(), &[Fault { skip: n.try_into().unwrap(), times: Some(1), ..Fault::hang("*") }])
                .unwrap();
            match apply(&bench, helper(&bench), &scene.plan, Duration::from_secs(2)) {
                Outcome::Applied { .. } => {
                    assert!(n > 1, "{}: {n} operations", scene.name);
                    break;
                }
                Outcome::Failed(failure) => {
                    assert!(failure.error.message.contains("did not return within 2s"), "{failure}");
                    assert_eq!(failure.undone, Undone::Whole, "{}, operation {n}: {failure}", scene.name);
                    assert_eq!(bench.dump(), before, "{}, operation {n}: {failure}", scene.name);
                }
                Outcome::Stuck(stuck) => panic!("{}: {stuck}", scene.name),
            }
            n += sample.step(3);
        }
    };
    std::thread::scope(|scope| {
        for scene in &scenes {
            scope.spawn(move || trial(scene));
        }
    });
}

/// A helper that no signal reaches: the write sleeps in the kernel. Nobody waits for it, nobody writes to the device any
/// more, and an agent that is started anew finds that out by itself.
#[test]
fn what_never_returns_and_cannot_be_killed_is_stuck() {
    let bench = Bench::new(croft_gpu_sim::kernel::SimHost::preset("devbox").unwrap());
    let (before, steps) = (bench.dump(), to_vfio(at(NIC), "igb"));
    faults::set(bench.root(), &[Fault { skip: 1, times: Some(1), ..Fault::hang("write *") }]).unwrap();
    let unkillable = || helper(&bench).with_kill(|_| Ok(()));

    let started = Instant::now();
    let Outcome::Stuck(stuck) = apply(&bench, unkillable(), &steps, Duration::from_secs(2)) else {
        panic!("it was not stuck")
    };
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!((stuck.index, &stuck.step), (1, &steps[1]));
    assert_eq!(stuck.left.iter().map(|left| &left.step).collect::<Vec<_>>(), [&steps[1], &steps[0]]);
    assert!(fs::exists(format!("/proc/{}", stuck.pid)).unwrap(), "it is left behind");
    let at_that_moment = bench.dump();

    // The next agent: it has forgotten everything, and its kill works. It does not take a process for hanging that only looks
    // as if it slept of its own will.
    let Outcome::Failed(again) = apply(&bench, helper(&bench), &steps, Duration::from_secs(20)) else {
        panic!("two helpers were at one device")
    };
    assert_eq!((again.index, &again.undone), (0, &Undone::Whole));
    assert_eq!(again.error.deferred, Some(Deferred::HeldBy { pid: stuck.pid }), "{again}");
    assert_eq!(bench.dump(), at_that_moment, "nothing was written");

    kill(stuck.pid);
    let back = bench.applier(helper(&bench)).take_back(stuck.left, &mut |_| {});
    assert_eq!(back, TakenBack::Undone(Undone::Whole));
    assert_eq!(bench.dump(), before);
    let outcome = apply(&bench, helper(&bench), &steps, Duration::from_secs(20));
    assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
}

/// A helper's agent is killed: the helper goes too, and leaves no lock.
#[test]
fn a_helper_dies_with_its_agent() {
    let bench = Bench::new(croft_gpu_sim::kernel::SimHost::preset("devbox").unwrap());
    faults::set(bench.root(), &[Fault::hang("write *")]).unwrap();
    let request = croft_gpu::apply::Request {
        site: Site {
            root: bench.root().to_owned(),
            simulated: true,
            nvml_library: None,
            fabric_library: None,
            lock_directory: Some(locks(&bench)),
        },
        work: croft_gpu::apply::Work::Do { step: to_vfio(at(NIC), "igb").remove(0) },
    };
    let file = bench.root().join("request");
    fs::write(&file, serde_json::to_vec(&request).unwrap()).unwrap();
    // A shell stands for the agent: it starts the helper, says its pid, and waits.
    let script =
        format!("'{}' $$ <'{}' & echo $!; wait", env!("CARGO_BIN_EXE_croft-sim-device-helper"), file.display());
    let mut agent = std::process::Command::new("/bin/sh")
        .args(["-c", &script])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lock = locks(&bench).join(NIC);
    let holder = || fs::read_to_string(&lock).ok()?.lines().next()?.parse::<u32>().ok();
    wait_until(|| holder().is_some(), "the helper to begin");
    let helper = holder().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    agent.kill().unwrap();
    agent.wait().unwrap();
    let alive = || fs::read_to_string(format!("/proc/{helper}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    wait_until(|| !alive(), "the helper to die");

    // One whose agent died before it came to say so does nothing.
    let orphan = std::process::Command::new(env!("CARGO_BIN_EXE_croft-sim-device-helper"))
        .arg("1")
        .stdin(fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    assert!(!orphan.status.success() && orphan.stdout.is_empty());
    assert!(String::from_utf8_lossy(&orphan.stderr).contains("process 1, which started this one, is gone"));
}

fn wait_until(condition: impl Fn() -> bool, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
