//! A node that is not well: restarted once, in the commit that counted, and not by what was true before.

use croft_core::join::keep::{HeldBack, Kept, Remedy, Repair, Sight, Verdict, look};
use croft_core::join::machine::{Guest, told};
use croft_store::HostReport;

use super::*;
use crate::bed::report;

const MINUTE: Duration = Duration::from_secs(60);

impl Bed {
    /// Joined, Ready for a minute, and silent from then on; its host says that it runs.
    async fn silent(&self, id: &str, repair: Repair) -> Instance {
        let mut new = joining("acme", id, CLUSTER);
        new.spec.node.as_mut().unwrap().repair = repair;
        let vm = self.claim(call(), new).await.unwrap().1;
        self.enters(&vm, NodePhase::Booting).await;
        self.see(vm.uid, Phase::Running).await;
        self.enters(&vm, NodePhase::Joined).await;
        self.settle(vm.uid).await;
        for ready in [true, false] {
            self.clock.advance(MINUTE);
            let now = self.clock.now();
            let there = self.get(vm.uid).await;
            self.step(&there, |node| {
                node.is_ready(ready, now);
                node.reason = if ready { String::new() } else { told::NODE_SILENT.to_owned() };
            })
            .await;
        }
        self.get(vm.uid).await
    }

    async fn restarts(&self, vm: &Instance, sight: &Sight) -> Option<Instance> {
        self.remedy(vm, sight, Remedy::Replace).await.map(|(instance, _)| instance)
    }

    async fn remedy(&self, vm: &Instance, sight: &Sight, most: Remedy) -> Option<(Instance, Remedy)> {
        let cluster = &vm.spec.node.as_ref().unwrap().cluster_uid;
        self.store.instance_node_remedy(cluster, vm.uid, sight.clone(), most).await.unwrap()
    }

    /// What its host is told: of power and of its disk; `None`: to remove it.
    async fn tells(&self, vm: &Instance) -> Option<(Power, i64)> {
        let desired = self.store.host_desired(vm.host().unwrap()).await.unwrap();
        let told = desired.instances.into_iter().find(|(one, ..)| one.uid == vm.uid)?;
        Some((told.0.intent.power, told.0.intent.disk_generation))
    }
}

#[tokio::test]
async fn a_silent_node_is_restarted_once_and_only_while_it_is_seen_and_runs() {
    let bed = bed().await;
    let vm = bed.silent("vm", Repair::Restart).await;
    let sight = Sight::from([(vm.uid, bed.clock.now())]);
    assert_eq!(bed.restarts(&vm, &sight).await, None, "it has not been silent for long");
    bed.clock.advance(10 * MINUTE);
    assert_eq!(bed.restarts(&vm, &Sight::new()).await, None, "nobody has seen it");
    let again = Sight::from([(vm.uid, bed.clock.now())]);
    assert_eq!(bed.restarts(&vm, &again).await, None, "nobody has seen it for long");
    let done = bed.restarts(&vm, &sight).await.expect("it is due");
    assert_eq!((vm.intent.reset_generation, done.intent.reset_generation), (0, 1));
    assert_eq!(done.node.as_ref().unwrap().repairs, [bed.clock.now()]);
    assert_eq!(bed.get(vm.uid).await, done);
    let told = bed.store.host_desired(&h("h1")).await.unwrap().instances.remove(0).0;
    assert_eq!((told.intent.reset_generation, told.intent.power), (1, Power::Running), "its host is told");
    assert_eq!(bed.restarts(&vm, &sight).await, None, "once");
    let (events, ..) = bed.store.events_list(Some(&t("acme")), Some(&vm.name()), &Page::first(100)).await.unwrap();
    let event = events.iter().find(|event| event.reason == "NodeRestarted").expect("an event");
    assert!(event.message.contains("has not been well for 10 min (NodeSilent)"), "{}", event.message);
    bed.consistent().await;
}

