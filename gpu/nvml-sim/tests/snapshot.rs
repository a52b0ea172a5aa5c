//! What the device library sees through this library, by the path that it takes on a real host: nvml-wrapper, in a process of
//! its own. Each question is asked by a child, since the simulated host is named in the environment.

#![expect(clippy::unwrap_used, reason = "the helpers of a test are part of the test")]

use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use croft_gpu::chain;
use croft_gpu::fabric::FabricSource;
use croft_gpu::gpu::{Mig, MigState, Span, VgpuSupport};
use croft_gpu::host::Host;
use croft_gpu::nvml::{GpuEvent, GpuEventKind, Nvml, NvmlGpu, NvmlSnapshot, NvmlSource, code, snapshot, watch_events};
use croft_gpu::pci::PciAddress;
use croft_gpu_sim::driver;
use croft_gpu_sim::faults::{self, Answer, Fault};
use croft_gpu_sim::kernel::SimHost;
use croft_gpu_sim::state::{EventKind, GpuState, Nvidia};

const GPU: &str = "0000:41:00.0";
const ANSWER: &str = "ANSWER ";

/// Built beside the tests.
fn library() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libcroft_nvml_sim.so")
}

struct Bench {
    _directory: tempfile::TempDir,
    host: SimHost,
}

impl Bench {
    fn new(preset: &str) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let host = SimHost::create(directory.path().join("root"), SimHost::preset(preset).unwrap()).unwrap();
        Bench { _directory: directory, host }
    }

    fn child(&self, question: &str) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "answers", "--ignored", "--nocapture"])
            .env("CROFT_SIM_ROOT", self.host.root())
            .env("QUESTION", question)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn ask(&self, question: &str) -> String {
        let output = self.child(question).wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let answer =
            text.lines().find_map(|line| line.split_once(ANSWER)).unwrap_or_else(|| panic!("{question}: {text}"));
        answer.1.to_owned()
    }

    fn source(&self) -> NvmlSource {
        serde_json::from_str(&self.ask("snapshot")).unwrap()
    }

    fn snapshot(&self) -> NvmlSnapshot {
        match self.source() {
            NvmlSource::Answered(snapshot) => snapshot,
            other => panic!("{other:?}"),
        }
    }

    fn gpu(&self) -> NvmlGpu {
        self.snapshot().gpus.into_iter().find(|gpu| gpu.address == at(GPU)).unwrap()
    }

    fn look(&self) -> Host {
        let fabric = FabricSource::Unavailable { why: "not asked".to_owned() };
        Host::probe(&self.host.fs().unwrap(), &self.source(), &fabric)
    }

    fn change(&self, address: &str, change: impl FnOnce(&mut GpuState)) {
        let mut nvidia = Nvidia::open(self.host.root()).unwrap();
        change(nvidia.gpus.iter_mut().find(|gpu| gpu.address == at(address)).unwrap());
        nvidia.save().unwrap();
    }
}

fn at(address: &str) -> PciAddress {
    address.parse().unwrap()
}

fn mig(gpu: &NvmlGpu) -> &MigState {
    match &gpu.mig {
        Mig::Supported(state) => state,
        other => panic!("{other:?}"),
    }
}

