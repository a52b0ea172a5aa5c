//! The host of a scene: looked at, changed and failed through the library.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use croft_gpu::apply::{Access, Applier, InProcess, Library, Outcome, Undone};
use croft_gpu::fabric::FabricSource;
use croft_gpu::host::{FabricPartition, Host};
use croft_gpu::nvml::{NvmlSource, snapshot};
use croft_gpu::plan::{Owners, Plan, Step, Wish, plan};
use croft_gpu_sim::access::access;
use croft_gpu_sim::faults::{self, Answer, Fault};
use croft_gpu_sim::kernel::{SimHost, dump};
use croft_gpu_sim::state::Nvidia;

/// EBUSY, "in use", EPERM, "unknown error", EIO.
const ANSWERS: [Answer; 5] =
    [Answer::Errno(16), Answer::Nvml(19), Answer::Errno(1), Answer::Nvml(999), Answer::Errno(5)];

pub struct Bench {
    pub root: PathBuf,
}

/// Built beside the tests.
fn library() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libcroft_nvml_sim.so")
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

    pub fn look(&self) -> Host {
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
            unread: None,
        };
        FabricSource::Partitions(fabric.partitions.into_iter().map(partition).collect())
    }

    pub fn dump(&self) -> String {
        dump(&self.root).unwrap()
    }

    /// A tree has thousands of lines, most of which are the same.
    fn is_as(&self, before: &str, at: &str) {
        let now = self.dump();
        if now != before {
            let only = |text: &str, other: &str| -> Vec<String> {
                text.lines().filter(|line| !other.lines().any(|known| known == *line)).map(str::to_owned).collect()
            };
            panic!("{at}\nwas: {:#?}\nis: {:#?}", only(before, &now), only(&now, before));
        }
    }

    pub fn plan(&self, wish: &Wish) -> Vec<Step> {
        plan(&self.look(), &Owners::default(), wish).unwrap_or_else(|refusal| panic!("{wish:?}: {refusal}")).steps
    }

    fn apply(&self, steps: &[Step]) -> Outcome {
        let plan = Plan { steps: steps.to_vec() };
        Applier::new(InProcess::new(self.access()), || 0).apply(&plan, &mut |_| {})
    }

    pub fn apply_all(&self, steps: &[Step]) {
        let outcome = self.apply(steps);
        assert!(matches!(outcome, Outcome::Applied { .. }), "{steps:?}: {outcome:?}");
    }

    /// Applied, and then there is nothing left to do.
    pub fn fulfil(&self, wish: &Wish) {
        self.apply_all(&self.plan(wish));
        assert_eq!(self.plan(wish), [], "{wish:?} is not true after its plan");
    }

    /// Every operation of `effects` fails once, and every step by one of them. How many there were.
    pub fn fail_steps(&self, steps: &[Step], before: &str, effects: &str) -> usize {
        let (mut failed, mut reached) = (0, BTreeSet::new());
        for n in 0.. {
            // What is tried again by itself needs another answer to fail.
            let mut struck = false;
            for answer in (0..3).map(|round| ANSWERS[(n as usize + round) % ANSWERS.len()]) {
                let fault = Fault { skip: n, times: Some(1), ..Fault::answer(effects, answer) };
                let index = self.fail(steps, before, fault, &mut struck);
                reached.extend(index);
                failed += usize::from(index.is_some());
                if index.is_some() || !struck {
                    break;
                }
            }
            if !struck {
                break;
            }
        }
        // A reset has several ways: it fails when none works.
        for (index, step) in steps.iter().enumerate().filter(|(index, _)| !reached.contains(index)).collect::<Vec<_>>()
        {
            let Step::Reset { address, .. } = step else { panic!("{step:?} never failed") };
            let fault = Fault::answer(&format!("write /sys/bus/pci/devices/{address}/reset"), Answer::Errno(25));
            assert_eq!(self.fail(steps, before, fault, &mut false), Some(index), "{step:?}");
            failed += 1;
        }
        failed
    }

    /// Every operation, reads among them, whether or not it makes a step fail.
    pub fn fail_operations(&self, steps: &[Step], before: &str) -> usize {
        let mut failed = 0;
        for n in 0.. {
            let answer = ANSWERS[n as usize % ANSWERS.len()];
            let mut struck = false;
            let fault = Fault { skip: n, times: Some(1), ..Fault::answer("*", answer) };
            failed += usize::from(self.fail(steps, before, fault, &mut struck).is_some());
            if !struck {
                break;
            }
        }
        failed
    }

    /// The host is as it was afterwards. Which step failed, if one did.
    fn fail(&self, steps: &[Step], before: &str, fault: Fault, struck: &mut bool) -> Option<usize> {
        let at = format!("{fault:?}");
        // In a helper process a session ends with the process, whatever this call answers; here it would stay open.
        let spared = Fault { answer: None, ..Fault::answer("nvmlShutdown", Answer::Nvml(0)) };
        faults::set(&self.root, &[spared, fault]).unwrap();
        let outcome = self.apply(steps);
        let text = std::fs::read_to_string(self.root.join("run/croft-sim/faults.json")).unwrap();
        *struck = serde_json::from_str::<Vec<Fault>>(&text).unwrap()[1].times != Some(1);
        faults::set(&self.root, &[]).unwrap();
        match outcome {
            Outcome::Failed(failure) => {
                assert!(*struck, "with no fault at all: {failure}");
                assert_eq!(failure.undone, Undone::Whole, "{at}: {failure}");
                self.is_as(before, &format!("{at}: {failure}"));
                Some(failure.index)
            }
            // It was tried again, or nobody needed the answer, or there was no such operation.
            Outcome::Applied { .. } => {
                self.apply_all(&steps.iter().rev().filter_map(Step::undo).collect::<Vec<_>>());
                self.is_as(before, &at);
                None
            }
            Outcome::Stuck(stuck) => panic!("{at}: {stuck}"),
        }
    }
}
