//! Every operation of every plan fails once, and the host is as it was before: the whole tree and NVIDIA's state, as text.

use std::sync::atomic::{AtomicUsize, Ordering};

use croft_gpu::apply::{Outcome, Undone};
use croft_gpu::plan::Step;
use croft_gpu_sim::faults::{self, Answer, Fault};

use crate::bench::{Bench, Scene, in_each, scenes};

/// EBUSY, EPERM, EIO; NVML's "in use" and "unknown error".
const ANSWERS: [Answer; 5] =
    [Answer::Errno(16), Answer::Errno(1), Answer::Errno(5), Answer::Nvml(19), Answer::Nvml(999)];

/// The n-th operation of any kind, from now on.
fn nth(n: usize, answer: Answer, times: Option<u32>) -> Fault {
    Fault { skip: n.try_into().unwrap(), times, ..Fault::answer("*", answer) }
}

/// Has the fault struck?
fn struck(bench: &Bench) -> bool {
    let text = std::fs::read(bench.root().join("run/croft-sim/faults.json")).unwrap();
    let left: Vec<Fault> = serde_json::from_slice(&text).unwrap();
    left[0].times == Some(0)
}

fn must_apply(bench: &Bench, steps: &[Step], what: &str) {
    let outcome = bench.apply(steps);
    assert!(matches!(outcome, Outcome::Applied { .. }), "{what}: {outcome:?}");
}

fn back(steps: &[Step]) -> Vec<Step> {
    steps.iter().rev().filter_map(Step::undo).collect()
}

/// Where the plan begins, and how the host looks before and after it.
fn there_and_back(scene: &Scene) -> (Bench, String, String) {
    let bench = Bench::set(scene);
    let before = bench.dump();
    for step in &scene.plan {
        must_apply(&bench, std::slice::from_ref(step), &scene.name);
        let once = bench.dump();
        must_apply(&bench, std::slice::from_ref(step), &scene.name);
        assert_eq!(bench.dump(), once, "{}: {step:?} done again changes nothing", scene.name);
    }
    let after = bench.dump();
    assert_ne!(before, after, "{}: the plan does something", scene.name);
    must_apply(&bench, &back(&scene.plan), &scene.name);
    assert_eq!(bench.dump(), before, "{}: undone, it leaves nothing", scene.name);
    (bench, before, after)
}

#[test]
fn one_failure_anywhere_leaves_the_host_as_it_was() {
    let failures = AtomicUsize::new(0);
    in_each(scenes(), |scene| {
        let (bench, before, after) = there_and_back(&scene);
        // All answers at all operations where that is quick, else each operation with another answer.
        let rounds = if scene.name.starts_with("nic") { ANSWERS.len() } else { 1 };
        for (round, n) in (0..rounds).flat_map(|round| (0..).map(move |n| (round, n))) {
            let answer = ANSWERS[(n + round) % ANSWERS.len()];
            faults::set(bench.root(), &[nth(n, answer, Some(1))]).unwrap();
            let outcome = bench.apply(&scene.plan);
            let at = format!("{}: operation {n} answers {answer:?}", scene.name);
            match &outcome {
                Outcome::Failed(failure) => {
                    failures.fetch_add(1, Ordering::Relaxed);
                    assert!(struck(&bench), "{at}: {failure}");
                    assert_eq!(failure.undone, Undone::Whole, "{at}: {failure}");
                    assert_eq!(bench.dump(), before, "{at}: {failure}");
                }
                // It was tried again, or the fault was beyond the last operation.
                Outcome::Applied { .. } => {
                    assert_eq!(bench.dump(), after, "{at}");
                    let beyond = !struck(&bench);
                    faults::set(bench.root(), &[]).unwrap();
                    must_apply(&bench, &back(&scene.plan), &at);
                    assert_eq!(bench.dump(), before, "{at}");
                    if beyond {
                        break;
                    }
                }
                Outcome::Stuck(stuck) => panic!("{at}: {stuck}"),
            }
        }
    });
    let failures = failures.into_inner();
    assert!(failures > 100, "{failures} failures are too few to prove anything");
}
