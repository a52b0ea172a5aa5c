//! Every wish on every board, by the whole path: the look through the library, the plan, its steps through the library and the
//! simulated kernel; each step of it failed once; and the way back.
//!
//! The library takes its host from the environment, so each trial is a process of its own. In the long trials all scenes are
//! tried and every operation is failed, what is only read among them; otherwise some of the scenes, others each time, and in
//! them every effect.
#![expect(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod bench;
#[path = "../../../sim/tests/sample.rs"]
mod sample;
mod scenes;

use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use bench::Bench;
use croft_gpu::plan::{Wish, give_back};
use croft_gpu_sim::kernel::SimHost;
use sample::{Sample, full};
use scenes::{Scene, scenes};

/// What changes something, in every way that there is.
const EFFECTS: &str = "write *|sriov-manage|USBDEVFS_RESET|fmActivateFabricPartition|fmDeactivateFabricPartition|\
                       nvmlDeviceSet*|nvmlDeviceCreate*|nvmlGpuInstanceCreate*|nvmlGpuInstanceDestroy|nvmlGpuInstanceSet*|\
                       nvmlComputeInstanceDestroy";

/// Of so many scenes.
const SOME: usize = 60;

#[test]
fn every_step_of_every_plan_fails_once() {
    let chosen = Sample::by_chance().of((0..scenes().len()).collect(), SOME);
    let left = Mutex::new(chosen.into_iter());
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let Some(number) = left.lock().unwrap().next() else { break };
                    in_a_process(number);
                }
            });
        }
    });
}

fn in_a_process(number: usize) {
    let Scene { name, hardware, .. } = scenes().swap_remove(number);
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let root = directory.path().join("root");
    SimHost::create(&root, hardware).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "trial", "--ignored", "--nocapture"])
        .env("CROFT_SIM_ROOT", &root)
        .env("SCENE", number.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && text.contains("operations failed"), "{name}: {text}");
}

/// One scene, on the host of the environment.
#[test]
#[ignore = "run by the other, each in a process of its own"]
fn trial() {
    let Some(number) = std::env::var("SCENE").ok().and_then(|number| number.parse().ok()) else { return };
    let Scene { name, before, wish, back, .. } = scenes().swap_remove(number);
    let bench = Bench { root: std::env::var_os("CROFT_SIM_ROOT").unwrap().into() };
    for wished in before {
        bench.fulfil(&wished(&bench.look()));
    }
    let host = bench.look();
    let mut wish = wish(&host);
    if back {
        let back = give_back(&host, &wish).unwrap().unwrap();
        bench.fulfil(&wish);
        wish = back;
    }
    let (before, steps) = (bench.dump(), bench.plan(&wish));
    assert!(!steps.is_empty(), "{wish:?} is true already");
    let mut failed = bench.fail_steps(&steps, &before, EFFECTS);
    if full() {
        failed += bench.fail_operations(&steps, &before);
    }
    // Of a reset nothing is left to be seen: it is always still to be done.
    if matches!(wish, Wish::NoUsb { .. }) {
        bench.apply_all(&steps)
    } else {
        bench.fulfil(&wish)
    }
    println!("{name}: {} steps, {failed} operations failed", steps.len());
}

/// No board and no planner is forgotten.
#[test]
fn every_board_and_every_wish_has_its_scenes() {
    let names: Vec<String> = scenes().into_iter().map(|scene| scene.name).collect();
    for board in croft_gpu_sim::boards::ALL {
        let is_bridge = board.name == "nvswitch";
        assert_eq!(names.iter().any(|name| name.starts_with(board.name)), !is_bridge, "{}", board.name);
    }
    for (wish, count) in [
        ("passthrough", 24),
        ("return", 24),
        ("functions", 4),
        ("mode vgpu", 8),
        ("mode mig_vgpu", 7),
        ("mode mixed", 8),
        ("time-sliced vGPU", 14),
        ("time-sliced mdev", 14),
        ("MIG-backed vGPU", 14),
        ("MIG-backed mdev", 8),
        ("beside one in use", 7),
        ("partition", 4),
        ("USB", 1),
    ] {
        let found = names.iter().filter(|name| name.contains(wish)).count();
        assert!(found >= count, "{wish}: {found} scenes of {count}: {names:#?}");
    }
}
