//! Every wish on simulated hosts, by the whole path: the look through the library, the plan, its steps through the library
//! and the simulated kernel; every operation of it failed once; and the way back.
//!
//! The library takes its host from the environment, so each trial is a process of its own.
#![expect(clippy::unwrap_used, reason = "a test stops where something is missing")]

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use croft_gpu::apply::{Access, Applier, InProcess, Library, Outcome, Undone};
use croft_gpu::fabric::FabricSource;
use croft_gpu::gpu::{Mig, Span};
use croft_gpu::host::{FabricPartition, Host};
use croft_gpu::nvml::{NvmlSource, snapshot};
use croft_gpu::pci::{PciAddress, Sriov};
use croft_gpu::plan::{MigPiece, Mode, Owners, Plan, Step, Wish, give_back, plan};
use croft_gpu_sim::access::access;
use croft_gpu_sim::faults::{self, Answer, Fault};
use croft_gpu_sim::kernel::{SimHost, dump};
use croft_gpu_sim::state::Nvidia;

const H100: &str = "0000:41:00.0";
const DISPLAY: &str = "0000:61:00.0";
const NIC: &str = "0000:81:00.0";
/// The first slot of the presets with many cards.
const FIRST: &str = "0000:11:00.0";
const UUID: &str = "8c2a6f0e-5a0b-4f0e-9d0c-0123456789ab";

/// What is wished, seen a host.
type Wished = fn(&Host) -> Wish;

struct Scene {
    preset: &'static str,
    before: &'static [Wished],
    wish: Wished,
    /// Is what gives `wish` back tried instead, once it is true?
    back: bool,
    /// Every so-manieth operation is failed.
    stride: u32,
}

const fn scene(preset: &'static str, before: &'static [Wished], wish: Wished) -> Scene {
    Scene { preset, before, wish, back: false, stride: 1 }
}

const fn back(scene: Scene) -> Scene {
    Scene { back: true, ..scene }
}

/// A change of mode makes and unmakes dozens of functions, which takes its time in a simulation, too.
const fn slow(scene: Scene) -> Scene {
    Scene { stride: 4, ..scene }
}

/// NVML is asked hundreds of things on the way to a GPU instance.
const fn long(scene: Scene) -> Scene {
    Scene { stride: 7, ..scene }
}

const SCENES: &[Scene] = &[
    scene("devbox", &[], |_| Wish::Passthrough { address: at(NIC) }),
    back(scene("devbox", &[], |_| Wish::Passthrough { address: at(NIC) })),
    scene("devbox", &[], four_functions),
    back(scene("devbox", &[], four_functions)),
    scene("devbox", &[four_functions], |host| Wish::Passthrough { address: function(host, NIC, 2) }),
    back(scene("devbox", &[four_functions], |host| Wish::Passthrough { address: function(host, NIC, 2) })),
    scene("devbox", &[], |_| Wish::Passthrough { address: at(DISPLAY) }),
    back(scene("devbox", &[], |_| Wish::Passthrough { address: at(DISPLAY) })),
    slow(scene("devbox", &[|_| mode(H100, Mode::MigVgpu)], |_| Wish::Passthrough { address: at(H100) })),
    back(scene("devbox", &[], |_| Wish::Passthrough { address: at(H100) })),
    slow(scene("devbox", &[], |_| mode(H100, Mode::MigVgpu))),
    slow(back(scene("devbox", &[], |_| mode(H100, Mode::MigVgpu)))),
    slow(scene("devbox", &[|_| mode(H100, Mode::MigVgpu)], |_| mode(H100, Mode::VgpuMixed))),
    long(scene("devbox", &[|_| mode(H100, Mode::MigVgpu)], |host| mig_backed(host, H100, 0))),
    long(scene("devbox", &[|_| mode(H100, Mode::MigVgpu), |host| mig_backed(host, H100, 0)], |host| {
        mig_backed(host, H100, 1)
    })),
    long(back(scene("devbox", &[|_| mode(H100, Mode::MigVgpu)], |host| mig_backed(host, H100, 0)))),
    scene("devbox", &[|_| mode(H100, Mode::Vgpu)], |host| time_sliced(host, H100)),
    back(scene("devbox", &[|_| mode(H100, Mode::VgpuMixed)], |host| time_sliced(host, H100))),
    long(scene("rtxpro6000x4", &[|_| mode(FIRST, Mode::MigVgpu)], |host| mig_backed(host, FIRST, 0))),
    long(back(scene("rtxpro6000x4", &[|_| mode(FIRST, Mode::MigVgpu)], |host| mig_backed(host, FIRST, 0)))),
    scene("l40sx2", &[|_| mode(FIRST, Mode::Vgpu)], |host| time_sliced(host, FIRST)),
    scene("a100x4", &[|_| mode(FIRST, Mode::Vgpu)], mediated),
    back(scene("a100x4", &[|_| mode(FIRST, Mode::Vgpu)], mediated)),
    scene("h100x8", &[], |_| Wish::FabricPartition { id: 1, active: true }),
    back(scene("h100x8", &[], |_| Wish::FabricPartition { id: 1, active: true })),
];

