//! Whatever happens in between, it ends as it should.

use proptest::prelude::*;

use super::without::Without;
use super::*;
use crate::instance::ExitKind;

mod world;

use world::{Mood, OURS, START, Verb, World, there};

#[derive(Debug, Clone, Copy)]
enum Happens {
    Pass,
    Live,
    Start,
    Stop,
    PowerCut,
    GuestPoweroff,
    NodeDeleted,
    TokenDeleted,
    Pods(usize),
    Blocked,
    Hour,
    Fenced,
    Feels(Mood),
}

fn happens() -> impl Strategy<Value = Happens> {
    let verb =
        prop_oneof![Just(Verb::Token), Just(Verb::Forget), Just(Verb::Change), Just(Verb::Evict), Just(Verb::Delete)];
    prop_oneof![
        6 => Just(Happens::Pass),
        4 => Just(Happens::Live),
        1 => Just(Happens::Start),
        2 => Just(Happens::Stop),
        1 => Just(Happens::PowerCut),
        1 => Just(Happens::GuestPoweroff),
        1 => Just(Happens::NodeDeleted),
        1 => Just(Happens::TokenDeleted),
        1 => (1..4usize).prop_map(Happens::Pods),
        1 => Just(Happens::Blocked),
        1 => Just(Happens::Hour),
        1 => Just(Happens::Fenced),
        1 => Just(Happens::Feels(Mood::Away)),
        1 => Just(Happens::Feels(Mood::Obliges)),
        1 => verb.prop_map(|verb| Happens::Feels(Mood::Refuses(verb))),
    ]
}

fn happen(world: &mut World, what: Happens) {
    match what {
        Happens::Pass => world.pass(),
        Happens::Live => world.live(),
        Happens::Start => world.power(Power::Running),
        Happens::Stop => world.power(Power::Stopped),
        Happens::PowerCut => world.end(ExitKind::HostShutdown),
        Happens::GuestPoweroff => world.end(ExitKind::GuestPoweroff),
        Happens::NodeDeleted => (world.seen.node, world.seen.pods) = (None, 0),
        Happens::TokenDeleted => world.seen.token = false,
        Happens::Pods(more) if world.seen.node.is_some() => world.seen.pods = more,
        Happens::Blocked => world.seen.blocked_by = vec!["db".into()],
        Happens::Hour => world.now = world.now.plus(Duration::from_secs(3600)),
        Happens::Pods(_) => {}
        Happens::Fenced => world.fence(),
        Happens::Feels(mood) => world.mood = mood,
    }
}

fn after(story: Vec<Happens>) -> World {
    let mut world = World::new();
    for what in story {
        happen(&mut world, what);
    }
    world
}

proptest! {
    #[test]
    fn whatever_happens_nothing_is_left_of_what_is_not_wanted(story in prop::collection::vec(happens(), 0..40)) {
        let mut world = after(story);
        world.mood = Mood::Obliges;
        world.power(Power::Stopped);
        world.settle();
        prop_assert_eq!(world.phase(), Phase::Left);
        prop_assert!(!world.runs() && world.seen.node.is_none() && !world.seen.token && !world.seed_has_token, "{:?}", world);
        prop_assert!(world.look().is_empty());
    }

    #[test]
    fn whatever_happens_what_is_wanted_joins_and_keeps_no_token(story in prop::collection::vec(happens(), 0..40)) {
        let mut world = after(story);
        world.mood = Mood::Obliges;
        world.power(Power::Running);
        world.settle();
        prop_assert!(world.phase() == Phase::Joined || world.phase() == Phase::Missed, "{:?}", world);
        prop_assert!(!world.seen.token && !world.seed_has_token, "{:?}", world);
        if world.phase() == Phase::Joined {
            let there = world.seen.node.clone().unwrap();
            prop_assert!(there.dressed && !there.cordoned && !there.out_of_service, "{:?}", world);
        }
        prop_assert!(world.look().is_empty());
    }

    #[test]
    fn whatever_the_cluster_refuses_what_is_not_wanted_is_off_in_the_end(
        story in prop::collection::vec(happens(), 0..40),
        mood in prop_oneof![
            Just(Mood::Away), Just(Mood::Refuses(Verb::Forget)), Just(Mood::Refuses(Verb::Change)),
            Just(Mood::Refuses(Verb::Evict)), Just(Mood::Refuses(Verb::Delete)),
        ],
        forced: bool,
    ) {
        let mut world = after(story);
        world.mood = mood;
        if forced { world.delete(true) } else { world.power(Power::Stopped) }
        world.settle();
        prop_assert!(!world.runs() && held(&world.instance) == Held::Not, "{:?}", world);
        // Nobody who pulls the plug waits for a cluster.
        prop_assert!(!forced || has_left(&world.instance), "{:?}", world);
        if let Mood::Refuses(Verb::Change | Verb::Evict) = mood {
            prop_assert!(world.seen.node.is_none(), "it may be deleted all the same: {:?}", world);
        }
    }
}