/// The child: answers the question of the environment with one line.
#[test]
#[ignore = "run by the others, each in a process of its own"]
fn answers() {
    let library = library();
    let Ok(question) = std::env::var("QUESTION") else { return };
    let words: Vec<&str> = question.split(' ').collect();
    let open = || Nvml::open(Some(&library)).unwrap();
    let number = |text: &str| text.parse::<u8>().unwrap();
    let answer = match words[..] {
        ["snapshot"] => serde_json::to_string(&NvmlSource::from(snapshot(Some(&library)))).unwrap(),
        ["mig", on] => format!("{:?}", open().set_mig_mode(at(GPU), on == "on")),
        ["create", profile, start, size] => {
            let (nvml, place) = (open(), Span { start: number(start), size: number(size) });
            let made = nvml.create_gpu_instance(at(GPU), profile, place);
            let whole = made.as_ref().map_err(Clone::clone).and_then(|id| nvml.create_compute_instance(at(GPU), *id));
            format!("{:?}", made.and_then(|id| whole.map(|()| id)))
        }
        ["destroy", id] => {
            let (nvml, id) = (open(), u32::from(number(id)));
            let instances = nvml.gpu_instances(at(GPU)).unwrap();
            let instance = instances.iter().find(|instance| instance.id == id).unwrap();
            let early = nvml.destroy_gpu_instance(at(GPU), id).unwrap_err();
            assert_eq!(early.code(), Some(code::IN_USE), "it still has a compute instance");
            for compute in &instance.compute_instances {
                nvml.destroy_compute_instance(at(GPU), id, *compute).unwrap();
            }
            format!("{:?}", nvml.destroy_gpu_instance(at(GPU), id))
        }
        ["persistence", on] => {
            let nvml = open();
            nvml.set_persistence(at(GPU), on == "on").unwrap();
            format!("{}", nvml.persistence(at(GPU)).unwrap())
        }
        ["heterogeneous", on] => {
            let nvml = open();
            let set = nvml.set_heterogeneous(at(GPU), None, on == "on");
            format!("{:?} {:?}", set, nvml.heterogeneous(at(GPU), None))
        }
        ["watch"] => {
            println!("\nwatching");
            let ended = watch_events(Some(&library), |event| match event {
                Some(event) => {
                    println!("\n{ANSWER}{}", serde_json::to_string(&event).unwrap());
                    ControlFlow::Continue(())
                }
                None => ControlFlow::Continue(()),
            });
            format!("{ended:?}")
        }
        _ => panic!("{question}"),
    };
    println!("\n{ANSWER}{answer}");
}