fn at(address: &str) -> PciAddress {
    address.parse().unwrap()
}

fn mode(gpu: &str, mode: Mode) -> Wish {
    Wish::Mode { gpu: at(gpu), mode }
}

fn four_functions(_: &Host) -> Wish {
    Wish::VirtualFunctions { physical: at(NIC), count: 4, autoprobe: false }
}

fn function(host: &Host, physical: &str, n: usize) -> PciAddress {
    let physical = host.pci.devices.iter().find(|function| function.address == at(physical)).unwrap();
    let Sriov::Physical { functions, .. } = &physical.sriov else { panic!("{physical:?}") };
    functions[n].address
}

/// The n-th piece of a profile that fits twice, on the n-th function.
fn mig_backed(host: &Host, address: &str, n: usize) -> Wish {
    let gpu = host.gpus.devices.iter().find(|gpu| gpu.address == at(address)).unwrap();
    let Mig::Supported(mig) = &gpu.mig else { panic!("{:?}", gpu.mig) };
    let (type_name, profile) = gpu
        .vgpu_types
        .iter()
        .find_map(|known| {
            let profile = known.mig_profile.as_ref()?;
            let profile = mig.profiles.iter().find(|other| other.name == *profile)?;
            (profile.placements.len() > 1 && profile.max_count > 1).then_some((known.name.clone(), profile))
        })
        .unwrap();
    let placement: Span = profile.placements[n];
    let piece = MigPiece { profile: profile.name.clone(), placement };
    Wish::Vgpu { function: function(host, address, n), type_name, gpu_instance: Some(piece) }
}

fn time_sliced_type(host: &Host, address: &str) -> String {
    let gpu = host.gpus.devices.iter().find(|gpu| gpu.address == at(address)).unwrap();
    gpu.vgpu_types.iter().find(|known| known.mig_profile.is_none()).unwrap().name.clone()
}

fn time_sliced(host: &Host, address: &str) -> Wish {
    let type_name = time_sliced_type(host, address);
    Wish::Vgpu { function: function(host, address, 0), type_name, gpu_instance: None }
}

fn mediated(host: &Host) -> Wish {
    let type_name = time_sliced_type(host, FIRST);
    Wish::Mdev { parent: function(host, FIRST, 0).to_string(), type_name, uuid: UUID.to_owned(), gpu_instance: None }
}

/// Built beside the tests.
fn library() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libcroft_nvml_sim.so")
}

#[test]
fn every_operation_of_every_plan_fails_once() {
    let left = Mutex::new(0..SCENES.len());
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
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let root = directory.path().join("root");
    SimHost::create(&root, SimHost::preset(SCENES[number].preset).unwrap()).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "trial", "--ignored", "--nocapture"])
        .env("CROFT_SIM_ROOT", &root)
        .env("SCENE", number.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && text.contains("operations failed"), "scene {number}: {text}");
}

/// One scene, on the host of the environment.
#[test]
#[ignore = "run by the other, each in a process of its own"]
fn trial() {
    let Some(scene) = std::env::var("SCENE").ok().and_then(|number| SCENES.get(number.parse::<usize>().ok()?)) else {
        return;
    };
    let bench = Bench { root: std::env::var_os("CROFT_SIM_ROOT").unwrap().into() };
    for wished in scene.before {
        bench.fulfil(&wished(&bench.look()));
    }
    let host = bench.look();
    let mut wish = (scene.wish)(&host);
    if scene.back {
        let back = give_back(&host, &wish).unwrap().unwrap();
        bench.fulfil(&wish);
        wish = back;
    }
    let (before, steps) = (bench.dump(), bench.plan(&wish));
    assert!(!steps.is_empty(), "{wish:?} is true already");
    let failed = bench.fail_everywhere(&steps, &before, scene.stride);
    assert!(failed > 0, "{wish:?}: nothing failed");
    bench.fulfil(&wish);
    println!("{wish:?}: {} steps, {failed} operations failed", steps.len());
}

