//! A host is drained and taken back: what is written, what is refused, and what comes back exactly as it was.

use croft_core::Reason;
use croft_core::instance::{Phase, Power, State};
use croft_core::maintenance::{self, Effect, Expected, parked};
use croft_store::{Command, Drain};

use crate::bed::{Bed, call, dry, h, refused, small};

fn why(words: &str) -> Drain {
    Drain { why: words.to_owned(), expect: None }
}

async fn shown(bed: &Bed) -> Vec<Expected> {
    let steps = bed.store.host_drain_plan(&h("h1")).await.unwrap();
    steps.into_iter().map(|step| Expected { instance: step.instance, uid: step.uid, effect: step.effect }).collect()
}

#[tokio::test]
async fn a_drain_keeps_what_is_wanted_claimed_and_charged() {
    let bed = Bed::furnished().await;
    let web = bed.running("acme", "web").await;
    let claimed = bed.get_host("h1").await.claimed;
    let dump = bed.dump().await;
    bed.store.host_drain(&dry(), &h("h1"), why("")).await.unwrap();
    assert_eq!(bed.dump().await, dump, "a dry run writes nothing");

    let host = bed.store.host_drain(&bed.fresh(), &h("h1"), why("new kernel")).await.unwrap().into_inner();
    let maintenance = host.maintenance.clone().expect("it is under maintenance");
    assert_eq!((maintenance.phase, maintenance.why.as_str()), (maintenance::Phase::Draining, "new kernel"));
    assert_eq!((maintenance.actor.as_str(), host.cordoned), ("token:root", false));
    let told = bed.store.host_desired(&h("h1")).await.unwrap().instances.remove(0).0;
    assert_eq!(told.intent.power, Power::Stopped);
    let parked_web = bed.get(web.uid).await;
    assert_eq!((parked_web.intent.power, parked(&parked_web).is_some()), (Power::Running, true));
    assert_eq!((bed.get_host("h1").await.claimed, bed.used("acme", "instances").await), (claimed, 1));
    assert_eq!(refused(bed.claim(call(), small("acme", "new")).await).reason(), Reason::NoCapacity);

    assert!(!bed.store.host_drained(&h("h1")).await.unwrap(), "it runs");
    bed.see(web.uid, Phase::Off).await;
    assert!(bed.store.host_drained(&h("h1")).await.unwrap());
    assert!(!bed.store.host_drained(&h("h1")).await.unwrap(), "said once");
    assert_eq!(bed.store.host_draining().await.unwrap(), []);
    bed.settle(web.uid).await;
    let off = bed.get(web.uid).await;
    assert_eq!((off.status.state, off.status.reason.as_str()), (State::Stopped, "HostMaintenance"));
    bed.consistent().await;

    let bed = bed.reopen().await;
    let host = bed.store.host_undrain(&call(), &h("h1")).await.unwrap().into_inner();
    assert_eq!(host.maintenance, None);
    assert_eq!(bed.store.host_undrain(&call(), &h("h1")).await.unwrap().into_inner(), host, "nothing to end");
    let told = bed.store.host_desired(&h("h1")).await.unwrap().instances.remove(0).0;
    assert_eq!(told.intent.power, Power::Running);
    bed.see(web.uid, Phase::Running).await;
    bed.settle(web.uid).await;
    assert_eq!(bed.get(web.uid).await.status.state, State::Running);
    bed.claim(call(), small("acme", "new")).await.unwrap();
    bed.consistent().await;
}

#[tokio::test]
async fn work_that_is_open_waits_for_the_end_of_the_maintenance() {
    let bed = Bed::furnished().await;
    let (create, web) = bed.claim(call(), small("acme", "web")).await.unwrap();
    bed.store.host_drain(&call(), &h("h1"), why("")).await.unwrap();
    bed.see(web.uid, Phase::Off).await;
    bed.settle(web.uid).await;
    let waits = bed.operation(&create).await;
    assert!(!waits.done && waits.progress.contains("under maintenance"), "{waits:?}");
    bed.store.host_undrain(&call(), &h("h1")).await.unwrap();
    bed.see(web.uid, Phase::Running).await;
    bed.settle(web.uid).await;
    let done = bed.operation(&create).await;
    assert!(done.done && done.failure.is_none(), "{done:?}");
    bed.consistent().await;
}

