//! A cluster whose nodes, hosts and API server do what they like, minute by minute: whatever happens, nobody is restarted who
//! should not be.

use proptest::prelude::*;

use super::*;

const START: Timestamp = Timestamp(1_700_000_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);
const NOBODY: [usize; 0] = [];
const REPAIRS: [Repair; 5] = [Repair::Restart, Repair::None, Repair::Restart, Repair::Rebuild, Repair::Replace];

fn uid(n: usize) -> InstanceUid {
    InstanceUid::parse(&format!("01890000-0000-7000-8000-{n:012x}")).unwrap()
}

#[derive(Debug, Clone)]
struct Machine {
    node: Node,
    repair: Repair,
    runs: bool,
    off: bool,
    since: Timestamp,
    /// Minutes in which it was seen to be not well on a host that said that it runs; counted apart from the code.
    bad: u64,
    restarts: Vec<Timestamp>,
    /// What was done, and when.
    done: Vec<(Timestamp, Remedy)>,
}

#[derive(Debug, Clone)]
struct World {
    machines: Vec<Machine>,
    sight: Sight,
    answers: bool,
    now: Timestamp,
}

impl World {
    /// All Ready since long ago.
    fn of(machines: usize) -> Self {
        let machine = |n| {
            let mut node = Node::new(format!("n{n}"), Phase::Waiting, START);
            node.enter(Phase::Joined, START);
            node.is_ready(true, START.plus(MINUTE));
            Machine {
                node,
                repair: Repair::Restart,
                runs: true,
                off: false,
                since: START,
                bad: 0,
                restarts: Vec::new(),
                done: Vec::new(),
            }
        };
        let now = START.plus(60 * MINUTE);
        let sight = (0..machines).map(|n| (uid(n), START)).collect();
        Self { machines: (0..machines).map(machine).collect(), sight, answers: true, now }
    }

    fn fails(&mut self, n: usize) {
        let node = &mut self.machines[n].node;
        node.is_ready(false, self.now);
        node.reason = told::NODE_SILENT.into();
    }

    fn heals(&mut self, n: usize) {
        let node = &mut self.machines[n].node;
        if node.phase != Phase::Joined {
            node.enter(Phase::Joined, self.now.minus(MINUTE));
        }
        node.is_ready(true, self.now);
        node.reason.clear();
    }

    fn look(&self) -> BTreeMap<InstanceUid, Verdict> {
        let kept = |n: usize| {
            let one = &self.machines[n];
            Kept {
                uid: uid(n),
                node: &one.node,
                repair: one.repair,
                wanted: true,
                runs: one.runs,
                off: one.off,
                since: one.since,
            }
        };
        let fleet: Vec<Kept<'_>> = (0..self.machines.len()).map(kept).collect();
        look(&fleet, &self.sight, self.now)
    }

    fn verdict(&self, n: usize) -> Option<Verdict> {
        self.look().get(&uid(n)).copied()
    }

    /// A minute goes by, and what is due is done.
    fn minute(&mut self) -> Vec<usize> {
        self.now = self.now.plus(MINUTE);
        if !self.answers {
            self.sight.clear();
        }
        for n in 0..self.machines.len() {
            if self.answers {
                self.sight.entry(uid(n)).or_insert(self.now);
            }
            let machine = &mut self.machines[n];
            if machine.node.phase == Phase::Leaving && was_rebuilt(&machine.node) && self.answers {
                machine.node.enter(Phase::Waiting, self.now);
                machine.node.enter(Phase::Booting, self.now);
            }
            if machine.node.phase == Phase::Booting && self.now.since(machine.node.phase_time) >= JOIN_DEADLINE {
                machine.node.enter(Phase::Missed, self.now);
                machine.node.reason = told::NO_CERTIFICATE_REQUEST.into();
            }
            let bad = self.answers && machine.runs && !machine.off && !machine.node.ready;
            machine.bad = if bad { machine.bad + 1 } else { 0 };
        }
        let mut due = Vec::new();
        for (whose, verdict) in self.look() {
            let Verdict::Do(remedy) = verdict else { continue };
            let n = (0..self.machines.len()).find(|n| uid(*n) == whose).unwrap();
            let machine = &mut self.machines[n];
            note(&mut machine.node, remedy, self.now);
            machine.restarts.push(self.now);
            machine.done.push((self.now, remedy));
            if remedy > Remedy::Restart {
                machine.node.enter(Phase::Leaving, self.now);
            }
            due.push(n);
        }
        due
    }

    fn minutes(&mut self, many: u64) -> Vec<usize> {
        (0..many).flat_map(|_| self.minute()).collect()
    }
}

#[derive(Debug, Clone, Copy)]
enum Happens {
    Minutes(u64),
    Fails(usize),
    Heals(usize),
    Missed(usize),
    Flips(usize),
    Off(usize),
    ClusterFlips,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (1..40u64).prop_map(Happens::Minutes),
        6 => (0..25usize).prop_map(Happens::Fails),
        3 => (0..25usize).prop_map(Happens::Heals),
        1 => (0..25usize).prop_map(Happens::Missed),
        1 => (0..25usize).prop_map(Happens::Flips),
        1 => (0..25usize).prop_map(Happens::Off),
        1 => Just(Happens::ClusterFlips),
    ]
}

