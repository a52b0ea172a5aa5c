//! `sriov-manage` fails in the middle of its work, and goes on, or is killed there: the GPU comes back all the same.

use std::time::Duration;

use croft_gpu::apply::{Carried, Ending, Executor, InProcess, Outcome, TakenBack, Undone, Work};
use croft_gpu::pci::PciAddress;
use croft_gpu::plan::Step;
use croft_gpu_sim::access::access;
use croft_gpu_sim::faults::{self, Answer, Fault};
use croft_gpu_sim::kernel::{Hardware, Process, SimHost, Slot};
use croft_gpu_sim::state::Nvidia;

use crate::bench::{Bench, GPU, at};
use crate::hangs::{apply, helper};

const PARTS: [&str; 6] = ["functions off", "unbindLock", "stub", "count", "back", "functions on"];

fn manage(enable: bool) -> Step {
    Step::SriovManage { gpu: at(GPU), enable }
}

/// With the functions on, or off. Beside it a GPU whose persistence is nobody's business.
fn bench(functions: bool) -> Bench {
    let slot = |bus| Slot::new(&croft_gpu_sim::boards::H100_SXM_80GB, bus);
    let bench = Bench::new(Hardware::new(vec![slot(0x41), slot(0x61)]));
    if functions {
        must_apply(&bench, &[manage(true)]);
    }
    bench
}

fn must_apply(bench: &Bench, steps: &[Step]) {
    let outcome = bench.apply(steps);
    assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
}

fn part(name: &str) -> String {
    format!("sriov-manage: {name}")
}

#[test]
fn whatever_part_of_it_fails_all_is_as_it_was() {
    for (enable, name) in [true, false].into_iter().flat_map(|enable| PARTS.map(|name| (enable, name))) {
        let bench = bench(!enable);
        let before = bench.dump();
        // A lock that is refused once is asked for again.
        let times = if name == "unbindLock" { 5 } else { 1 };
        let fault = Fault { times: Some(times), ..Fault::answer(&part(name), Answer::Errno(5)) };
        faults::set(bench.root(), &[fault]).unwrap();
        match bench.apply(&[manage(enable)]) {
            Outcome::Failed(failure) => {
                assert_eq!(failure.undone, Undone::Whole, "{enable}, {name}: {failure}");
                assert_eq!(bench.dump(), before, "{enable}, {name}: {failure}");
            }
            // It had nothing to do in this direction, or its failure was mended on the way.
            outcome => assert!(matches!(outcome, Outcome::Applied { .. }), "{enable}, {name}: {outcome:?}"),
        }
        faults::set(bench.root(), &[]).unwrap();
        must_apply(&bench, &[manage(enable)]);
        must_apply(&bench, &[manage(!enable)]);
        assert_eq!(bench.dump(), before, "{enable}, {name}: and it works again");
    }
}

#[test]
fn killed_anywhere_it_is_taken_back() {
    // The last call puts persistence back.
    const LAST: &str = "nvmlDeviceSetPersistenceMode";
    let parts = [(true, "count"), (true, "back"), (true, "functions on"), (false, "stub"), (false, "back")];
    let calls = parts.map(|(enable, name)| (enable, part(name))).into_iter().chain([(false, LAST.to_owned())]);
    let trial = |(enable, name): (bool, String)| {
        let bench = bench(!enable);
        let before = bench.dump();
        faults::set(bench.root(), &[Fault { times: Some(1), ..Fault::hang(&name) }]).unwrap();
        let outcome = apply(&bench, helper(&bench), &[manage(enable)], Duration::from_secs(8));
        let Outcome::Failed(failure) = outcome else { panic!("{enable}, {name}: {outcome:?}") };
        assert_eq!(failure.undone, Undone::Whole, "{enable}, {name}: {failure}");
        let after = bench.dump();
        let other: Vec<_> = after.lines().filter(|line| !before.lines().any(|known| known == *line)).collect();
        assert!(after == before, "{enable}, {name}: {failure}: {other:?}");
    };
    // Each waits for its deadline, so all at once.
    std::thread::scope(|scope| {
        for call in calls {
            scope.spawn(move || trial(call));
        }
    });
}