#[tokio::test]
async fn of_two_who_are_due_one_is_restarted_and_the_other_has_its_turn_later() {
    let bed = bed().await;
    let (one, two) = (bed.silent("one", Repair::Restart).await, bed.silent("two", Repair::Restart).await);
    let mut well = Vec::new();
    for n in 0..3 {
        let vm = bed.silent(&format!("well{n}"), Repair::None).await;
        let now = bed.clock.now();
        well.push(bed.step(&vm, |node| node.is_ready(true, now)).await.uid);
    }
    let all = [one.uid, two.uid].into_iter().chain(well);
    let sight: Sight = all.map(|uid| (uid, bed.clock.now())).collect();
    bed.clock.advance(11 * MINUTE);
    assert!(bed.restarts(&two, &sight).await.is_none(), "the other is silent for longer");
    assert!(bed.restarts(&one, &sight).await.is_some());
    assert!(bed.restarts(&two, &sight).await.is_none());
    let fleet = bed.store.instance_nodes(&one.spec.node.as_ref().unwrap().cluster_uid).await.unwrap();
    let kept: Vec<Kept<'_>> = fleet.iter().filter_map(Kept::of).collect();
    let verdicts = look(&kept, &sight, bed.clock.now());
    assert_eq!(verdicts.get(&two.uid), Some(&Verdict::HeldBack(HeldBack::Turn)));
    bed.clock.advance(20 * MINUTE);
    assert!(bed.restarts(&two, &sight).await.is_some(), "the first had its time");
}

#[tokio::test]
async fn what_its_host_or_its_user_did_since_is_seen_in_the_same_commit() {
    let bed = bed().await;
    let vm = bed.silent("vm", Repair::Restart).await;
    let sight = Sight::from([(vm.uid, bed.clock.now())]);
    bed.clock.advance(11 * MINUTE);
    bed.command(&vm, Command::Reset).await.unwrap();
    assert_eq!(bed.restarts(&vm, &sight).await, None, "its user was quicker");
    bed.see(vm.uid, Phase::Running).await;
    bed.settle(vm.uid).await;
    assert_eq!(bed.restarts(&vm, &sight).await, None, "and his reset has its time");
    bed.clock.advance(10 * MINUTE);
    let off = |instance: &mut Instance| {
        instance.spec.node.as_mut().unwrap().repair = Repair::None;
        Ok(())
    };
    bed.store.instance_update(&call(), &t("acme"), "vm", "", off).await.unwrap();
    assert_eq!(bed.get(vm.uid).await.spec.node.unwrap().repair, Repair::None);
    assert_eq!(bed.restarts(&vm, &sight).await, None, "he does not want it");
    let on = |instance: &mut Instance| {
        instance.spec.node.as_mut().unwrap().repair = Repair::Restart;
        Ok(())
    };
    bed.store.instance_update(&call(), &t("acme"), "vm", "", on).await.unwrap();
    bed.clock.advance(10 * MINUTE);
    assert!(bed.restarts(&vm, &sight).await.is_some(), "now he does");
}

