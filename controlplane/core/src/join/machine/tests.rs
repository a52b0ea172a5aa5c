//! A cluster and a guest that do what they like, beside the machine: whatever happens in between, it ends as it should.

use proptest::prelude::*;

use super::*;

const OURS: &str = "croft://acme/1";
const START: Timestamp = Timestamp(1_700_000_000_000_000);

#[derive(Debug, Clone)]
struct World {
    node: Node,
    seen: Seen,
    guest: Guest,
    seed_has_token: bool,
    /// The kubelet has its own certificate and needs no token any more.
    certificate: bool,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let node = Node::new("n".into(), Phase::Waiting, START);
        let guest = Guest { wanted: true, placed: true, off: true, forced: false, start_time: None };
        let (seen, now) = (Seen::default(), START);
        Self { node, seen, guest, seed_has_token: false, certificate: false, now }
    }

    fn look(&self) -> Vec<Act> {
        // As `Guest::of` puts it.
        let guest = Guest { off: self.guest.off || self.node.lost, ..self.guest };
        next(&self.node, guest, OURS, &self.seen, self.now)
    }

    fn carry_out(&mut self, act: &Act) {
        let there = self.seen.node.as_mut();
        match act {
            Act::Token(until) => {
                (self.seen.token, self.seed_has_token) = (true, true);
                self.node.token = Some(Token { id: "abcdef".into(), expire_time: *until });
            }
            Act::Forget => {
                (self.seen.token, self.seed_has_token) = (false, false);
                self.node.token = None;
            }
            Act::Dress => there.unwrap().dressed = true,
            Act::Cordon => there.unwrap().cordoned = true,
            Act::Uncordon => there.unwrap().cordoned = false,
            Act::OutOfService(on) => there.unwrap().out_of_service = *on,
            Act::Evict => self.seen.pods = self.seen.pods.saturating_sub(usize::from(self.seen.blocked_by.is_empty())),
            Act::DeleteNode => {
                let late = self.now.since(self.node.phase_time) > DRAIN_DEADLINE;
                let leaving = self.node.phase == Phase::Leaving;
                let off = self.guest.off || self.node.lost;
                assert!(!leaving || self.seen.pods == 0 || late || off, "pods were thrown out: {self:?}");
                (self.seen.node, self.seen.pods) = (None, 0);
            }
            Act::Enter(phase, _) => self.node.enter(*phase, self.now),
        }
    }

    /// The host does what it is told and allowed, the kubelet what it can.
    fn live(&mut self) {
        let gates = gates(self.node.phase);
        if self.guest.wanted && gates.start && self.guest.off {
            (self.guest.off, self.guest.start_time) = (false, Some(self.now));
        }
        if !self.guest.wanted && gates.stop {
            self.guest.off = true;
        }
        let may_ask = self.seed_has_token && self.seen.token;
        if !self.guest.off && gates.register && (self.certificate || may_ask) && self.seen.node.is_none() {
            self.certificate = true;
            let node = SeenNode {
                provider_id: OURS.into(),
                ready: true,
                dressed: false,
                cordoned: false,
                out_of_service: false,
            };
            self.seen.node = Some(node);
        }
    }

    fn pass(&mut self) {
        for act in self.look() {
            self.carry_out(&act);
        }
        self.now = self.now.plus(Duration::from_secs(5));
    }

    /// Nobody interferes any more.
    fn settle(&mut self) {
        for _ in 0..600 {
            self.live();
            self.pass();
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Happens {
    Pass,
    Live,
    Flip,
    PowerCut,
    NodeDeleted,
    TokenDeleted,
    Pods(usize),
    Blocked,
    Hour,
    Fenced,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => Just(Happens::Pass),
        4 => Just(Happens::Live),
        2 => Just(Happens::Flip),
        1 => Just(Happens::PowerCut),
        1 => Just(Happens::NodeDeleted),
        1 => Just(Happens::TokenDeleted),
        1 => (1..4usize).prop_map(Happens::Pods),
        1 => Just(Happens::Blocked),
        1 => Just(Happens::Hour),
        1 => Just(Happens::Fenced),
    ]
}

fn happen(world: &mut World, what: Happens) {
    match what {
        Happens::Pass => world.pass(),
        Happens::Live => world.live(),
        Happens::Flip => world.guest.wanted = !world.guest.wanted,
        Happens::PowerCut => world.guest.off = true,
        Happens::NodeDeleted => (world.seen.node, world.seen.pods) = (None, 0),
        Happens::TokenDeleted => world.seen.token = false,
        Happens::Pods(more) if world.seen.node.is_some() => world.seen.pods = more,
        Happens::Blocked => world.seen.blocked_by = vec!["db".into()],
        Happens::Hour => world.now = world.now.plus(Duration::from_secs(3600)),
        Happens::Pods(_) => {}
        // Whatever takes its place has an empty disk.
        Happens::Fenced => {
            (world.guest.off, world.certificate) = (true, false);
            world.node.lose(world.now);
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_nothing_is_left_of_what_is_not_wanted(story in prop::collection::vec(happens(), 0..40)) {
        let mut world = World::new();
        for what in story {
            happen(&mut world, what);
        }
        world.guest.wanted = false;
        world.settle();
        prop_assert_eq!(world.node.phase, Phase::Left);
        prop_assert!(world.guest.off && world.seen.node.is_none() && !world.seen.token && !world.seed_has_token, "{:?}", world);
        prop_assert!(world.look().is_empty());
    }

    #[test]
    fn whatever_happens_what_is_wanted_joins_and_keeps_no_token(story in prop::collection::vec(happens(), 0..40)) {
        let mut world = World::new();
        for what in story {
            happen(&mut world, what);
        }
        world.guest.wanted = true;
        world.settle();
        let there = world.seen.node.clone();
        prop_assert!(world.node.phase == Phase::Joined || world.node.phase == Phase::Missed, "{:?}", world);
        prop_assert!(!world.seen.token && !world.seed_has_token, "{:?}", world);
        if world.node.phase == Phase::Joined {
            let there = there.unwrap();
            prop_assert!(there.dressed && !there.cordoned && !there.out_of_service, "{:?}", world);
        }
        prop_assert!(world.look().is_empty());
    }
}

#[test]
fn a_guest_is_not_started_before_its_token_nor_stopped_before_its_node_has_left() {
    let mut world = World::new();
    assert!(!gates(world.node.phase).start);
    world.pass();
    world.pass();
    assert_eq!(world.node.phase, Phase::Booting);
    assert!(world.seen.token && gates(world.node.phase).start);
    world.settle();
    assert_eq!(world.node.phase, Phase::Joined);
    world.seen.pods = 3;
    world.guest.wanted = false;
    while world.node.phase != Phase::Left {
        assert!(!gates(world.node.phase).stop, "{world:?}");
        world.pass();
    }
}

#[test]
fn a_node_of_somebody_elses_is_left_alone() {
    let mut world = World::new();
    let node = SeenNode {
        provider_id: "aws://i-1".into(),
        ready: true,
        dressed: true,
        cordoned: false,
        out_of_service: false,
    };
    world.seen.node = Some(node.clone());
    assert_eq!(world.look(), [Act::Enter(Phase::Waiting, Why::NameTaken("aws://i-1".into()))]);
    world.guest.wanted = false;
    for _ in 0..10 {
        world.pass();
    }
    assert_eq!(world.node.phase, Phase::Left);
    assert_eq!(world.seen.node, Some(node));
}

#[test]
fn a_drain_that_a_budget_blocks_ends_at_the_deadline() {
    let mut world = World::new();
    world.settle();
    (world.seen.pods, world.seen.blocked_by) = (1, vec!["db".into()]);
    world.guest.wanted = false;
    world.pass();
    world.pass();
    assert_eq!(world.look(), [Act::Evict]);
    world.now = world.now.plus(DRAIN_DEADLINE);
    assert_eq!(world.look(), [Act::DeleteNode]);
}

#[test]
fn what_a_fenced_host_ran_is_let_go_of_before_another_machine_takes_its_place() {
    let mut world = World::new();
    world.settle();
    world.seen.pods = 1;
    happen(&mut world, Happens::Fenced);
    assert!(!gates(world.node.phase).start, "the new machine would find no token");
    assert_eq!(world.look(), [Act::OutOfService(true)]);
    world.pass();
    assert_eq!(world.look(), [], "its pods move");
    world.seen.pods = 0;
    assert_eq!(world.look(), [Act::DeleteNode]);
    world.settle();
    assert_eq!((world.node.phase, world.node.lost), (Phase::Joined, false));
    assert!(!world.seen.node.unwrap().out_of_service);
}

#[test]
fn a_forced_delete_waits_for_no_pod() {
    let mut world = World::new();
    world.settle();
    (world.seen.pods, world.seen.blocked_by) = (1, vec!["db".into()]);
    (world.guest.wanted, world.guest.forced) = (false, true);
    for _ in 0..2 {
        world.pass();
    }
    assert_eq!(world.look(), [Act::DeleteNode]);
}

#[test]
fn a_boot_that_waits_for_its_image_keeps_its_token_for_an_hour() {
    let mut world = World::new();
    world.pass();
    world.pass();
    assert_eq!(world.node.phase, Phase::Booting);
    world.now = world.now.plus(JOIN_DEADLINE * 2);
    assert!(matches!(world.look()[..], [Act::Token(_)]), "it has not even started");
    world.guest.start_time = Some(START);
    assert_eq!(world.look(), [Act::Forget]);
}

#[test]
fn what_has_no_host_has_no_token_either() {
    let mut world = World::new();
    world.guest.placed = false;
    assert_eq!(world.look(), []);
    world.guest.placed = true;
    world.pass();
    world.guest.placed = false;
    assert_eq!(world.look(), [Act::Forget]);
}