/// The agent is killed with its helper, and nobody has heard what that changed for a moment: the next helper that comes to the
/// device puts it back.
#[test]
fn killed_with_its_agent_it_is_put_back_by_the_next() {
    let gpu = at(GPU);
    let unbind = |driver: &str| Step::Unbind { address: gpu, driver: driver.to_owned() };
    let reset = Step::Reset { address: gpu, methods: vec!["flr".to_owned()] };
    let bind = Step::Bind { address: gpu, driver: "vfio-pci".to_owned() };
    let written = |file: &str| format!("write /sys/bus/pci/devices/{GPU}/{file}");
    // What is done before; in what the step hangs; and what is seen of it, but for what it puts back.
    let cuts = [
        (vec![], manage(true), part("functions on")),
        (vec![manage(true)], manage(false), "nvmlDeviceSetPersistenceMode".to_owned()),
        (vec![], reset.clone(), written("reset")),
        (vec![], unbind("nvidia"), written("driver/unbind")),
        (vec![unbind("nvidia")], bind, "write /sys/bus/pci/drivers_probe".to_owned()),
    ];
    let moments = |dump: String| -> Vec<String> {
        let files = ["reset_method", "driver_override", "unbindLock"].map(|file| format!("{GPU}/{file} = "));
        let persistence = |line: &str| line.starts_with("gpu ") && line.contains(" persistence ");
        let changed = dump.lines().filter(|line| persistence(line) || files.iter().any(|file| line.contains(file)));
        // Of what is said of a GPU the driver and the mode stay as the step left them.
        let moment = |line: &str| match line.split_once(" persistence ") {
            Some((gpu, then)) => format!("{} persistence {}", &gpu[..16], then.split(' ').next().unwrap()),
            None => line.to_owned(),
        };
        changed.map(moment).collect()
    };
    let attributes = |moments: &[String]| -> Vec<String> {
        moments.iter().filter(|line| !line.contains(" persistence ")).cloned().collect()
    };
    let mut passed = 0;
    for (first, step, call) in cuts {
        let bench = bench(false);
        must_apply(&bench, &first);
        let before = moments(bench.dump());
        faults::set(bench.root(), &[Fault { times: Some(1), ..Fault::hang(&call) }]).unwrap();
        let cut = helper(&bench).carry_out(&Work::Do { step: step.clone() }, Duration::from_secs(4));
        assert_eq!(cut.ending, Ending::Overran, "{step:?}");
        assert_ne!(moments(bench.dump()), before, "{step:?} has changed nothing for a moment");
        // Another step, of which it is no part: not before all of this card is as it was.
        let reserved = Step::SetDriverOverride { address: gpu, from: None, to: None };
        let next = || helper(&bench).carry_out(&Work::Do { step: reserved.clone() }, Duration::from_secs(60));
        let put_back = ["driver_override", "reset_method"].map(&written).join("|");
        let refused = Fault::answer(&format!("{put_back}|write /proc/*|nvmlInit*|nvmlDeviceSet*"), Answer::Errno(5));
        faults::set(bench.root(), &[refused]).unwrap();
        let refused = next();
        // Persistence is of all GPUs: that it cannot be set keeps nobody from this one.
        if attributes(&moments(bench.dump())) == attributes(&before) {
            assert!(matches!(refused.ending, Ending::Done(_)), "{step:?}: {refused:?}");
            let after = moments(bench.dump());
            assert_ne!(after, before, "{step:?}: and it is still to be put back");
            passed += 1;
        } else {
            let Carried { found: None, ending: Ending::Failed(error) } = refused else {
                panic!("{step:?}: it went on")
            };
            assert!(error.message.starts_with("cannot put back"), "{error}");
        }
        // Nothing keeps an undo away.
        let undo = Work::Undo { step: reset.clone(), remembered: Vec::new() };
        let undone = helper(&bench).carry_out(&undo, Duration::from_secs(60));
        assert!(matches!(undone.ending, Ending::Done(_)), "{step:?}: {undone:?}");
        faults::set(bench.root(), &[]).unwrap();
        let next = next();
        assert!(matches!(next.ending, Ending::Done(_)), "{step:?}: {next:?}");
        assert_eq!(moments(bench.dump()), before, "{step:?}");
    }
    assert!((1..5).contains(&passed), "both kinds were tried: {passed}");
}

