//! What fails and goes on failing can not be undone, and that is said; with a list of what is still to be taken back.

use croft_gpu::apply::{InProcess, Outcome, TakenBack, Undone};
use croft_gpu_sim::access::access;
use croft_gpu_sim::faults::{self, Answer, Fault};

use crate::bench::{Bench, in_each, scenes};

#[test]
fn whatever_breaks_for_good_is_never_called_whole() {
    let chosen = ["nic: passthrough", "nic: return", "h100_sxm_80gb: carve beside one in use"];
    let scenes: Vec<_> = scenes().into_iter().filter(|scene| chosen.contains(&scene.name.as_str())).collect();
    assert_eq!(scenes.len(), chosen.len());
    in_each(scenes, |scene| {
        let (mut whole, mut broken) = (0, 0);
        let bench = Bench::set(&scene);
        let before = bench.dump();
        for n in 0.. {
            faults::set(bench.root(), &[Fault { skip: n, ..Fault::answer("*", Answer::Errno(5)) }]).unwrap();
            let outcome = bench.apply(&scene.plan);
            faults::set(bench.root(), &[]).unwrap();
            let Outcome::Failed(failure) = outcome else { break };
            if let Undone::Not { left, .. } = &failure.undone {
                broken += 1;
                assert!(failure.to_string().contains("still done"), "{failure}");
                // Whoever comes when the fault is gone goes through the list.
                let applier = bench.applier(InProcess::new(access(bench.root()).unwrap()));
                let back = applier.take_back(left.clone(), &mut |_| {});
                assert_eq!(back, TakenBack::Undone(Undone::Whole), "{}, operation {n}", scene.name);
            } else {
                whole += 1;
            }
            assert_eq!(bench.dump(), before, "{}, operation {n}: {failure}", scene.name);
        }
        assert!(whole > 0 && broken > 0, "{}: {whole} whole, {broken} broken", scene.name);
    });
}