fn most_within(times: &[Timestamp], span: Duration) -> usize {
    let within = |first: &Timestamp| times.iter().filter(|time| **time >= *first && time.since(*first) < span).count();
    times.iter().map(within).max().unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_happens_only_who_is_seen_to_be_unwell_is_restarted_and_within_its_budgets(
        machines in 1..25usize,
        repairs in prop::collection::vec(0..REPAIRS.len(), 25),
        story in prop::collection::vec(happens(), 1..120),
    ) {
        let mut world = World::of(machines);
        world.machines.iter_mut().zip(&repairs).for_each(|(one, which)| one.repair = REPAIRS[*which]);
        for what in story {
            match what {
                Happens::Minutes(many) => for _ in 0..many {
                    let before = world.clone();
                    let due = world.minute();
                    let all = world.machines.iter().filter(|one| !one.off).count();
                    let unwell = world.machines.iter().filter(|one| !one.off && !one.node.ready).count();
                    prop_assert!(due.is_empty() || unwell <= (all * 2 / 5).max(1), "{unwell} of {all} are not well");
                    let in_restart = world.machines.iter().filter(|one| {
                        let last = one.restarts.last().is_some_and(|last| world.now.since(*last) < 20 * MINUTE);
                        last && !one.off && !one.node.ready
                    });
                    let in_restart = in_restart.count();
                    prop_assert!(due.is_empty() || in_restart <= (all / 10).max(1), "{in_restart} of {all} at once");
                    for n in due {
                        let one = &before.machines[n];
                        prop_assert!(one.bad >= 9, "not well for {} min: {one:?}", one.bad);
                        prop_assert!(one.runs && !one.off && !one.node.ready && world.answers);
                    }
                },
                Happens::Fails(n) if n < machines && world.machines[n].node.phase == Phase::Joined => world.fails(n),
                Happens::Heals(n) if n < machines => world.heals(n),
                Happens::Missed(n) if n < machines => {
                    let now = world.now;
                    world.machines[n].node.enter(Phase::Missed, now);
                    world.machines[n].node.reason = told::NO_CERTIFICATE_REQUEST.into();
                }
                Happens::Flips(n) if n < machines => {
                    let (one, now) = (&mut world.machines[n], world.now);
                    (one.runs, one.since) = (!one.runs, now);
                }
                Happens::Off(n) if n < machines => {
                    let (one, now) = (&mut world.machines[n], world.now);
                    (one.off, one.runs, one.since) = (!one.off, one.off, now);
                }
                Happens::ClusterFlips => world.answers = !world.answers,
                _ => {}
            }
        }
        for one in &world.machines {
            let lost: Vec<Timestamp> =
                one.done.iter().filter(|(_, remedy)| *remedy > Remedy::Restart).map(|(at, _)| *at).collect();
            prop_assert!(most_within(&lost, DAY) <= 2, "{:?}", one.done);
            for (n, (at, remedy)) in one.done.iter().enumerate() {
                let allowed = one.repair.highest();
                prop_assert!(Some(*remedy) <= allowed, "{remedy:?} where {allowed:?} was allowed");
                let before = one.done[..n].iter().filter(|(time, _)| at.since(*time) < DAY);
                let lower = before.filter(|(_, lower)| lower < remedy).count();
                prop_assert!(*remedy == Remedy::Restart || lower > 0, "no lower rung first: {:?}", one.done);
            }
            prop_assert!(most_within(&one.restarts, 60 * MINUTE) <= 2, "{:?}", one.restarts);
            prop_assert!(most_within(&one.restarts, DAY) <= PER_DAY, "{:?}", one.restarts);
        }
    }

    #[test]
    fn a_node_that_alone_is_unwell_is_restarted_in_time_and_the_others_are_left_alone(machines in 1..25usize) {
        let mut world = World::of(machines);
        world.fails(0);
        prop_assert_eq!(world.minutes(9), NOBODY);
        prop_assert_eq!(world.minutes(1), [0]);
        world.heals(0);
        prop_assert_eq!(world.minutes(600), NOBODY);
    }
}

#[test]
fn one_that_does_not_come_back_is_restarted_ever_more_seldom_and_six_times_a_day() {
    let mut world = World::of(3);
    world.fails(0);
    assert_eq!(world.minutes(24 * 60).len(), PER_DAY);
    let at: Vec<u64> = world.machines[0]
        .restarts
        .iter()
        .map(|time| time.since(world.machines[0].restarts[0]).as_secs() / 60)
        .collect();
    assert_eq!(at, [0, 20, 60, 140, 300, 620]);
    assert_eq!(world.verdict(0), Some(Verdict::HeldBack(HeldBack::Spent)));
    assert_eq!(world.minutes(15), [0], "the day of the first is over");
}

