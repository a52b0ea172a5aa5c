//! Plans against a scripted executor: what is done, in which order, and what is said of it.
#![expect(clippy::unwrap_used, reason = "a test stops where something is missing")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use croft_gpu::apply::{
    Applier, Carried, Culprit, Deferred, Done, Ending, Executor, Found, Outcome, Remembered, ResetOutcome, Standing,
    StepError, Undone, Work,
};
use croft_gpu::plan::{Plan, Step};

/// Answers from a list; when that is at its end, everything is done.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Carried>>>,
    heard: Arc<Mutex<Vec<Work>>>,
}

impl Executor for Script {
    fn carry_out(&self, work: &Work, _: Duration) -> Carried {
        if let Work::Explain { .. } = work {
            let culprit = Culprit::Peer { address: "0000:41:00.1".parse().unwrap(), driver: "snd".to_owned() };
            return already_with(vec![culprit]);
        }
        self.heard.lock().unwrap().push(work.clone());
        self.answers.lock().unwrap().pop_front().unwrap_or_else(changed)
    }
}

fn remembered(text: &str) -> Vec<Remembered> {
    vec![Remembered::Attribute { path: "/driver_override".to_owned(), text: text.to_owned() }]
}

fn carried(ending: Ending) -> Carried {
    Carried { found: Some(Found { standing: Standing::Before, remembered: remembered("igb") }), ending }
}

fn changed() -> Carried {
    carried(Ending::Done(Done { changed: true, reset_method: Some("flr".to_owned()), ..Done::default() }))
}

fn already() -> Carried {
    already_with(vec![])
}

fn already_with(culprits: Vec<Culprit>) -> Carried {
    Carried { found: None, ending: Ending::Done(Done { culprits, ..Done::default() }) }
}

fn failed() -> Carried {
    carried(Ending::Failed(StepError::new("no")))
}

fn plan() -> Plan {
    let address = "0000:41:00.0".parse().unwrap();
    let driver = |name: &str| name.to_owned();
    Plan {
        steps: vec![
            Step::Unbind { address, driver: driver("nvidia") },
            Step::SetDriverOverride { address, from: None, to: Some(driver("vfio-pci")) },
            Step::Bind { address, driver: driver("vfio-pci") },
        ],
    }
}

fn apply(plan: &Plan, answers: impl IntoIterator<Item = Carried>) -> (Outcome, Vec<Work>) {
    apply_until(usize::MAX, plan, answers)
}

/// Told to stop when it has done so many things.
fn apply_until(stop: usize, plan: &Plan, answers: impl IntoIterator<Item = Carried>) -> (Outcome, Vec<Work>) {
    let script = Script { answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Script::default() };
    let times = Mutex::new(0);
    let now = move || {
        let mut time = times.lock().unwrap();
        *time += 1;
        *time
    };
    let so_far = Arc::clone(&script.heard);
    let applier = Applier::new(script.clone(), now).until(move || so_far.lock().unwrap().len() >= stop);
    let mut announced = Vec::new();
    let outcome = applier.apply(plan, &mut |work| announced.push(work.clone()));
    let heard = script.heard.lock().unwrap().clone();
    assert_eq!(announced, heard, "what is announced is done");
    (outcome, heard)
}

fn forward(steps: &[Step]) -> Vec<Work> {
    steps.iter().cloned().map(|step| Work::Do { step }).collect()
}

/// Those that came to their end have put back themselves what they changed for a moment; not so the last.
fn back(steps: &[Step]) -> Vec<Work> {
    let remembered = [remembered("igb")].into_iter().chain(std::iter::repeat(Vec::new()));
    steps.iter().rev().cloned().zip(remembered).map(|(step, remembered)| Work::Undo { step, remembered }).collect()
}

fn ended(mut works: Vec<Work>) -> Vec<Work> {
    for work in &mut works {
        if let Work::Undo { remembered, .. } = work {
            remembered.clear();
        }
    }
    works
}

#[test]
fn a_plan_without_steps_is_applied() {
    assert_eq!(apply(&Plan::default(), []), (Outcome::Applied { resets: vec![] }, vec![]));
}

#[test]
fn a_failure_takes_back_what_was_done_in_reverse_and_itself_first() {
    let steps = plan().steps;
    for at in 0..steps.len() {
        for ending in [Ending::Failed(StepError::new("no")), Ending::Overran] {
            let answers = std::iter::repeat_with(changed).take(at).chain([carried(ending.clone())]);
            let (outcome, heard) = apply(&plan(), answers);
            assert_eq!(heard, [forward(&steps[..=at]), back(&steps[..=at])].concat());
            let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
            assert_eq!((failure.index, &failure.step, &failure.undone), (at, &steps[at], &Undone::Whole));
            assert!(failure.to_string().contains("as it was before"), "{failure}");
        }
    }
}

