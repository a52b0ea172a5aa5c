//! Admission of many: one commit, each for itself.

use croft_core::audit::Call;
use croft_core::placement::{self, Request};
use croft_core::ports::NewInstance;
use croft_core::{Error, Reason};
use croft_store::{ClaimAnswer, ClaimRequest};

use crate::bed::{Bed, call, call_with, dry, small, t};

/// As the placer does: each is placed on top of those before it.
async fn batch(bed: &Bed, wanted: Vec<(Call, NewInstance)>) -> Vec<ClaimAnswer> {
    let mut views = bed.store.host_views().await.unwrap();
    let requests = wanted
        .into_iter()
        .map(|(call, new)| {
            let request = Request::from(&new.spec);
            let placed = placement::place(&views, &request).map(|placement| {
                let view = views.iter_mut().find(|view| view.id == placement.host).unwrap();
                let claim = view.apply(&request, &placement);
                (placement, claim, view.version)
            });
            ClaimRequest { call, new, placed }
        })
        .collect();
    bed.store.instance_claim(requests).await.unwrap()
}

fn words(answers: &[ClaimAnswer]) -> Vec<String> {
    answers
        .iter()
        .map(|answer| match answer {
            ClaimAnswer::Admitted { instance, replayed: false, .. } => instance.id.clone(),
            ClaimAnswer::Admitted { instance, replayed: true, .. } => format!("again {}", instance.id),
            ClaimAnswer::Refused(error) => error.reason().as_str().to_owned(),
            ClaimAnswer::Stale => "stale".to_owned(),
        })
        .collect()
}

#[tokio::test]
async fn one_refusal_does_not_disturb_its_neighbours() {
    let bed = Bed::furnished().await;
    bed.host("h2", 8).await;
    bed.limit("acme", "instances", 3).await;
    let mut huge = small("acme", "huge");
    huge.spec.vcpus = 500;
    let mut pinned = small("acme", "pinned");
    pinned.spec.cpu.dedicated = true;
    pinned.spec.vcpus = 2;
    let answers = batch(
        &bed,
        vec![
            (call(), small("acme", "a")),
            (call(), small("nobody", "b")),
            (call(), small("acme", "a")),
            (call(), huge),
            (dry(), small("acme", "dry")),
            (call(), pinned),
            (call(), small("acme", "c")),
            (call(), small("acme", "d")),
        ],
    )
    .await;
    let expected = ["a", "NOT_FOUND", "ALREADY_EXISTS", "NO_CAPACITY", "dry", "pinned", "c", "QUOTA_EXCEEDED"];
    assert_eq!(words(&answers), expected);
    let ClaimAnswer::Refused(Error::QuotaExceeded(violations)) = &answers[7] else { panic!("quota") };
    assert_eq!((violations[0].limit, violations[0].used, violations[0].requested), (3, 3, 1), "with its neighbours'");
    assert_eq!(bed.used("acme", "instances").await, 3);
    assert!(bed.store.instance_get(&t("acme"), "dry").await.unwrap().is_none());
    bed.consistent().await;
}

#[tokio::test]
async fn a_retry_in_the_same_batch_is_the_same_call() {
    let bed = Bed::furnished().await;
    let answers = batch(
        &bed,
        vec![
            (call_with("r", 1), small("acme", "vm")),
            (call_with("r", 1), small("acme", "vm")),
            (call_with("r", 2), small("acme", "vm2")),
        ],
    )
    .await;
    assert_eq!(words(&answers), ["vm", "again vm", "REQUEST_ID_REUSED"]);
    assert_eq!(bed.used("acme", "instances").await, 1);
    bed.consistent().await;
}

#[tokio::test]
async fn no_cpu_is_given_twice_whoever_asks() {
    let bed = Bed::furnished().await;
    let mut new = small("acme", "a");
    new.spec.cpu.dedicated = true;
    new.spec.vcpus = 4;
    let first = bed.place(call(), new.clone()).await;
    new.id = "b".to_owned();
    // A placer that went wrong: the same CPUs again, in the same batch.
    let second = ClaimRequest { new, ..first.clone() };
    let answers = bed.store.instance_claim(vec![first, second]).await.unwrap();
    assert_eq!(words(&answers), ["a", "stale"]);
    bed.consistent().await;
}

#[tokio::test]
async fn a_large_batch_is_one_commit() {
    let bed = Bed::furnished().await;
    bed.tenant("child", Some("acme")).await;
    let mut wanted = Vec::new();
    for number in 0..130 {
        let mut new = small("child", &format!("vm-{number}"));
        new.spec.memory_mib = 64;
        new.spec.disks[0].size_gib = 4;
        new.spec.vcpus = 1;
        wanted.push((bed.fresh(), new));
    }
    bed.limit("acme", "instances", 50).await;
    let changed = bed.store.changed();
    let answers = words(&batch(&bed, wanted).await);
    assert_eq!(answers.iter().filter(|word| word.starts_with("vm-")).count(), 50);
    assert_eq!(answers.iter().filter(|word| *word == "QUOTA_EXCEEDED").count(), 80);
    assert!(changed.has_changed().unwrap(), "watchers are told");
    assert_eq!(bed.used("acme", "instances").await, 50);
    bed.consistent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_creates_stop_exactly_at_the_quota() {
    let bed = std::sync::Arc::new(Bed::new().await);
    bed.tenant("acme", None).await;
    bed.image("debian", None).await;
    for number in 0..4 {
        bed.host(&format!("h{number}"), 64).await;
    }
    for child in ["c0", "c1", "c2"] {
        bed.tenant(child, Some("acme")).await;
    }
    bed.limit("acme", "instances", 20).await;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..8 {
        let bed = bed.clone();
        clients.spawn(async move {
            let mut reasons = Vec::new();
            for number in 0..10 {
                let mut new = small(&format!("c{}", (client + number) % 3), &format!("vm-{client}-{number}"));
                new.spec.memory_mib = 64;
                new.spec.disks[0].size_gib = 4;
                let call = bed.fresh();
                let answer = loop {
                    let request = bed.place(call.clone(), new.clone()).await;
                    match bed.store.instance_claim(vec![request]).await.unwrap().pop().unwrap() {
                        ClaimAnswer::Stale => {}
                        other => break other,
                    }
                };
                reasons.push(match answer {
                    ClaimAnswer::Admitted { .. } => None,
                    ClaimAnswer::Refused(error) => Some(error.reason()),
                    ClaimAnswer::Stale => unreachable!("tried again above"),
                });
            }
            reasons
        });
    }
    let reasons: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
    assert_eq!(reasons.iter().filter(|reason| reason.is_none()).count(), 20);
    assert_eq!(reasons.iter().filter(|reason| **reason == Some(Reason::QuotaExceeded)).count(), 60);
    assert_eq!(bed.used("acme", "instances").await, 20);
    bed.consistent().await;
}