#[test]
fn the_ladder_is_climbed_as_far_as_it_is_allowed_and_a_disk_is_lost_twice_a_day() {
    use Remedy::{Rebuild, Replace, Restart};
    let climbed = |repair| {
        let mut world = World::of(3);
        world.machines[0].repair = repair;
        world.fails(0);
        world.minutes(24 * 60);
        world.machines[0].done.iter().map(|(_, remedy)| *remedy).collect::<Vec<_>>()
    };
    assert_eq!(climbed(Repair::None), []);
    assert_eq!(climbed(Repair::Restart), [Restart; 6]);
    assert_eq!(climbed(Repair::Rebuild)[..4], [Restart, Rebuild, Rebuild, Restart]);
    assert_eq!(climbed(Repair::Replace)[..4], [Restart, Rebuild, Replace, Restart]);

    // While it leaves and is made anew it is one of those that others wait for.
    let mut world = World::of(10);
    world.machines[0].repair = Repair::Rebuild;
    world.fails(0);
    assert_eq!(world.minutes(10), [0]);
    assert_eq!(world.minutes(20), [0]);
    assert_eq!((world.machines[0].node.phase, was_rebuilt(&world.machines[0].node)), (Phase::Leaving, true));
    world.fails(1);
    assert_eq!(world.minutes(10), NOBODY);
    assert_eq!(world.verdict(1), Some(Verdict::HeldBack(HeldBack::Turn)));
    world.heals(0);
    assert_eq!(world.minutes(1), [1]);
}

#[test]
fn where_nearly_half_of_a_cluster_is_unwell_nobody_is_restarted_and_they_say_why() {
    let mut world = World::of(10);
    (0..5).for_each(|n| world.fails(n));
    assert_eq!(world.minutes(60), NOBODY);
    assert_eq!(world.verdict(0), Some(Verdict::HeldBack(HeldBack::Storm)));
    world.heals(0);
    assert_eq!(world.minutes(1), [1], "one at a time, where a tenth is one");
    assert_eq!(world.verdict(2), Some(Verdict::HeldBack(HeldBack::Turn)));
    assert_eq!(world.verdict(1), None, "it has its time");
    world.heals(1);
    assert_eq!(world.minutes(1), [2]);
    // It did not come back, and holds up nobody for longer than that.
    assert_eq!(world.minutes(19), NOBODY);
    assert_eq!(world.minutes(1), [3]);
}

#[test]
fn who_is_not_seen_is_not_restarted() {
    let mut world = World::of(4);
    world.fails(0);
    world.minutes(9);
    world.answers = false;
    assert_eq!(world.minutes(60), NOBODY);
    world.answers = true;
    assert_eq!(world.minutes(10), NOBODY, "from here on it is seen again");
    assert_eq!(world.minutes(1), [0]);

    let mut silent = World::of(4);
    silent.fails(0);
    silent.machines[0].runs = false;
    assert_eq!(silent.minutes(60), NOBODY, "its host says nothing");
    (silent.machines[0].runs, silent.machines[0].since) = (true, silent.now);
    assert_eq!(silent.minutes(9), NOBODY);
    assert_eq!(silent.minutes(1), [0]);
}

#[test]
fn without_consent_or_without_a_node_nothing_is_done() {
    let mut world = World::of(4);
    world.fails(0);
    world.machines[0].repair = Repair::None;
    assert_eq!(world.minutes(60), NOBODY);
    world.machines[0].repair = Repair::Restart;
    world.machines[0].node.reason = told::NODE_MISSING.into();
    assert_eq!(world.minutes(60), NOBODY, "somebody deleted it");
    world.machines[0].node.reason = "CLUSTER_RIGHTS_MISSING".into();
    assert_eq!(world.minutes(60), NOBODY, "what the cluster refuses is not the machine's fault");
    world.machines[0].node.enter(Phase::Leaving, world.now);
    assert_eq!(world.minutes(60), NOBODY);
}

#[test]
fn a_new_node_has_the_time_of_a_join_and_one_that_missed_it_gets_another_go() {
    let mut world = World::of(4);
    world.machines[0].node = Node::new("n0".into(), Phase::Booting, world.now);
    world.machines[0].node.enter(Phase::Joined, world.now);
    world.machines[0].node.reason = told::NODE_NOT_READY.into();
    assert_eq!(world.minutes(20), NOBODY);
    assert_eq!(world.minutes(1), [0]);

    let mut world = World::of(4);
    let mut missed = Node::new("n0".into(), Phase::Missed, world.now);
    (missed.reason, missed.message) = (told::NO_CERTIFICATE_REQUEST.into(), "the console says why".into());
    assert!(
        words(&missed, Remedy::Restart, world.now)
            .contains("n0 has not been well for 0 min (NoCertificateRequest: the console says why)")
    );
    world.machines[0].node = missed;
    assert_eq!(world.minutes(10), [0]);
    let node = &world.machines[0].node;
    assert_eq!((node.phase, node.reason.as_str(), node.repairs.len()), (Phase::Booting, "", 1));
}