#[test]
fn told_to_stop_it_ends_the_step_in_hand_and_takes_back() {
    let steps = plan().steps;
    for done in 0..steps.len() {
        let (outcome, heard) = apply_until(done, &plan(), []);
        assert_eq!(heard, [forward(&steps[..done]), ended(back(&steps[..done]))].concat());
        let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
        assert_eq!((failure.index, &failure.undone), (done, &Undone::Whole));
        assert_eq!(failure.error.deferred, Some(Deferred::Stopped));
        assert!(failure.culprits.is_empty(), "nobody is to blame: {failure}");
    }
    // In the last step there is nothing left to stop.
    let (outcome, _) = apply_until(steps.len(), &plan(), []);
    assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
}

#[test]
fn what_was_not_touched_is_not_taken_back() {
    let steps = plan().steps;
    let refused = Carried { found: None, ..failed() };
    let (_, heard) = apply(&plan(), [changed(), refused]);
    assert_eq!(heard, [forward(&steps[..2]), ended(back(&steps[..1]))].concat());
    // True before, and none of this plan's doing.
    let (_, heard) = apply(&plan(), [already(), changed(), failed()]);
    assert_eq!(heard, [forward(&steps), back(&steps[1..])].concat());
}

#[test]
fn an_undo_is_tried_again_and_then_given_up_with_a_list_of_what_is_left() {
    let steps = plan().steps;
    let (outcome, heard) = apply(&plan(), [changed(), failed(), failed(), failed()]);
    assert!(matches!(outcome, Outcome::Failed(failure) if failure.undone == Undone::Whole));
    assert_eq!(heard.len(), 2 + 3 + 1);

    let (outcome, heard) = apply(&plan(), [changed(), changed(), failed(), changed(), failed(), failed(), failed()]);
    assert_eq!(heard.len(), 3 + 1 + 3, "nothing is undone below what could not be");
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    let Undone::Not { left, .. } = &failure.undone else { panic!("{failure}") };
    assert_eq!(left.iter().map(|left| &left.step).collect::<Vec<_>>(), [&steps[1], &steps[0]]);
    assert!(failure.to_string().contains("unbind 0000:41:00.0 from nvidia"), "{failure}");
}

#[test]
fn a_stuck_helper_ends_everything_at_once() {
    let stuck = || carried(Ending::Stuck { pid: 77 });
    let steps = plan().steps;
    let (outcome, heard) = apply(&plan(), [changed(), stuck()]);
    assert_eq!(heard, forward(&steps[..2]), "not one more write");
    let Outcome::Stuck(stuck_at) = outcome else { panic!("{outcome:?}") };
    assert_eq!((stuck_at.index, stuck_at.pid), (1, 77));
    assert_eq!(stuck_at.left.iter().map(|left| &left.step).collect::<Vec<_>>(), [&steps[1], &steps[0]]);
    assert!(stuck_at.to_string().contains("0000:41:00.1"), "{stuck_at}");
    assert!(stuck_at.to_string().contains("process 77") && stuck_at.to_string().contains("reboot"), "{stuck_at}");

    let (outcome, heard) = apply(&plan(), [changed(), changed(), failed(), stuck()]);
    assert_eq!(heard.len(), 4);
    let Outcome::Stuck(stuck_at) = outcome else { panic!("{outcome:?}") };
    assert_eq!((stuck_at.index, &stuck_at.step), (2, &steps[2]));
}

#[test]
fn every_reset_leaves_a_record() {
    let address = "0000:41:00.0".parse().unwrap();
    let reset = Plan { steps: vec![Step::Reset { address, methods: vec!["flr".to_owned()] }] };
    let (Outcome::Applied { resets }, _) = apply(&reset, [changed()]) else { panic!() };
    let [record] = &resets[..] else { panic!("{resets:?}") };
    assert_eq!(
        (record.device.as_str(), record.method.as_deref(), &record.outcome),
        ("0000:41:00.0", Some("flr"), &ResetOutcome::Clean)
    );
    assert_eq!((record.started, record.ended), (1, 2));

    for ending in [Ending::Failed(StepError::new("it does not answer")), Ending::Overran] {
        let (Outcome::Failed(failure), _) = apply(&reset, [carried(ending)]) else { panic!() };
        assert!(matches!(&failure.resets[0].outcome, ResetOutcome::Doubtful { .. }), "{failure}");
    }
    let (Outcome::Stuck(stuck), _) = apply(&reset, [carried(Ending::Stuck { pid: 5 })]) else { panic!() };
    assert!(matches!(&stuck.resets[0].outcome, ResetOutcome::Doubtful { why } if why.contains('5')));
}

#[test]
fn a_culprit_is_looked_for_where_there_may_be_one() {
    let failing = |errno| carried(Ending::Failed(StepError { errno, ..StepError::new("no") }));
    // EBUSY, EPERM, and an effect that did not show; not ENODEV.
    for (errno, found) in [(Some(16), true), (Some(1), true), (None, true), (Some(19), false)] {
        let (Outcome::Failed(failure), _) = apply(&plan(), [failing(errno)]) else { panic!() };
        assert_eq!(!failure.culprits.is_empty(), found, "{errno:?}");
        assert_eq!(
            failure.to_string().contains("0000:41:00.1, of the same IOMMU group, is on snd"),
            found,
            "{failure}"
        );
    }
    let (Outcome::Failed(failure), _) = apply(&plan(), [carried(Ending::Overran)]) else { panic!() };
    assert!(!failure.culprits.is_empty());
}