struct Bench {
    root: PathBuf,
}

impl Bench {
    /// NVML by its library; the files and the tool answered by the simulated kernel, and Fabric Manager by its state.
    fn access(&self) -> Access {
        Access {
            nvml: Box::new(Library { path: Some(library()) }),
            patience: Duration::ZERO,
            ..access(&self.root).unwrap()
        }
    }

    fn look(&self) -> Host {
        let host = SimHost::at(&self.root).unwrap();
        let nvml = NvmlSource::from(snapshot(Some(&library())));
        let host = Host::probe(&host.fs().unwrap(), &nvml, &self.fabric());
        assert!(host.gpus.errors.is_empty() && host.errors.is_empty(), "{:?} {:?}", host.gpus.errors, host.errors);
        host
    }

    fn fabric(&self) -> FabricSource {
        let Some(fabric) = Nvidia::read(&self.root).unwrap().fabric else {
            return FabricSource::Unavailable { why: "no Fabric Manager".to_owned() };
        };
        let partition = |known: croft_gpu_sim::state::FabricPartition| FabricPartition {
            id: known.id,
            gpus: known.gpus,
            active: known.active,
        };
        FabricSource::Partitions(fabric.partitions.into_iter().map(partition).collect())
    }

    fn dump(&self) -> String {
        dump(&self.root).unwrap()
    }

    fn plan(&self, wish: &Wish) -> Vec<Step> {
        plan(&self.look(), &Owners::default(), wish).unwrap_or_else(|refusal| panic!("{wish:?}: {refusal}")).steps
    }

    fn apply(&self, steps: &[Step]) -> Outcome {
        let plan = Plan { steps: steps.to_vec() };
        Applier::new(InProcess::new(self.access()), || 0).apply(&plan, &mut |_| {})
    }

    /// Applied, and then there is nothing left to do.
    fn fulfil(&self, wish: &Wish) {
        let outcome = self.apply(&self.plan(wish));
        assert!(matches!(outcome, Outcome::Applied { .. }), "{wish:?}: {outcome:?}");
        assert_eq!(self.plan(wish), [], "{wish:?} is not true after its plan");
    }

    /// How many operations there were to fail.
    fn fail_everywhere(&self, steps: &[Step], before: &str, stride: u32) -> usize {
        let answers = [Answer::Errno(16), Answer::Nvml(19), Answer::Errno(1), Answer::Nvml(999), Answer::Errno(5)];
        let mut failed = 0;
        for n in (0..).step_by(stride as usize) {
            let answer = answers[n as usize % answers.len()];
            // In a helper process a session ends with the process, whatever this call answers; here it would stay open.
            let spared = Fault { answer: None, ..Fault::answer("nvmlShutdown", answer) };
            let fault = Fault { skip: n, times: Some(1), ..Fault::answer("*", answer) };
            faults::set(&self.root, &[spared, fault]).unwrap();
            let outcome = self.apply(steps);
            let text = std::fs::read_to_string(self.root.join("run/croft-sim/faults.json")).unwrap();
            let struck = serde_json::from_str::<Vec<Fault>>(&text).unwrap()[1].times == Some(0);
            faults::set(&self.root, &[]).unwrap();
            match outcome {
                Outcome::Failed(failure) => {
                    failed += 1;
                    assert!(struck, "with no fault at all: {failure}");
                    assert_eq!(failure.undone, Undone::Whole, "operation {n}, {answer:?}: {failure}");
                    assert_eq!(self.dump(), before, "operation {n}, {answer:?}: {failure}");
                }
                // It was tried again, or nobody needed the answer, or there was no such operation.
                Outcome::Applied { .. } => {
                    let back: Vec<Step> = steps.iter().rev().filter_map(Step::undo).collect();
                    let outcome = self.apply(&back);
                    assert!(matches!(outcome, Outcome::Applied { .. }), "operation {n}, {answer:?}: {outcome:?}");
                    assert_eq!(self.dump(), before, "operation {n}, {answer:?}");
                    if !struck {
                        return failed;
                    }
                }
                Outcome::Stuck(stuck) => panic!("operation {n}, {answer:?}: {stuck}"),
            }
        }
        failed
    }
}