fn joined() -> World {
    let mut world = World::new();
    world.settle();
    assert_eq!(world.phase(), Phase::Joined);
    world
}

#[test]
fn a_guest_is_not_started_before_its_token_nor_stopped_before_its_node_has_left() {
    let mut world = World::new();
    assert_eq!(held(&world.instance), Held::Off);
    world.pass();
    world.pass();
    assert_eq!(world.phase(), Phase::Booting);
    assert!(world.seen.token && held(&world.instance) == Held::Not);
    world.settle();
    assert_eq!(world.phase(), Phase::Joined);
    world.seen.pods = 3;
    world.power(Power::Stopped);
    while world.phase() != Phase::Left {
        assert_eq!(held(&world.instance), Held::On, "{world:?}");
        world.pass();
    }
}

/// Of one that waits for its token, with a token that its cluster never got.
fn waiting_with_a_token_while_the_cluster_is_away() -> World {
    let mut world = World::new();
    world.pass();
    assert!(world.node().token.is_some() && world.phase() == Phase::Waiting);
    world.mood = Mood::Away;
    world
}

#[test]
fn what_never_ran_is_not_started_by_its_stop_or_delete() {
    for delete in [false, true] {
        let mut world = waiting_with_a_token_while_the_cluster_is_away();
        if delete {
            world.delete(false)
        } else {
            world.power(Power::Stopped)
        }
        assert_eq!(held(&world.instance), Held::Not, "nothing is there to be drained");
        world.pass();
        world.live();
        assert_eq!((world.phase(), world.runs()), (Phase::Leaving, false));
        if !delete {
            world.power(Power::Running);
            world.live();
            assert!(!world.runs(), "its token may not be good any more");
            world.mood = Mood::Obliges;
            world.settle();
            assert_eq!(world.phase(), Phase::Joined);
        }
    }
}

#[test]
fn a_machine_in_the_place_of_one_that_was_lost_is_not_started_by_a_stop() {
    let mut world = joined();
    world.seen.pods = 1;
    world.fence();
    world.live();
    assert!(world.instance.placement.is_some() && !world.runs());
    world.power(Power::Stopped);
    for _ in 0..3 {
        world.pass();
        world.live();
        assert!(!world.runs(), "{world:?}");
    }
    assert_eq!((world.phase(), world.node().lost), (Phase::Leaving, true));
}

#[test]
fn a_second_stop_does_not_start_a_guest_that_powered_itself_off() {
    let mut world = joined();
    (world.seen.pods, world.seen.blocked_by) = (1, vec!["db".into()]);
    world.power(Power::Stopped);
    world.pass();
    world.end(ExitKind::GuestPoweroff);
    world.power(Power::Stopped);
    world.live();
    assert!(!world.runs());
    assert_eq!(power_told(&world.instance), (Power::Running, 1));
}

#[test]
fn a_node_of_somebody_elses_is_left_alone() {
    let mut world = World::new();
    let node = SeenNode { dressed: true, ..there("aws://i-1") };
    world.seen.node = Some(node.clone());
    assert_eq!(world.look(), [Act::Enter(Phase::Waiting, Why::NameTaken("aws://i-1".into()))]);
    world.power(Power::Stopped);
    for _ in 0..10 {
        world.pass();
    }
    assert_eq!(world.phase(), Phase::Left);
    assert_eq!(world.seen.node, Some(node));
}

#[test]
fn a_drain_that_a_budget_blocks_ends_at_the_deadline_and_counts_from_when_pods_were_told() {
    let mut world = joined();
    (world.seen.pods, world.seen.blocked_by) = (1, vec!["db".into()]);
    world.power(Power::Stopped);
    world.pass();
    assert_eq!(world.look(), [Act::Cordon]);
    // The plane is down.
    world.now = world.now.plus(DRAIN_DEADLINE * 2);
    world.pass();
    assert_eq!(world.look(), [Act::Evict, Act::Drains(Way::Evicted)]);
    world.pass();
    assert_eq!(world.look(), [Act::Evict]);
    world.now = world.now.plus(DRAIN_DEADLINE);
    assert_eq!(world.look(), [Act::DeleteNode]);
}

#[test]
fn what_a_fenced_host_ran_is_let_go_of_before_another_machine_takes_its_place() {
    let mut world = joined();
    world.seen.pods = 1;
    world.fence();
    assert_eq!(held(&world.instance), Held::Off, "the new machine would find no token");
    // Nobody looked for a while.
    world.now = world.now.plus(LOST_DEADLINE * 2);
    assert_eq!(world.look(), [Act::OutOfService(true)]);
    world.pass();
    assert_eq!(world.look(), [Act::Drains(Way::LetGo)]);
    world.pass();
    assert_eq!(world.look(), [], "its pods move");
    world.seen.pods = 0;
    assert_eq!(world.look(), [Act::DeleteNode]);
    world.settle();
    assert_eq!((world.phase(), world.node().lost), (Phase::Joined, false));
    assert!(!world.seen.node.unwrap().out_of_service);
}