#[tokio::test]
async fn what_a_restart_did_not_mend_leaves_its_cluster_gets_a_new_disk_and_joins_again() {
    let bed = bed().await;
    let vm = bed.silent("vm", Repair::Rebuild).await;
    let sight = Sight::from([(vm.uid, bed.clock.now())]);
    bed.clock.advance(10 * MINUTE);
    let (restarted, first) = bed.remedy(&vm, &sight, Remedy::Replace).await.expect("it is due");
    assert_eq!((first, restarted.intent.disk_generation), (Remedy::Restart, 0));
    bed.see(vm.uid, Phase::Running).await;
    bed.clock.advance(20 * MINUTE);
    let (rebuilt, second) = bed.remedy(&vm, &sight, Remedy::Replace).await.expect("it did not help");
    assert_eq!((second, rebuilt.intent.disk_generation), (Remedy::Rebuild, 1));
    let node = rebuilt.node.clone().unwrap();
    assert_eq!((node.repairs.len(), node.rebuilds), (2, vec![bed.clock.now()]));
    assert_eq!(bed.tells(&vm).await, Some((Power::Running, 0)), "its pods are drained first");
    assert_eq!(bed.remedy(&vm, &sight, Remedy::Replace).await, None, "once");
    let (events, ..) = bed.store.events_list(Some(&t("acme")), Some(&vm.name()), &Page::first(100)).await.unwrap();
    let event = events.iter().find(|event| event.reason == "NodeRebuilt").expect("an event");
    assert!(event.message.contains("time 2 of 6"), "{}", event.message);

    bed.enters(&vm, NodePhase::Leaving).await;
    assert_eq!(bed.tells(&vm).await, Some((Power::Running, 0)));
    bed.enters(&vm, NodePhase::Left).await;
    bed.enters(&vm, NodePhase::Waiting).await;
    assert_eq!(bed.tells(&vm).await, Some((Power::Stopped, 1)), "off, and another disk");
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Stopping));
    assert!(!Guest::of(&bed.get(vm.uid).await).placed, "no token before the disk is there");
    bed.see(vm.uid, Phase::Off).await;
    assert_eq!(bed.settle(vm.uid).await.after, Some(State::Pending));
    assert!(Guest::of(&bed.get(vm.uid).await).placed);
    bed.enters(&vm, NodePhase::Booting).await;
    assert_eq!(bed.tells(&vm).await, Some((Power::Running, 1)));
    bed.consistent().await;
}

#[tokio::test]
async fn the_ladder_goes_no_higher_than_its_user_its_agent_and_the_room_allow() {
    let due = async |bed: &Bed, repair| {
        let vm = bed.silent("vm", repair).await;
        let sight = Sight::from([(vm.uid, bed.clock.now())]);
        bed.clock.advance(10 * MINUTE);
        bed.remedy(&vm, &sight, Remedy::Replace).await.expect("it is due");
        bed.see(vm.uid, Phase::Running).await;
        bed.clock.advance(20 * MINUTE);
        (vm, sight)
    };
    let consents = bed().await;
    let (vm, sight) = due(&consents, Repair::Restart).await;
    assert_eq!(consents.remedy(&vm, &sight, Remedy::Replace).await.unwrap().1, Remedy::Restart);

    let old = bed().await;
    let (vm, sight) = due(&old, Repair::Replace).await;
    let told = HostReport { features: vec!["seed.files".to_owned()], ..report(16) };
    old.store.host_report(&h("h1"), told).await.unwrap();
    let (instance, remedy) = old.remedy(&vm, &sight, Remedy::Replace).await.unwrap();
    assert_eq!((remedy, instance.intent.disk_generation), (Remedy::Restart, 0), "its agent is too old for more");

    let bed = bed().await;
    let (vm, sight) = due(&bed, Repair::Replace).await;
    assert_eq!(bed.remedy(&vm, &sight, Remedy::Restart).await.unwrap().1, Remedy::Restart, "no room, say");
    bed.see(vm.uid, Phase::Running).await;
    bed.clock.advance(40 * MINUTE);
    let (moved, remedy) = bed.remedy(&vm, &sight, Remedy::Replace).await.unwrap();
    assert_eq!((remedy, moved.intent.away_from.clone()), (Remedy::Replace, vm.host().cloned()));
    assert_eq!(bed.tells(&vm).await, Some((Power::Running, 0)), "not before its node has left");
    bed.enters(&vm, NodePhase::Left).await;
    assert_eq!(bed.tells(&vm).await, None);
    bed.see(vm.uid, Phase::Absent).await;
    let free = bed.get(vm.uid).await;
    assert_eq!((free.host(), free.status.state), (None, State::Placing));
    bed.consistent().await;
}