/// The same with nobody there to take it back: the step itself brings the GPU home.
#[test]
fn left_on_the_stub_the_gpu_is_brought_back_to_its_driver() {
    let bench = bench(false);
    let host = croft_gpu::HostFs::simulated(
        bench.root(),
        std::sync::Arc::new(croft_gpu_sim::kernel::SimKernel::at(bench.root())),
    )
    .unwrap();
    let before = bench.dump();
    let write = |path: &str, value: &str| host.write(path, value).unwrap();
    write(&format!("/sys/bus/pci/devices/{GPU}/driver/unbind"), GPU);
    write("/sys/bus/pci/drivers/pci-pf-stub/new_id", "10de 2330");
    assert_eq!(host.link_name(&format!("/sys/bus/pci/devices/{GPU}/driver")).unwrap(), "pci-pf-stub");
    must_apply(&bench, &[manage(false)]);
    assert_eq!(bench.dump(), before, "and its id is not the stub's any more");
}

/// By the name of one who came after the plan: nothing of the GPU is touched, and what the tool took off comes back.
#[test]
fn a_client_of_the_gpu_is_named_before_the_functions_lose_their_driver() {
    let bench = bench(true);
    let before = bench.dump();
    bench.host.hold(&Process::new(9, "dcgm", "dcgm.service"), "/dev/nvidia0").unwrap();
    let Outcome::Failed(failure) = bench.apply(&[manage(false)]) else { panic!("it was not refused") };
    assert!(failure.to_string().contains("dcgm (pid 9"), "{failure}");
    assert_eq!((&failure.undone, bench.dump()), (&Undone::Whole, before), "{failure}");
}

#[test]
fn persistence_is_nobodys_but_for_the_step() {
    let bench = Bench::new(SimHost::preset("devbox").unwrap());
    let of = |gpu: PciAddress| Nvidia::read(bench.root()).unwrap().gpu(gpu).unwrap().persistence;
    let neighbour = at("0000:61:00.0");
    for enable in [true, false] {
        must_apply(&bench, &[manage(enable)]);
        assert_eq!((of(at(GPU)), of(neighbour)), (false, false), "the tool turns it on everywhere");
    }
    must_apply(&bench, &[Step::SetPersistence { gpu: neighbour, from: false, to: true }, manage(true)]);
    assert_eq!((of(at(GPU)), of(neighbour)), (false, true));
}

/// The operator's own guest has the GPU by the time that its undo is tried again: it is not pulled out from under it.
#[test]
fn an_undo_takes_nothing_from_who_has_the_device_since() {
    let bench = bench(false);
    let (gpu, vfio) = (at(GPU), || "vfio-pci".to_owned());
    let unbound = Step::Unbind { address: gpu, driver: "nvidia".to_owned() };
    must_apply(&bench, &crate::bench::to_vfio(gpu, "nvidia"));
    let foreign = bench.dump();
    let reserved = Step::SetDriverOverride { address: gpu, from: Some("igb".to_owned()), to: Some("nvme".to_owned()) };
    for step in [unbound, manage(true), manage(false), reserved] {
        let left = vec![croft_gpu::apply::Left { step: step.clone(), remembered: Vec::new() }];
        let applier = bench.applier(InProcess::new(access(bench.root()).unwrap()));
        let TakenBack::Undone(Undone::Not { error, .. }) = applier.take_back(left, &mut |_| {}) else {
            panic!("{step:?} was undone")
        };
        assert!(error.message.contains(&vfio()), "{error}");
        assert_eq!(bench.dump(), foreign, "{step:?}");
    }
}