#[test]
fn a_board_is_told_as_the_real_one_tells_itself() {
    let bench = Bench::new("devbox");
    let gpu = bench.gpu();
    assert!(gpu.errors.is_empty(), "{:?}", gpu.errors);
    assert_eq!(gpu.name.as_deref(), Some("NVIDIA H100 80GB HBM3"));
    assert!(gpu.uuid.as_deref().unwrap().starts_with("GPU-"));
    assert_eq!(gpu.memory_mib, Some(81559));
    let state = mig(&gpu);
    assert_eq!((state.current, state.pending, state.memory_slices, state.compute_slices), (false, false, 8, 7));
    let profiles: Vec<_> = state.profiles.iter().map(|profile| (profile.name.as_str(), profile.id)).collect();
    let captured = [
        ("1g.10gb", 19),
        ("2g.20gb", 14),
        ("3g.40gb", 9),
        ("4g.40gb", 5),
        ("7g.80gb", 0),
        ("1g.10gb+me", 20),
        ("1g.20gb", 15),
    ];
    assert_eq!(profiles, captured);
    let media = &state.profiles[5];
    assert_eq!((media.placements.len(), media.max_count, media.remaining), (7, 1, Some(1)));
    assert_eq!((state.profiles[2].multiprocessors, state.profiles[2].memory_mib), (60, 40448));
    assert_eq!(state.profiles[2].placements, [Span { start: 0, size: 4 }, Span { start: 4, size: 4 }]);

    let host = bench.look();
    let gpu = host.gpus.devices.iter().find(|gpu| gpu.address == at(GPU)).unwrap();
    assert_eq!((gpu.model.as_deref(), gpu.memory_mib), (Some("h100_sxm_80gb"), Some(81920)));
    assert_eq!(gpu.vgpu, VgpuSupport::Dormant, "the driver makes vGPUs, and its functions are not there yet");
    let backed = gpu.vgpu_types.iter().find(|vgpu| vgpu.name == "H100XM-2-20C").unwrap();
    assert_eq!(backed.mig_profile.as_deref(), Some("2g.20gb"));
    let sliced = gpu.vgpu_types.iter().find(|vgpu| vgpu.name == "H100XM-20C").unwrap();
    assert_eq!((sliced.mig_profile.as_ref(), sliced.max_count), (None, Some(4)));
    let errors = [&host.pci.errors, &host.gpus.errors, &host.errors];
    let errors: Vec<_> = errors.into_iter().flatten().map(|error| chain(error)).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn every_board_says_all_that_is_asked() {
    for preset in croft_gpu_sim::kernel::PRESETS {
        let bench = Bench::new(preset);
        let snapshot = bench.snapshot();
        assert!(snapshot.errors.is_empty() && !snapshot.gpus.is_empty(), "{preset}: {:?}", snapshot.errors);
        for gpu in &snapshot.gpus {
            assert!(gpu.errors.is_empty(), "{preset}: {:?}", gpu.errors);
            assert!(gpu.faults.is_empty(), "{preset}: {:?}", gpu.faults);
            if let Mig::Supported(state) = &gpu.mig {
                assert!(!state.profiles.is_empty() && state.memory_slices.is_power_of_two(), "{preset}: {state:?}");
            }
        }
    }
}

#[test]
fn instances_are_cut_and_seen_by_the_next_process() {
    let bench = Bench::new("devbox");
    assert_eq!(bench.ask("mig on"), "Ok(0)");
    let refused = bench.ask("create 5g.50gb 0 4");
    assert!(refused.contains("no profile 5g.50gb") && refused.contains("2g.20gb"), "{refused}");
    let id = bench.ask("create 2g.20gb 2 2");
    let id: u32 = id.strip_prefix("Ok(").and_then(|text| text.strip_suffix(')')).unwrap().parse().unwrap();
    let taken = bench.ask("create 3g.40gb 0 4");
    assert!(taken.contains("code: 23"), "{taken}");

    let gpu = bench.gpu();
    let state = mig(&gpu);
    let [instance] = &state.instances[..] else { panic!("{:?}", state.instances) };
    assert_eq!((instance.id, instance.profile.as_str()), (id, "2g.20gb"));
    assert_eq!((instance.placement, instance.compute_instances.len()), (Span { start: 2, size: 2 }, 1));
    let left = state.profiles.iter().find(|profile| profile.name == "3g.40gb").unwrap();
    assert_eq!(left.remaining, Some(1));

    assert_eq!(bench.ask(&format!("destroy {id}")), "Ok(())");
    assert!(mig(&bench.gpu()).instances.is_empty());
    assert_eq!(bench.ask("mig off"), "Ok(0)");
    assert!(!mig(&bench.gpu()).current);
}

#[test]
fn settings_are_read_back() {
    let bench = Bench::new("devbox");
    for on in ["on", "off"] {
        assert_eq!(bench.ask(&format!("persistence {on}")), (on == "on").to_string());
        assert_eq!(bench.gpu().persistence, Some(on == "on"));
    }
    bench.host.sriov_manage(at(GPU), true).unwrap().unwrap();
    assert_eq!(bench.ask("heterogeneous on"), "Ok(()) Ok(true)");
    assert_eq!(bench.gpu().heterogeneous, Some(true));
    assert!(bench.gpu().heterogeneous_capable);
}

#[test]
fn what_is_wrong_with_one_gpu_is_said_of_that_one() {
    let bench = Bench::new("h100x8");
    let addresses: Vec<_> = bench.snapshot().gpus.iter().map(|gpu| gpu.address.to_string()).collect();
    let [first, second, third, ..] = &addresses[..] else { panic!("{addresses:?}") };
    bench.change(first, |gpu| gpu.ecc.volatile_uncorrected = 3);
    bench.change(second, |gpu| gpu.ecc.remap_pending = true);
    bench.change(third, |gpu| gpu.lost = true);
    let host = bench.look();
    let reasons = |address: &str| -> Vec<_> {
        let gpu = host.gpus.devices.iter().find(|gpu| gpu.address == at(address)).unwrap();
        gpu.health.faults.iter().map(|fault| fault.reason.as_str()).collect()
    };
    assert_eq!(reasons(first), ["EccUncorrected"]);
    assert_eq!(reasons(second), ["RowRemapPending"]);
    assert!(!reasons(third).is_empty(), "a lost GPU");
    for other in &addresses[3..] {
        assert_eq!(reasons(other), [""; 0], "its neighbours are sound");
    }
    assert_eq!(host.gpus.devices.len(), 8, "one lost GPU does not hide the others");
    let errors: Vec<_> = host.gpus.errors.iter().map(|error| chain(error)).collect();
    assert!(!errors.is_empty() && errors.iter().all(|error| error.contains(third.as_str())), "{errors:?}");
}

#[test]
fn a_call_that_fails_leaves_its_part_unknown_and_is_named() {
    let bench = Bench::new("devbox");
    let fault = Fault::answer("nvmlDeviceGetGpuInstanceProfileInfoV", Answer::Nvml(999));
    faults::set(bench.host.root(), &[fault]).unwrap();
    let gpu = bench.gpu();
    assert!(
        matches!(&gpu.mig, Mig::Unknown { why } if why.contains("nvmlDeviceGetGpuInstanceProfileInfoV")),
        "{gpu:?}"
    );
    assert!(gpu.uuid.is_some(), "the rest is still told");
    let host = bench.look();
    assert!(host.gpus.errors.iter().any(|error| error.device == format!("gpu {GPU}")));
}

#[test]
fn no_driver_is_told_from_no_library_and_from_a_failure() {
    let bench = Bench::new("devbox");
    for (code, expected) in [(9, "no_driver"), (18, "failed")] {
        faults::set(bench.host.root(), &[Fault::answer("nvmlInit_v2", Answer::Nvml(code))]).unwrap();
        assert!(bench.ask("snapshot").contains(expected), "NVML {code}");
    }
    let missing = snapshot(Some(Path::new("/nonexistent/libnvidia-ml.so.1")));
    assert!(matches!(NvmlSource::from(missing), NvmlSource::NoLibrary { .. }));
}

#[test]
fn a_process_that_hangs_in_the_library_can_be_killed() {
    let bench = Bench::new("devbox");
    faults::set(bench.host.root(), &[Fault::hang("nvmlDeviceGetMigMode")]).unwrap();
    let mut child = bench.child("snapshot");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it hangs");
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn events_reach_the_watcher() {
    let bench = Bench::new("devbox");
    let mut child = bench.child("watch");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "watching"));
    let mut heard = Vec::new();
    // The watcher may still be registering: what happened before that is not heard, as on real hardware.
    std::thread::sleep(std::time::Duration::from_millis(700));
    // The last one takes the GPU away: the watcher says so, and ends.
    for kind in [EventKind::Xid(31), EventKind::EccDoubleBit, EventKind::Xid(79)] {
        let mut nvidia = Nvidia::open(bench.host.root()).unwrap();
        driver::raise(&mut nvidia, at(GPU), kind);
        nvidia.save().unwrap();
        drop(nvidia);
        let line = lines.find_map(|line| line.strip_prefix(ANSWER).map(str::to_owned)).unwrap();
        heard.push(serde_json::from_str::<GpuEvent>(&line).unwrap());
    }
    let rest: Vec<_> = lines.filter_map(|line| line.strip_prefix(ANSWER).map(str::to_owned)).collect();
    child.wait().unwrap();
    let [lost, end] = &rest[..] else { panic!("{rest:?}") };
    heard.push(serde_json::from_str(lost).unwrap());
    assert!(end.contains("code: 15"), "{end}");
    let kinds: Vec<_> = heard.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [GpuEventKind::Xid(31), GpuEventKind::Memory, GpuEventKind::Xid(79), GpuEventKind::Lost]);
    assert!(heard.iter().all(|event| event.gpu == at(GPU)));
    let faults: Vec<_> = heard.iter().filter_map(|event| event.fault()).map(|fault| fault.reason).collect();
    assert_eq!(faults, ["EccUncorrected", "FellOffTheBus", "FellOffTheBus"], "31 is a fault of a program");
}