#[tokio::test]
async fn what_cannot_be_drained_is_refused_and_says_why() {
    let bed = Bed::furnished().await;
    let reason = async |id: &str| refused(bed.store.host_drain(&call(), &h(id), why("")).await);
    assert_eq!(reason("h9").await.reason(), Reason::NotFound);
    bed.store.host_drain(&call(), &h("h1"), why("mine")).await.unwrap();
    let second = reason("h1").await;
    assert_eq!(second.reason(), Reason::HostInMaintenance);
    assert!(second.to_string().contains("DRAINING, by token:root: mine"), "{second}");
    let uncordon = refused(bed.store.host_cordon(&call(), &h("h1"), false).await);
    assert!(uncordon.to_string().contains("croft host undrain h1"), "{uncordon}");
    bed.store.host_cordon(&call(), &h("h1"), true).await.unwrap();
    let host = bed.store.host_undrain(&call(), &h("h1")).await.unwrap().into_inner();
    assert!(host.cordoned, "that is another matter");

    bed.advance(3600);
    bed.store.host_lease_expire(bed.store.now()).await.unwrap();
    assert_eq!(reason("h1").await.reason(), Reason::HostUnreachable);
    bed.store.host_fence(&call(), &h("h1")).await.unwrap();
    assert_eq!(reason("h1").await.reason(), Reason::HostFenced);
}

#[tokio::test]
async fn a_drain_that_is_not_the_previewed_one_any_more_names_what_changed() {
    let bed = Bed::furnished().await;
    let (web, db) = (bed.running("acme", "web").await, bed.running("acme", "db").await);
    let before = shown(&bed).await;
    assert!(before.iter().all(|step| step.effect == Effect::Stops), "{before:?}");
    bed.command(&web, Command::Stop { timeout: None }).await.unwrap();
    bed.see(web.uid, Phase::Off).await;
    bed.delete(&db).await;
    bed.running("acme", "late").await;
    let drain = Drain { why: String::new(), expect: Some(before) };
    let error = refused(bed.store.host_drain(&call(), &h("h1"), drain).await);
    assert_eq!(error.reason(), Reason::DrainPlanChanged);
    let words = error.to_string();
    for change in ["instances/web was STOPS, and is STAYS_OFF now", "instances/db is gone", "instances/late has come"] {
        assert!(words.contains(change), "{change}: {words}");
    }
    assert_eq!(bed.get_host("h1").await.maintenance, None);
    let drain = Drain { why: String::new(), expect: Some(shown(&bed).await) };
    bed.store.host_drain(&call(), &h("h1"), drain).await.unwrap();
    bed.consistent().await;
}

#[tokio::test]
async fn a_fence_in_the_middle_sets_its_instances_free_and_the_maintenance_goes_on() {
    let bed = Bed::furnished().await;
    let web = bed.running("acme", "web").await;
    bed.store.host_drain(&call(), &h("h1"), why("")).await.unwrap();
    bed.store.host_fence(&call(), &h("h1")).await.unwrap();
    let placing = bed.get(web.uid).await;
    assert_eq!((placing.status.state, parked(&placing)), (State::Placing, None));
    assert!(bed.store.host_drained(&h("h1")).await.unwrap(), "nothing is there");
    bed.host("h2", 16).await;
    bed.place_again(web.uid).await;
    let placed = bed.get(web.uid).await;
    assert_eq!((placed.host(), parked(&placed)), (Some(&h("h2")), None));
    bed.consistent().await;
    bed.store.host_undrain(&call(), &h("h1")).await.unwrap();
    bed.consistent().await;
}