#[test]
fn a_machine_that_goes_off_in_a_drain_is_put_out_of_service_before_its_node_goes() {
    let mut world = joined();
    (world.seen.pods, world.seen.blocked_by) = (1, vec!["db".into()]);
    world.power(Power::Stopped);
    for _ in 0..3 {
        world.pass();
    }
    world.now = world.now.plus(DRAIN_DEADLINE / 2);
    world.end(ExitKind::GuestPoweroff);
    assert_eq!(world.look(), [Act::OutOfService(true)]);
    world.pass();
    assert_eq!(world.look(), [Act::Drains(Way::LetGo)]);
    world.pass();
    assert_eq!(world.look(), []);
    world.now = world.now.plus(LOST_DEADLINE);
    assert_eq!(world.look(), [Act::DeleteNode]);
}

#[test]
fn a_forced_delete_waits_for_no_pod_and_for_no_cordon() {
    let mut world = joined();
    (world.seen.pods, world.seen.blocked_by) = (1, vec!["db".into()]);
    world.delete(true);
    world.pass();
    assert_eq!(world.look(), [Act::DeleteNode]);
}

#[test]
fn a_cluster_that_refuses_a_cordon_holds_nobody_up_for_ever() {
    let mut world = joined();
    (world.seen.pods, world.mood) = (1, Mood::Refuses(Verb::Change));
    world.power(Power::Stopped);
    world.pass();
    assert_eq!(world.look(), [Act::Cordon]);
    world.pass();
    assert!(world.node().drain.is_some(), "it counts");
    world.now = world.now.plus(DRAIN_DEADLINE);
    assert_eq!(world.look(), [Act::DeleteNode]);
}

#[test]
fn a_node_that_may_not_be_deleted_lets_its_host_stop_it() {
    let mut world = joined();
    world.mood = Mood::Refuses(Verb::Delete);
    world.power(Power::Stopped);
    for _ in 0..4 {
        world.pass();
    }
    assert_eq!((world.phase(), held(&world.instance)), (Phase::Leaving, Held::On));
    world.now = world.now.plus(DRAIN_DEADLINE);
    world.pass();
    assert_eq!((world.phase(), held(&world.instance)), (Phase::Leaving, Held::Not));
    let guest = Guest { forced: true, ..world.guest() };
    assert_eq!(without::refused(world.node(), guest, world.now), Some(Without::Abandon));
}

#[test]
fn only_what_is_to_run_again_waits_for_ever_to_be_rebuilt() {
    let mut world = joined();
    world.instance.intent.disk_generation += 1;
    assert!(world.guest().rebuilt && !world.guest().wanted);
    let later = world.now.plus(DRAIN_DEADLINE * 2);
    let mut node = world.node().clone();
    node.enter(Phase::Leaving, world.now);
    assert_eq!(without::away(&node, world.guest(), START, later), None);
    world.power(Power::Stopped);
    assert_eq!(without::away(&node, world.guest(), START, later), Some(Without::Release));
}

#[test]
fn a_stop_waits_its_time_for_a_cluster_from_when_somebody_tried() {
    let mut world = joined();
    world.power(Power::Stopped);
    world.mood = Mood::Away;
    world.pass();
    let (node, guest) = (world.node(), world.guest());
    let later = world.now.plus(DRAIN_DEADLINE * 2);
    assert_eq!(without::away(node, guest, START, later), Some(Without::Release));
    assert_eq!(without::away(node, guest, later, later), None, "the plane was down");
}

#[test]
fn a_boot_that_waits_for_its_image_keeps_its_token_for_an_hour() {
    let mut world = World::new();
    world.pass();
    world.pass();
    assert_eq!(world.phase(), Phase::Booting);
    world.now = world.now.plus(JOIN_DEADLINE * 2);
    assert!(matches!(world.look()[..], [Act::Token(_)]), "it has not even started");
    let guest = Guest { start_time: Some(START), ..world.guest() };
    assert_eq!(next(world.node(), guest, OURS, &world.seen, world.now), [Act::Forget]);
    // Its cluster was away, and has just come back.
    let seen = Seen { since: world.now, ..world.seen.clone() };
    assert!(matches!(next(world.node(), guest, OURS, &seen, world.now)[..], [Act::Token(_)]));
}

#[test]
fn what_has_no_host_has_no_token_either() {
    let mut world = World::new();
    let placement = world.instance.placement.take();
    assert_eq!(world.look(), []);
    world.instance.placement = placement;
    world.pass();
    world.instance.placement = None;
    assert_eq!(world.look(), [Act::Forget]);
}
